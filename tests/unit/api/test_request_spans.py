"""Spans of requests for maps, with the status that they were answered with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from fake_cluster import FakeCluster, gateway
from over_http import double

pytestmark = pytest.mark.anyio


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    found, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(found))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield found
    provider.shutdown()


async def test_a_map_has_one_span_below_its_callers(exporter: InMemorySpanExporter) -> None:
    caller = {"traceparent": f"00-{10:032x}-{11:016x}-01"}
    async with gateway(FakeCluster(double)) as client:
        await client.get("/healthz")  # Before the first map, FastAPI builds its layers.
        exporter.clear()
        answer = await client.post("/map/double", json=[1, 2], headers=caller)
        lost = await client.post("/map/nowhere", json=[1])
        await client.post("/login", json={})
    assert answer.json() == [2, 4]
    first, second, login = exporter.get_finished_spans()
    assert (first.name, first.kind) == ("POST /map/{function}", SpanKind.SERVER)
    assert first.parent is not None and first.parent.span_id == 11
    assert first.context.trace_id == 10
    assert first.attributes is not None and second.attributes is not None
    assert first.attributes["http.response.status_code"] == 200
    assert first.attributes["http.route"] == "/map/{function}"
    assert second.parent is None
    assert second.attributes["http.response.status_code"] == lost.status_code
    assert login.name == "POST"


async def test_an_application_around_it_has_made_the_span(exporter: InMemorySpanExporter) -> None:
    async with gateway(FakeCluster(double)) as client:
        await client.get("/healthz")
        exporter.clear()
        with trace.get_tracer_provider().get_tracer("theirs").start_as_current_span("theirs"):
            assert (await client.post("/map/double", json=[1])).json() == [2]
    assert [span.name for span in exporter.get_finished_spans()] == ["theirs"]
