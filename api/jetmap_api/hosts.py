"""The Host check, as a plain ASGI application.

A web page cannot drive a developer's machine: bodies need their JSON media type, which a page may
not send elsewhere without asking (CORS), and a name that an attacker points at 127.0.0.1 (DNS
rebinding) is not an allowed ``Host``. ``security.SiteCheck`` refuses what needs no body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable

from jetmap.settings import is_loopback

from .asgi import App, Receive, Scope, Send, header, route_path
from .problems import Problem, refuse

# Probes come with the address of a container as their host, and without a token.
OPEN_PATHS = frozenset({"/healthz", "/readyz"})


class HostCheck:
    """Let loopback and the configured hosts pass. ``*`` allows all, ``*.name`` subdomains."""

    def __init__(self, app: App, allowed: Iterable[str]) -> None:
        self._app = app
        self._allowed = {host.lower().rstrip(".") for host in allowed}
        self._known: set[bytes] = set()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            host = header(scope, b"host") or b""
            if host not in self._known and not is_open(scope):
                if not self.allows(host):
                    return refuse(send, _unknown_host(host))
                if len(self._known) < 256:
                    self._known.add(host)
        return self._app(scope, receive, send)

    def allows(self, header: bytes) -> bool:
        """Return True if a Host header names one of the hosts, at any port."""
        name = _without_port(header.decode("latin-1").strip().lower()).rstrip(".")
        if "*" in self._allowed or name in self._allowed:
            return True
        if is_loopback(name) or name.endswith(".localhost"):
            return True
        parts = name.split(".")
        return any("*." + ".".join(parts[i:]) in self._allowed for i in range(1, len(parts)))


def is_open(scope: Scope) -> bool:
    """Return True if no token is needed: for probes and OPTIONS, which only lists methods."""
    return scope["method"] == "OPTIONS" or route_path(scope) in OPEN_PATHS


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _unknown_host(host: bytes) -> Problem:
    name = host.decode("latin-1") or "(none)"
    return Problem(
        403,
        "host-not-allowed",
        "This host is not allowed",
        f"the request is for the host {name}: add its name to allowed_hosts "
        "(JETMAP_ALLOWED_HOSTS), or ask for localhost",
    )
