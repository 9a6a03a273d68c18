"""A child process that is started again when it dies."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

from jetmap.machine import TETHER
from jetmap.supervision import Backoff, Supervisor, end_process

from .exits import ChildFailed, Exit

logger = logging.getLogger(__name__)

# Seconds before a dead child is started again: the first time, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
# Seconds that a child must have lived for its death to count as the first.
HEALTHY_AFTER = 30.0
# A child that ends so would do it again: what it said on stderr is the user's to mend.
FINAL = (Exit.USAGE, Exit.WORKERS)


def restarting(name: str, serve: Callable[[], Awaitable[str | None]]) -> Supervisor:
    """Supervise a part of an installation: its deaths are logged, and it is started again."""

    def report(how: str, pause: float) -> None:
        logger.warning("%s %s; starting it again in %.1f s", name, how, pause)

    return Supervisor(serve, restart_backoff(), report)


def restart_backoff() -> Backoff:
    """Make the pauses before a part is started again."""
    return Backoff(FIRST_PAUSE, LONGEST_PAUSE, healthy_after=HEALTHY_AFTER)


class Child:
    """``jetmap`` with arguments, as a process that ends when this one does.

    environment: what it gets on top of ours; secrets travel here, never in arguments.
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
        """Keep it running until ``stop``. Raises ChildFailed if that is hopeless."""
        await self._supervisor.run()

    async def stop(self, grace: float, demanded: asyncio.Event) -> None:
        """End it; at once when ``demanded`` is set. A second call does nothing."""
        self._supervisor.stop()
        if self._process is not None and not await end_process(self._process, grace, demanded):
            logger.warning("the %s did not end in time and was killed", self.name)

    async def _serve(self) -> str | None:
        code = await (await self._start()).wait()
        if code in FINAL and not self._supervisor.is_stopped:
            raise ChildFailed(self.name, code)
        return f"died ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"

    async def _start(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jetmap.cli", *self._arguments),
            env=os.environ | self._environment | {TETHER: str(os.getpid())},
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=self._pass_fds,
            # Ctrl-C reaches only us: we choose the order in which they end.
            start_new_session=True,
        )
        return self._process
