"""Replace the workers when the user's source changes, once the new source can be imported."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from jetmap.supervision import Backoff
from jetmap.wire.worker_start import StartFailed

from .recycling import RESTART_PAUSES
from .worker_process import StartError, WorkerProcess

logger = logging.getLogger(__name__)


class Reload:
    """The watched source files, and the trial of a change in a process of its own.

    While the new source cannot be imported, the workers keep what they have loaded. The next trial
    follows when a file changes, or after a pause that grows: the cause may lie elsewhere, for
    example in a database that the import connects to.

    Args:
        start: Starts a worker for a trial. None: changes are not tried first.

    Attributes:
        failure: Why the workers run the previous version; None if they run the current one.
    """

    def __init__(self, start: Callable[[], Awaitable[WorkerProcess]] | None) -> None:
        self.failure: str | None = None
        self._start = start
        self._files: dict[str, float] = {}
        self._trial: WorkerProcess | None = None
        self._is_due = False
        self._not_before = 0.0
        self._backoff = Backoff(*RESTART_PAUSES)

    def watch(self, files: Iterable[str]) -> None:
        """Add files whose changes count from now on."""
        self._files |= {path: _modified(path) for path in files}

    async def check(self, *, is_serving: bool) -> bool:
        """Return whether the workers must be replaced now; call this once a second.

        Args:
            is_serving: Whether a worker is ready, and would be lost with a broken source.
        """
        if changed := [path for path, at in self._files.items() if _modified(path) != at]:
            logger.info("%s changed", ", ".join(changed))
            self.watch(changed)
            await self._end_trial()
            self._backoff.reset()
            self._not_before, self._is_due = 0.0, True
        if not self._is_due:
            return False
        if self._start is None or not is_serving:
            return await self._conclude()
        if self._trial is None:
            await self._begin_trial(self._start)
        elif self._trial.has_failed:
            failure = await self._trial.failure()
            await self._end_trial()
            self._on_failure(failure)
        elif self._trial.is_warm:
            return await self._conclude()
        return False

    async def close(self) -> None:
        """End a trial that is under way."""
        self._is_due = False
        await self._end_trial()

    async def _begin_trial(self, start: Callable[[], Awaitable[WorkerProcess]]) -> None:
        if time.monotonic() < self._not_before:
            return
        try:
            self._trial = await start()
        except StartError as error:
            self._on_failure(error.failure)
        if not self._is_due:  # Closed meanwhile.
            await self._end_trial()

    async def _end_trial(self) -> None:
        trial, self._trial = self._trial, None
        if trial is not None:
            await trial.end()

    async def _conclude(self) -> bool:
        self.failure, self._is_due = None, False
        await self._end_trial()
        logger.info("the workers are replaced")
        return True

    def _on_failure(self, failure: StartFailed) -> None:
        self._not_before = time.monotonic() + self._backoff.grow()
        self.watch(failure.files)
        text = failure.traceback.strip() or failure.message
        text = f"the changed source cannot be loaded; the previous version keeps running:\n{text}"
        if text != self.failure:
            self.failure = text
            logger.error("%s", text)


def _modified(path: str) -> float:
    try:
        return Path(path).stat().st_mtime
    except OSError:
        return 0.0
