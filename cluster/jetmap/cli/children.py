"""The processes that ``up`` starts: how it keeps them running, and what they inherit from it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from jetmap.import_path import module
from jetmap.machine import tethered
from jetmap.supervision import Backoff, Supervisor, end_process

from .exits import ChildFailed, Exit

if TYPE_CHECKING:
    from jetmap.embedded.running import Running

logger = logging.getLogger(__name__)

# Variables in the environment of a child.
SOCKET = "JETMAP__SOCKET"  # Descriptor of the socket that the gateway listens on.
LOCAL = "JETMAP__UP"  # Lock file of the `up` that the agent belongs to.

# Seconds before a dead child is started again: the first time, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
# Seconds that a child must have lived for its death to count as the first.
HEALTHY_AFTER = 30.0
# Exit codes of a child that would fail again: the user must mend what it printed on stderr.
FINAL = (Exit.USAGE, Exit.WORKERS)


def local_up() -> Running | None:
    """Return the `up` that started this process as its agent, or None."""
    from jetmap.embedded.running import read_running

    lock = os.environ.pop(LOCAL, None)
    return read_running(lock) if lock else None


def inherited_socket() -> int | None:
    """Return the descriptor of the socket that the parent listens on, or None."""
    number = os.environ.pop(SOCKET, None)
    return int(number) if number else None


def restarting(name: str, serve: Callable[[], Awaitable[str | None]]) -> Supervisor:
    """Supervise a part of an installation: log its deaths, and start it again."""

    def report(how: str, pause: float) -> None:
        logger.warning("%s %s; starting it again in %.1f s", name, how, pause)

    return Supervisor(serve, restart_backoff(), report)


def restart_backoff() -> Backoff:
    """Make the pauses before a part is started again."""
    return Backoff(FIRST_PAUSE, LONGEST_PAUSE, healthy_after=HEALTHY_AFTER)


class Child:
    """A ``jetmap`` command as a process that ends when this one does.

    Args:
        arguments: The command and its arguments; never secrets, which others can read there.
        environment: Variables to add to this process's own.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._arguments = list(arguments)
        self._environment = dict(environment)
        self._pass_fds = tuple(pass_fds)
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor = restarting(f"the {name}", self._serve)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def run(self) -> None:
        """Keep the process running until ``stop``. Raises ChildFailed if it would fail again."""
        await self._supervisor.run()

    async def stop(self, grace: float, forced: asyncio.Event) -> None:
        """End the process, at once when ``forced`` is set. A second call does nothing."""
        self._supervisor.stop()
        if self._process is not None and not await end_process(self._process, grace, forced):
            logger.warning("the %s did not end in time and was killed", self.name)

    async def _serve(self) -> str | None:
        code = await (await self._start()).wait()
        if code in FINAL and not self._supervisor.is_stopped:
            raise ChildFailed(self.name, code)
        return f"died ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"

    async def _start(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            *tethered(*module("jetmap.cli"), *self._arguments),
            env=os.environ | self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=self._pass_fds,
            # Ctrl-C reaches only this process, which decides the order in which its children end.
            start_new_session=True,
        )
        return self._process
