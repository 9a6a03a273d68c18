"""Who may ask: the Host check and the bearer token, as plain ASGI applications.

A web page cannot drive a developer's machine: bodies need their JSON media type, which a page
may not send elsewhere without asking (CORS), and a name that an attacker points at 127.0.0.1
(DNS rebinding) is no allowed ``Host``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from jetmap.settings import is_loopback

from .asgi import App, Receive, Scope, Send
from .problems import Problem, refuse

# Probes come with the address of a container as their host, and without a token.
OPEN_PATHS = frozenset({"/healthz", "/readyz"})


class HostCheck:
    """Lets loopback and the configured hosts pass. ``*`` allows all, ``*.name`` subdomains."""

    def __init__(self, app: App, allowed: Iterable[str]) -> None:
        self._app = app
        self._allowed = {host.lower().rstrip(".") for host in allowed}
        self._known: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = header(scope, b"host") or b""
            if host not in self._known and route_path(scope) not in OPEN_PATHS:
                if not self.allows(host):
                    await refuse(send, _unknown_host(host))
                    return
                if len(self._known) < 256:
                    self._known.add(host)
        await self._app(scope, receive, send)

    def allows(self, header: bytes) -> bool:
        """Whether a Host header names one of the hosts, whatever its port."""
        name = _without_port(header.decode("latin-1").strip().lower()).rstrip(".")
        if "*" in self._allowed or name in self._allowed:
            return True
        if is_loopback(name) or name.endswith(".localhost"):
            return True
        parts = name.split(".")
        return any("*." + ".".join(parts[i:]) in self._allowed for i in range(1, len(parts)))


class TokenCheck:
    """Asks for ``Authorization: Bearer <token>``."""

    def __init__(self, app: App, token: str) -> None:
        self._app = app
        self._digest = _digest(token.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and route_path(scope) not in OPEN_PATHS:
            problem = self.check(header(scope, b"authorization"))
            if problem is not None:
                await refuse(send, problem)
                return
        await self._app(scope, receive, send)

    def check(self, header: bytes | None) -> Problem | None:
        """The refusal of an Authorization header, or None."""
        if header is None:
            return _unauthorized("send the header Authorization: Bearer <token>", b"Bearer")
        scheme, _, token = header.strip().partition(b" ")
        if scheme.lower() != b"bearer":
            return _unauthorized("the scheme is Bearer", b"Bearer")
        if not hmac.compare_digest(_digest(token.strip()), self._digest):
            return _unauthorized("this is not the gateway's token", b'Bearer error="invalid_token"')
        return None


def header(scope: Scope, name: bytes) -> bytes | None:
    """The value of the first header of this name."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


def route_path(scope: Scope) -> str:
    """The path below the point where the gateway is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("/", ""):
        return path[len(root) :]
    return path


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


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


def _unauthorized(detail: str, challenge: bytes) -> Problem:
    headers = [(b"www-authenticate", challenge)]
    return Problem(401, "unauthorized", "A token is needed", detail, headers=headers)
