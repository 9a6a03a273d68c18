"""Traces by the OpenTelemetry API: a span for each map, and for some of its chunks.

Nothing here is imported until a process has a tracer provider, or a chunk carries a trace. The SDK
is the user's. ``traceparent`` is the header of W3C Trace Context, and travels in each chunk.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
)

from .version import __version__

logger = logging.getLogger(__name__)

# Chunks of a map with a span: the first ones, and then those whose number is a power of two, so
# that the largest job has a trace that can be read.
CHUNKS = 32
SYSTEM = {"messaging.system": "nats"}


def is_configured() -> bool:
    """Return whether this process has a tracer provider, so that spans go anywhere."""
    provider = trace.get_tracer_provider()
    return not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider)


def configure() -> None:
    """Set up the SDK as its variables say, unless the program has done so.

    ``OTEL_TRACES_EXPORTER`` names the exporters (``otlp`` if only an endpoint is set); sampler,
    service name and addresses are read by the SDK itself.
    """
    names = os.environ.get("OTEL_TRACES_EXPORTER", "")
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not names and any(os.environ.get(variable) for variable in endpoints):
        names = "otlp"
    wanted = [name.strip() for name in names.split(",") if name.strip() not in ("", "none")]
    if not wanted or is_configured():
        return
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning("no traces: opentelemetry-sdk is missing, and OTEL_… variables ask for them")
        return
    provider = TracerProvider()
    for name in wanted:
        found = list(entry_points(group="opentelemetry_traces_exporter", name=name))
        if not found:
            logger.warning("no traces to %s: install opentelemetry-exporter-%s", name, name)
            continue
        provider.add_span_processor(BatchSpanProcessor(found[0].load()()))
    trace.set_tracer_provider(provider)


def traceparent_of(context: SpanContext, *, sampled: bool) -> str:
    """Return the header for children of a span."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{sampled:02x}"


@lru_cache(maxsize=64)
def context_of(traceparent: str) -> SpanContext | None:
    """Return the span that a header names; None if it names none."""
    parts = traceparent.split("-")
    try:
        context = SpanContext(
            int(parts[1], 16), int(parts[2], 16), True, TraceFlags(int(parts[3], 16))
        )
    except (IndexError, ValueError):
        return None
    return context if context.is_valid else None


@lru_cache(maxsize=64)
def unsampled_context(traceparent: str) -> contexts.Context | None:
    """Return the context of a chunk without a span of its own; None if it has one."""
    parent = context_of(traceparent)
    if parent is not None and parent.trace_flags.sampled:
        return None
    span = trace.INVALID_SPAN if parent is None else NonRecordingSpan(parent)
    return trace.set_span_in_context(span, contexts.Context())


attach, detach = contexts.attach, contexts.detach


def _is_unsampled(span: Span) -> bool:
    context = span.get_span_context()
    return context.is_valid and not context.trace_flags.sampled and not span.is_recording()


def trace_id() -> str:
    """Return the id of the trace in progress; empty: there is none."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


class MapSpan:
    """The span of one open map, the parent of its chunks."""

    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        self._unsampled = traceparent_of(context, sampled=False)
        self._sampled = (
            traceparent_of(context, sampled=True)
            if context.trace_flags.sampled
            else self._unsampled
        )

    def parent_of(self, chunk: int) -> str:
        """Return what chunk number ``chunk`` carries; only some of them get a span."""
        if chunk <= CHUNKS or chunk & (chunk - 1) == 0:
            return self._sampled
        return self._unsampled

    def on_crash(self, message: str, item: int | None) -> None:
        """Note a worker that died with an item."""
        where: dict[str, int] = {} if item is None else {"jetmap.item": item}
        self._span.add_event("worker died", {"exception.message": message, **where})

    def end(self, error: BaseException | None, done: int, *, failed: bool) -> None:
        """End the span. A map that its reader withdraws has no error."""
        span = self._span
        if span.is_recording():
            span.set_attribute("jetmap.items.done", done)
            if error is not None:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(StatusCode.ERROR, str(error))
            elif failed:
                span.set_attribute("error.type", "ItemError")
                span.set_status(StatusCode.ERROR, "items failed")
        span.end()


class MapTraces:
    """Begins the spans of the maps of one pool."""

    def __init__(self, pool: str) -> None:
        self._tracer = trace.get_tracer("jetmap", __version__)
        self._destination = {**SYSTEM, "messaging.destination.name": f"jetmap.work.{pool}"}

    def current(self) -> str:
        """Return the header for children of the span in progress; empty: there is none."""
        context = trace.get_current_span().get_span_context()
        return (
            traceparent_of(context, sampled=context.trace_flags.sampled) if context.is_valid else ""
        )

    def begin(self, map: str, function: str, items: int | None, submitted: str | None) -> MapSpan:
        """Begin the span of a map: below the caller's, or for a job linked with its submitter's.

        Below an unsampled span there is none, whatever the sampler would say.

        submitted: the header of the request that submitted the job; None: the map is not a job's.
        """
        above = trace.get_current_span()
        if submitted is None and _is_unsampled(above):
            return MapSpan(above)
        attributes: dict[str, Any] = {
            **self._destination,
            "messaging.operation.name": "map",
            "messaging.operation.type": "send",
            "messaging.message.conversation_id": map,
            "jetmap.function": function,
            "jetmap.map": map,
        }
        if items is not None:
            attributes["messaging.batch.message_count"] = items
        # A job runs long after its submission, perhaps in another process: a trace of its own.
        context = None if submitted is None else contexts.Context()
        found = context_of(submitted or "")
        return MapSpan(
            self._tracer.start_span(
                f"map {function}",
                context,
                SpanKind.PRODUCER,
                attributes,
                links=[Link(found)] if found is not None else (),
            )
        )


@contextmanager
def computing(
    traceparent: str, function: str, map: str, chunk: int, attempt: int, items: int
) -> Iterator[Span]:
    """Compute a chunk in its span, so that the function's own spans are below it.

    An unsampled chunk has no span; the function's spans still belong to its trace.
    """
    context = unsampled_context(traceparent)
    if context is not None:
        span = trace.get_current_span(context)
    else:
        parent = context_of(traceparent)
        assert parent is not None
        configure()
        span = trace.get_tracer("jetmap", __version__).start_span(
            f"process {function}",
            trace.set_span_in_context(NonRecordingSpan(parent)),
            SpanKind.CONSUMER,
            {
                **SYSTEM,
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.message.conversation_id": map,
                "messaging.message.id": f"{map}.{chunk}",
                "messaging.batch.message_count": items,
                "jetmap.function": function,
                "jetmap.map": map,
                "jetmap.attempt": attempt,
            },
            links=[Link(parent)],
        )
        context = trace.set_span_in_context(span)
    token = contexts.attach(context)
    try:
        yield span
    finally:
        contexts.detach(token)
        span.end()


def count_failed(span: Span, kinds: Sequence[str]) -> None:
    """Note in a chunk's span that items failed, by the kinds of their errors."""
    if kinds and span.is_recording():
        span.set_attribute("error.type", kinds[0])
        span.set_status(StatusCode.ERROR, f"{len(kinds)} items failed")
