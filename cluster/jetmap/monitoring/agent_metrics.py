"""``GET /metrics`` of an agent: what this process knows of itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jetmap.errors import ConfigurationError
from jetmap.wire.counts import Names

from .families import by_function, counter, exposed, item_seconds

if TYPE_CHECKING:
    from jetmap.agent.agent import Agent

logger = logging.getLogger(__name__)

REQUEST_SECONDS = 5.0  # Seconds for a request to arrive, and for its answer to be read.
REQUEST_BYTES = 16 << 10  # Bytes of a request's head.
REQUESTS = 16  # Requests at a time; further ones are closed.
STATES = ("starting", "idle", "busy", "failed")


class AgentCollector(Collector):
    """Collects what an agent knows of itself, at every scrape."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        agent, counts, presence = self._agent, self._agent.counts, self._agent.presence
        for name, text, value in (
            ("draining", "1 while it takes no more chunks.", presence.draining),
            ("serving", "1 while the broker lets it take chunks.", bool(presence.offer)),
            ("broker_connected", "1 while the broker answers.", agent.connected),
            ("memory_bytes", "Bytes that the workers use.", presence.memory),
            (
                "memory_limit_bytes",
                "Bytes of this host, or of its cgroup; 0: unknown.",
                presence.memory_limit,
            ),
            (
                "round_trip_seconds",
                "Seconds to the broker and back; 0 if it is near.",
                presence.round_trip,
            ),
        ):
            yield GaugeMetricFamily(f"jetmap_agent_{name}", text, float(value))
        states = Counter[str](worker.state for worker in presence.workers)
        cores = GaugeMetricFamily(
            "jetmap_agent_cores", "Cores, by the state of their worker.", labels=["kind"]
        )
        for state in STATES:
            cores.add_metric([state], states[state])
        yield cores
        names = Names()
        running = Counter(names.of(w.function) for w in presence.workers if w.function)
        busy = GaugeMetricFamily(
            "jetmap_agent_busy_cores", "Cores that compute.", labels=["function"]
        )
        for function, count in sorted(running.items()):
            busy.add_metric([function], count)
        yield busy
        text = "Items computed here, by outcome: ok, or the kind of the error."
        yield by_function("jetmap_agent_items", text, counts.items)
        yield item_seconds(
            "jetmap_agent_item_seconds",
            ((name, found.bins, found.seconds) for name, found in counts.functions.items()),
        )
        text = "Workers that died with an item, by signal or cause."
        yield by_function("jetmap_agent_crashes", text, counts.crashes)
        text = "Workers that the kernel killed for want of memory."
        yield counter("jetmap_agent_memory_kills", text, counts.memory_kills)
        yield counter("jetmap_agent_workers_recycled", "Worn workers replaced.", counts.recycled)
        text = "Starts of workers that failed."
        yield counter("jetmap_agent_worker_start_failures", text, counts.start_failures)


class MetricsServer:
    """Answers ``GET /metrics`` on an address of its own, one request a connection."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port on which it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises ConfigurationError if the address cannot be used."""
        try:
            self._server = await asyncio.start_server(
                self._on_connection, host.strip("[]"), port, limit=REQUEST_BYTES
            )
        except OSError as error:
            raise ConfigurationError(
                [
                    f"metrics cannot be served on {host}:{port}: {error.strerror or error}; give "
                    "another --metrics-port (0: any free port), or another metrics_host"
                ]
            ) from error
        logger.info("metrics of this agent: http://%s:%d/metrics", host, self.port)

    async def close(self) -> None:
        """Close the listener and whoever is connected."""
        if self._server is None:
            return
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._server.wait_closed()

    async def _on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._open) >= REQUESTS:
                return
            self._open.add(task)
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # Whoever asked has left, is too slow, or does not speak HTTP.
        finally:
            self._open.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answer(self, head: bytes) -> bytes:
        line, *headers = head.decode("latin-1").split("\r\n")
        method, _, rest = line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if path != "/metrics":
            return _response("404 Not Found", b"only /metrics is here\n")
        if method not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", b"", "Allow: GET, HEAD\r\n")
        fields = (header.partition(":") for header in headers)
        accept = next((value.strip() for name, _, value in fields if name.lower() == "accept"), "")
        text, content_type = exposed(accept, self._collector)
        response = _response("200 OK", text, f"Content-Type: {content_type}\r\n")
        return response if method == "GET" else response[: len(response) - len(text)]


def _response(status: str, body: bytes, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
