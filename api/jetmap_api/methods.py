"""The methods that a path has, for ``OPTIONS`` and the ``Allow`` of a 405."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.routing import BaseRoute, Match

from .asgi import Header, Scope
from .media import ACCEPT_POST
from .security import route_path

ORDER = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def methods_of(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    """All methods of this path, those that every path has among them; none: there is no such
    path. ``OPTIONS *`` asks for those of any path."""
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
    """What OPTIONS answers for a path of these methods."""
    headers = {"allow": ", ".join(methods)}
    parts = route_path(scope).split("/")
    if "POST" in methods and len(parts) == 3 and parts[1] in ("map", "jobs"):
        headers["accept-post"] = ACCEPT_POST[1].decode()
    return headers
