"""Spans of the requests that take the short way; FastAPI makes those of all others."""

from __future__ import annotations

from opentelemetry import context, propagate, trace
from opentelemetry.trace import SpanKind, StatusCode

from jetmap.version import __version__

from .asgi import App, AsgiMessage, Receive, Scope, Send, route_path

ROUTES = ("/map/", "/jobs/")  # Their last segment is a function.


class RequestSpans:
    """Make a span of each request, below the one that its headers name.

    Within the span of an application that this one is mounted in, there is no second one.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        # Headers that name a caller's span.
        self._fields = {name.encode() for name in propagate.get_global_textmap().fields}
        self._tracer = trace.get_tracer("jetmap", __version__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        current = trace.get_current_span()
        if current.is_recording():
            await self._app(scope, receive, send)
            return
        parent = context.get_current()
        if not current.get_span_context().is_valid:
            fields = self._fields
            found = {
                name.decode(): value.decode("latin-1")
                for name, value in scope["headers"]
                if name in fields
            }
            if found:
                parent = propagate.extract(found)
        method, path = scope["method"], route_path(scope)
        attributes = {
            "http.request.method": method,
            "url.path": scope["path"],
            "url.scheme": scope.get("scheme", "http"),
        }
        name = method
        for route in ROUTES:
            if path.startswith(route) and "/" not in path[len(route) :]:
                attributes["http.route"] = f"{route}{{function}}"
                name = f"{method} {route}{{function}}"
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes)
        token = context.attach(trace.set_span_in_context(span, parent))
        if not span.is_recording():  # Nothing to note.
            try:
                await self._app(scope, receive, send)
            finally:
                context.detach(token)
            return

        async def sending(message: AsgiMessage) -> None:
            if message["type"] == "http.response.start":
                status: int = message["status"]
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    span.set_attribute("error.type", str(status))
                    span.set_status(StatusCode.ERROR)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            context.detach(token)
            span.end()
