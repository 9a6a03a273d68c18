"""An agent's own metrics over HTTP."""

from __future__ import annotations

import asyncio
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from jetmap.errors import ConfigurationError
from jetmap.monitoring.agent_metrics import AgentCollector, MetricsServer
from jetmap.monitoring.families import exposed
from jetmap.wire.counts import AgentCounts
from jetmap.wire.presence import CoreStatus, Presence
from tools import need_tool

pytestmark = pytest.mark.anyio


def collector() -> AgentCollector:
    counts = AgentCounts()
    counts.outcomes("f", 4, ["raised"], 0.08)
    counts.crash("f", "SIGSEGV")
    workers = [CoreStatus(1, 0, "busy", "f", "a-map"), CoreStatus(2, 1, "idle")]
    presence = Presence(
        "an-agent", "h", 7, "p", "o", "", 1, 2, 2, 1, False, False, [], workers, memory=5
    )
    agent: Any = SimpleNamespace(counts=counts, presence=presence, connected=True)
    return AgentCollector(agent)


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def test_an_agent_serves_what_it_knows_of_itself() -> None:
    server = MetricsServer(collector())
    await server.start("127.0.0.1", 0)
    try:
        found = await ask(server.port, b"GET /metrics?x HTTP/1.1\r\nHost: h\r\n\r\n")
        head, _, body = found.partition(b"\r\n\r\n")
        accept = b"Accept: application/openmetrics-text\r\n"
        open = await ask(server.port, b"GET /metrics HTTP/1.1\r\n" + accept + b"\r\n")
        heads = await ask(server.port, b"HEAD /metrics HTTP/1.1\r\n\r\n")
        lost = await ask(server.port, b"GET / HTTP/1.1\r\n\r\n")
        posted = await ask(server.port, b"POST /metrics HTTP/1.1\r\n\r\n")
        assert await ask(server.port, b"x" * 40_000) == b"", "not HTTP"
    finally:
        await server.close()
    assert head.startswith(b"HTTP/1.1 200 OK") and b"text/plain" in head
    assert open.endswith(b"# EOF\n") and heads.endswith(b"\r\n\r\n")
    assert b"404" in lost.splitlines()[0] and b"405" in posted.splitlines()[0]
    text = body.decode()
    for line in (
        'jetmap_agent_cores{kind="busy"} 1.0',
        'jetmap_agent_busy_cores{function="f"} 1.0',
        'jetmap_agent_items_total{function="f",kind="ok"} 3.0',
        'jetmap_agent_crashes_total{function="f",kind="SIGSEGV"} 1.0',
        'jetmap_agent_item_seconds_bucket{function="f",le="0.0316"} 4.0',
        "jetmap_agent_serving 1.0",
        "jetmap_agent_memory_bytes 5.0",
    ):
        assert line in text, line
    assert "an-agent" not in text and "a-map" not in text, "no agent and no map is a label"


def test_promtool_finds_nothing() -> None:
    promtool = need_tool("promtool")
    text, _ = exposed("", collector())
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


async def test_a_port_that_is_taken_is_named() -> None:
    first, second = MetricsServer(collector()), MetricsServer(collector())
    await first.start("127.0.0.1", 0)
    try:
        with pytest.raises(ConfigurationError, match="--metrics-port"):
            await second.start("127.0.0.1", first.port)
        await second.close()
    finally:
        await first.close()
