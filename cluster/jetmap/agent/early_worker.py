"""Start an agent's first worker while the rest of the agent is still imported."""

from __future__ import annotations

from contextlib import suppress

from jetmap.errors import JetmapError
from jetmap.machine import choose_cores
from jetmap.wire.worker_start import Setup

from .options import AgentOptions
from .worker_process import StartError, WorkerProcess


class EarlyWorker:
    """The process of the first core's worker, until the agent takes it by ``start``.

    It imports what every worker needs, and then waits for its setup. See decision 0665.
    """

    def __init__(self, options: AgentOptions) -> None:
        self._options = options
        self._cpu: int | None = None
        self._worker: WorkerProcess | None = None

    async def spawn(self) -> None:
        """Start the process. If that fails, the agent meets the same reason, and reports it."""
        with suppress(JetmapError, StartError):
            cpu = choose_cores(self._options.cores)[0]
            self._cpu = cpu if self._options.pinned else None
            self._worker = await WorkerProcess.spawn(self._options, self._cpu)

    async def start(self, options: AgentOptions, cpu: int | None, setup: Setup) -> WorkerProcess:
        """Start a worker as ``WorkerProcess.start`` does; the first one on its core is there."""
        if self._worker is None or cpu != self._cpu:
            return await WorkerProcess.start(options, cpu, setup)
        worker, self._worker = self._worker, None
        worker.begin(setup)
        return worker

    async def end(self) -> None:
        """End a process that no agent has taken."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.end()
