"""A child process that is started again when it dies."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence

from jetmap.backoff import Backoff
from jetmap.machine import TETHER

from .exits import ChildFailed, Exit

logger = logging.getLogger(__name__)

# Seconds before a dead child is started again: the first time, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
# Seconds that a child must have lived for its death to count as the first.
HEALTHY_AFTER = 30.0
# A child that ends so would do it again: what it said on stderr is the user's to mend.
FINAL = (Exit.USAGE, Exit.WORKERS)


def restart_backoff() -> Backoff:
    """Make the pauses before a child is started again."""
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
        self._stopping = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def run(self) -> None:
        """Keeps it running until ``stop``. Raises ChildFailed if that is hopeless."""
        backoff = restart_backoff()
        while not self._stopping:
            began = time.monotonic()
            code = await (await self._start()).wait()
            if self._stopping:
                return
            if code in FINAL:
                raise ChildFailed(self.name, code)
            pause = backoff.after(time.monotonic() - began)
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            logger.warning("the %s died (%s); starting it again in %.1f s", self.name, how, pause)
            await asyncio.sleep(pause)

    async def stop(self, grace: float, demanded: asyncio.Event) -> None:
        """SIGTERM; again when ``demanded``; SIGKILL after ``grace`` seconds. Twice is harmless."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        self.signal(signal.SIGTERM)
        ended = asyncio.ensure_future(process.wait())
        again = asyncio.ensure_future(demanded.wait())
        try:
            await asyncio.wait({ended, again}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            if again.done() and not ended.done():
                self.signal(signal.SIGTERM)
                await asyncio.wait({ended}, timeout=3)
            if not ended.done():
                logger.warning("the %s did not end in time and is killed", self.name)
                self.signal(signal.SIGKILL)
            await ended
        finally:
            again.cancel()
            ended.cancel()

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, if it is there."""
        if self._process is not None and self._process.returncode is None:
            try:
                self._process.send_signal(number)
            except ProcessLookupError:
                pass  # it has just ended by itself

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
