"""Answer the refusals of the framework's own routes as problems, and OPTIONS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from jetmap.errors import JetmapError

from .asgi import REASON, AsgiMessage, Header, Receive, Scope, Send, route_path
from .job_changes import ACCEPT_PATCH
from .media import ACCEPT_POST
from .problems import Problem, problem_of, status_problem

ORDER = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def exception_handlers(debug: bool) -> dict[Any, Callable[[Request, Any], Any]]:
    """Make the handlers of an application."""

    async def of_status(request: Request, exc: HTTPException) -> Response:
        headers: list[Header] = [
            (name.lower().encode(), value.encode()) for name, value in (exc.headers or {}).items()
        ]
        detail = exc.detail
        if exc.status_code == 405 or request.method == "OPTIONS":
            methods = methods_of(request.app.router.routes, request.scope)
            if methods and request.method == "OPTIONS":
                return Response(status_code=204, headers=options_headers(request.scope, methods))
            headers = [allow(methods)] if methods else headers
            if methods:
                useful = [method for method in methods if method not in ("HEAD", "OPTIONS")]
                detail = f"{request.method} does nothing here: use {' or '.join(useful)}"
        elif exc.status_code == 404 and detail == "Not Found":
            detail = "POST /map/FUNCTION runs a function; /docs lists all addresses"
        return _answer(status_problem(exc.status_code, detail, headers))

    async def of_parameters(request: Request, exc: RequestValidationError) -> Response:
        detail = "; ".join(
            f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()
        )
        return _answer(status_problem(400, detail))

    async def of_error(request: Request, exc: Exception) -> Response:
        return _answer(problem_of(exc, debug))

    return {
        HTTPException: of_status,
        RequestValidationError: of_parameters,
        Problem: of_error,
        JetmapError: of_error,
        Exception: of_error,
    }


def _answer(problem: Problem) -> Response:
    headers = {name.decode(): value.decode() for name, value in problem.headers}
    return _Refusal(problem, headers)


class _Refusal(Response):
    """An answer that is a problem, and names its reason to the access log."""

    def __init__(self, problem: Problem, headers: dict[str, str]) -> None:
        media = "application/problem+json"
        super().__init__(problem.encode(), problem.status, headers=headers, media_type=media)
        self._reason = problem.slug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def naming(message: AsgiMessage) -> None:
            if message["type"] == "http.response.start":
                message[REASON] = self._reason
            await send(message)

        await super().__call__(scope, receive, naming)


def methods_of(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    """Return all methods of this path, and none if there is no such path.

    ``OPTIONS *`` asks for those of any path.
    """
    found: set[str] = set()
    anywhere = scope["path"] in ("*", "/*")
    for route in routes:
        if anywhere or route.matches(dict(scope))[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    if not found:
        return []
    if "GET" in found:
        found.add("HEAD")
    found.add("OPTIONS")
    return [method for method in ORDER if method in found]


def allow(methods: list[str]) -> Header:
    return b"allow", ", ".join(methods).encode()


def options_headers(scope: Scope, methods: list[str]) -> dict[str, str]:
    """Make the headers with which OPTIONS answers for a path of these methods."""
    headers = {"allow": ", ".join(methods)}
    parts = route_path(scope).split("/")
    if "POST" in methods and len(parts) == 3 and parts[1] in ("map", "jobs"):
        headers["accept-post"] = ACCEPT_POST[1].decode()
    if "PATCH" in methods:
        headers["accept-patch"] = ACCEPT_PATCH[1].decode()
    return headers
