"""Resources that the rows of one run share, each started when first needed."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack

from jetmap import Cluster

from .servers import Server, echo_server, gateway_server, pool_server
from .work import Work


class Run:
    """One run of the benchmark; ``stack`` ends what it has started.

    runs: rounds for each row. shrink: divides the numbers of items, to try the benchmark.
    """

    def __init__(
        self,
        stack: AsyncExitStack,
        pool: ProcessPoolExecutor,
        work: Work,
        cores: int,
        *,
        runs: int = 5,
        shrink: int = 1,
    ) -> None:
        self.pool = pool
        self.work = work
        self.cores = cores
        self.runs = runs
        self._shrink = shrink
        self._stack = stack
        self._cluster: Cluster | None = None
        self._pool_server: Server | None = None
        self._echo_server: Server | None = None
        self._gateway: Server | None = None

    def scaled(self, count: int) -> int:
        """``count``, or a fraction of it in a quick run."""
        return max(2 * self.cores, count // self._shrink)

    def lasting(self, seconds: float) -> float:
        """Duration of a load; shorter in a quick run."""
        return seconds if self._shrink == 1 else seconds / 5

    async def cluster(self) -> Cluster:
        """The embedded cluster, with this process as its caller."""
        if self._cluster is None:
            self._cluster = await self._stack.enter_async_context(Cluster(tasks=["bench.tasks"]))
        return self._cluster

    async def pool_server(self) -> Server:
        """The FastAPI app that awaits its process pool for each item."""
        if self._pool_server is None:
            self._pool_server = await self._stack.enter_async_context(pool_server(self.cores))
        return self._pool_server

    async def echo_server(self) -> Server:
        """The ASGI app that splits a list, and joins and returns it."""
        if self._echo_server is None:
            self._echo_server = await self._stack.enter_async_context(echo_server())
        return self._echo_server

    async def gateway(self) -> Server:
        """``jetmap up bench/tasks.py``."""
        if self._gateway is None:
            self._gateway = await self._stack.enter_async_context(gateway_server())
        return self._gateway
