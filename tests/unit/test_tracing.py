"""Traces: what is below what, which chunks have a span, and that off is off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from dispatching import Parts, report_of
from jetmap import tracing
from jetmap.tracing import CHUNKS, MapTraces, computing, context_of, count_failed
from jetmap.wire.messages import Crash, Final, Report

MAP = ("f", "m1")
PARENT = SpanContext(10, 11, True)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Give this process a provider, for the test only: the global one can be set once."""
    found, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(found))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield found
    provider.shutdown()


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_without_a_provider_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not tracing.is_configured()
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    tracing.configure()
    assert not tracing.is_configured()
    with computing("nonsense", *MAP, 1, 1, 1) as span:
        assert not span.get_span_context().is_valid


def test_request_map_chunk_and_the_functions_own_spans_are_one_trace(
    exporter: InMemorySpanExporter,
) -> None:
    assert tracing.is_configured()
    tracer = trace.get_tracer("user")
    with tracer.start_as_current_span("request"):
        run = MapTraces("p").begin("m1", "f", 7, None)
    with (
        computing(run.parent_of(1), *MAP, 1, 2, 3) as span,
        tracer.start_as_current_span("own"),
    ):
        count_failed(span, ["raised", "invalid"])
    run.on_crash("it died", 3)
    run.end(None, 7, failed=True)
    found = spans(exporter)
    assert set(found) == {"request", "map f", "process f", "own"}
    assert len({span.context.trace_id for span in found.values()}) == 1
    below = [("map f", "request"), ("process f", "map f"), ("own", "process f")]
    for child, parent in below:
        assert found[child].parent is not None
        assert found[child].parent.span_id == found[parent].context.span_id
    map, chunk = found["map f"], found["process f"]
    assert (map.kind, chunk.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert [link.context.span_id for link in chunk.links] == [map.context.span_id]
    assert map.attributes is not None and chunk.attributes is not None
    assert map.attributes["messaging.destination.name"] == "jetmap.work.p"
    assert map.attributes["messaging.batch.message_count"] == 7
    assert chunk.attributes["messaging.message.id"] == "m1.1"
    assert chunk.attributes["jetmap.attempt"] == 2
    assert chunk.status.description == "2 items failed"
    assert map.status.status_code is StatusCode.ERROR
    assert [event.name for event in map.events] == ["worker died"]


def test_of_a_long_map_only_some_chunks_have_a_span(exporter: InMemorySpanExporter) -> None:
    run = MapTraces("p").begin("m1", "f", None, None)
    sampled = []
    for number in range(1, 5_001):
        context = context_of(run.parent_of(number))
        assert context is not None
        if context.trace_flags.sampled:
            sampled.append(number)
    assert sampled == [*range(1, CHUNKS + 1), 64, 128, 256, 512, 1024, 2048, 4096]
    with (
        computing(run.parent_of(CHUNKS + 1), *MAP, CHUNKS + 1, 1, 1) as span,
        trace.get_tracer("user").start_as_current_span("own"),
    ):
        assert span.get_span_context().is_valid and not span.is_recording()
    run.end(ValueError("no"), 0, failed=False)
    assert set(spans(exporter)) == {"map f"}, "the function's own spans are not sampled either"


def test_only_a_sampled_chunk_needs_a_span() -> None:
    sampled, unsampled = (
        tracing.traceparent_of(PARENT, sampled=sampled) for sampled in (True, False)
    )
    assert tracing.unsampled_context(sampled) is None
    context = tracing.unsampled_context(unsampled)
    assert trace.get_current_span(context).get_span_context().trace_id == PARENT.trace_id
    assert tracing.unsampled_context(unsampled) is context, "it is not made for each chunk"
    token = tracing.attach(context)
    try:
        assert tracing.trace_id() == f"{PARENT.trace_id:032x}"
    finally:
        tracing.detach(token)
    nonsense = tracing.unsampled_context("nonsense")
    assert not trace.get_current_span(nonsense).get_span_context().is_valid


def test_a_job_has_a_trace_of_its_own_that_leads_to_its_submitter(
    exporter: InMemorySpanExporter,
) -> None:
    traces, tracer = MapTraces("p"), trace.get_tracer("user")
    assert traces.current() == ""
    with tracer.start_as_current_span("request") as request:
        submitted = traces.current()
        traces.begin("m1", "f", 7, submitted).end(None, 7, failed=False)
    job = spans(exporter)["map f"]
    assert job.parent is None and job.context.trace_id != request.get_span_context().trace_id
    assert [link.context.span_id for link in job.links] == [request.get_span_context().span_id]


def test_an_unsampled_map_has_no_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    traces = MapTraces("p")
    context = context_of(traces.begin("m1", "f", 7, None).parent_of(1))
    assert context is not None and not context.trace_flags.sampled
    above = trace.NonRecordingSpan(context)
    with trace.use_span(above):
        assert context_of(traces.begin("m2", "f", 7, None).parent_of(1)) == context


def test_a_map_below_a_sampled_span_of_elsewhere_has_a_span(exporter: InMemorySpanExporter) -> None:
    above = context_of("00-" + "0a" * 16 + "-" + "0b" * 8 + "-01")
    assert above is not None
    with trace.use_span(trace.NonRecordingSpan(above)):
        MapTraces("p").begin("m1", "f", 7, None).end(None, 7, failed=False)
    parent = spans(exporter)["map f"].parent
    assert parent is not None and parent.span_id == above.span_id


def test_a_map_ends_its_span_with_itself(exporter: InMemorySpanExporter) -> None:
    parts = Parts()
    run = parts.open(1)
    run.span = MapTraces("p").begin(run.id, "f", 1, None)
    ((_, flight),) = parts.send()
    crash = Final(0, Crash(None, "died", "it died", signal=11))
    death = Report(run.id, flight.number, 1, 0, 0, b"[]", [], 0.0, crash)
    parts.maps.accept(death, 0, 1.0)
    ((_, flight),) = parts.send()
    parts.maps.accept(report_of(run, flight), 0, 1.0)
    (span,) = exporter.get_finished_spans()
    assert run.ended and span.attributes is not None
    assert span.attributes["jetmap.items.done"] == 1
    assert [event.name for event in span.events] == ["worker died"]
