"""The check of the token, or of what was issued for it, as a plain ASGI application."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterable
from urllib.parse import quote, urlsplit

from .asgi import App, Receive, Scope, Send, header, route_path
from .hosts import is_open
from .problems import Problem, refuse
from .signer import LONGEST, Signer

# Paths that a browser needs before it has a login session. Nothing there is secret.
LOGIN_PATHS = frozenset({"/login", "/logout"})
ASSETS = "/assets/"

# Keys of the scope in which layers leave what they found out about a request.
SIGNATURE = "jetmap.signature"
CALLER = "jetmap.caller"


class TokenCheck:
    """Ask for the token: ``Authorization: Bearer <token>``, or something issued for it.

    That is the cookie of a login session, in requests of the gateway's own pages, or the signature
    of one job's events. A browser without any of them is sent to the login page.
    """

    def __init__(
        self, app: App, token: str, signer: Signer, now: Callable[[], float] = time.time
    ) -> None:
        self._app = app
        self._digest = _digest(token.encode())
        self._signer = signer
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            authorization = header(scope, b"authorization")
            if authorization is not None:
                problem = self.check(authorization)
            else:
                problem = self._check_browser(scope)
            if problem is not None and not is_open(scope) and not _leads_to_login(scope):
                if problem.status == 401 and wants_page(scope):
                    await _redirect(send, login_address(scope))
                else:
                    await refuse(send, problem)
                return
            if problem is None:
                scope[CALLER] = self._signer.caller
        await self._app(scope, receive, send)

    def check(self, header: bytes) -> Problem | None:
        """Return the refusal of an Authorization header, or None."""
        scheme, _, token = header.strip().partition(b" ")
        if scheme.lower() != b"bearer":
            return unauthorized("the scheme is Bearer")
        if not hmac.compare_digest(_digest(token.strip()), self._digest):
            return unauthorized("this is not the gateway's token", b'Bearer error="invalid_token"')
        return None

    def _check_browser(self, scope: Scope) -> Problem | None:
        """Return the refusal of a request without an Authorization header, or None."""
        signature = scope.get(SIGNATURE)
        if signature is not None:
            job = job_of_events(scope)
            if job is not None and self._signer.allows_events(job, signature, self._now()):
                return None
            return unauthorized(
                "the signature is not of this address, or its time is over: get another with "
                "POST /jobs/{id}/events/address"
            )
        session = cookie(scope, self._signer.cookie)
        if session is None:
            return unauthorized(
                "send the header Authorization: Bearer <token>, or log in at /login"
            )
        if not self._signer.is_login_session(session, self._now()):
            return unauthorized("the session is over: log in again at /login")
        return None if is_same_origin(scope) else CROSS_SITE


class SiteCheck:
    """Refuse POST requests that a browser sends for a page of another site.

    A page may send one without a body anywhere, unasked. All else that changes something needs a
    method, a media type or a header for which browsers ask first. An application that mounts the
    gateway decides by itself whose pages it serves.

    Args:
        origins: Other sites whose pages may send requests.
    """

    def __init__(self, app: App, origins: Iterable[str]) -> None:
        self._app = app
        self._origins = {origin.encode() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and self._is_foreign(scope):
            await refuse(send, OTHER_SITE)
            return
        await self._app(scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        origin = header(scope, b"origin")
        if origin is None and header(scope, b"sec-fetch-site") is None:
            return False  # It is not a browser.
        if "endpoint" in scope:
            return False  # An application that mounts the gateway has routed it here.
        if header(scope, b"authorization") is not None:
            return False  # Browsers ask before they send this header elsewhere.
        return not ({origin, b"*"} & self._origins or is_same_origin(scope))


OTHER_SITE = Problem(
    403,
    "cross-site-request",
    "The request is from a page of another site",
    "only pages of the gateway, and of the sites in cors_origins, may send it from a browser",
)
CROSS_SITE = Problem(
    403,
    "cross-site-request",
    "The request is from a page of another site",
    "a session counts for the gateway's own pages only: send the header Authorization: Bearer "
    "<token> instead",
)


def is_same_origin(scope: Scope) -> bool:
    """Return True if a page of this gateway asks, or its user by hand.

    Browsers say so in Sec-Fetch-Site, if the gateway is reached by https or at localhost, and send
    an Origin with all that changes something. Without either, only reading is allowed.
    """
    site = header(scope, b"sec-fetch-site")
    reads = scope["method"] in ("GET", "HEAD")
    if site is not None:
        if site in (b"same-origin", b"none"):
            return True
        # A link from a page beside it; cookies of SameSite=Strict are not sent from elsewhere.
        return reads and header(scope, b"sec-fetch-mode") == b"navigate"
    origin = header(scope, b"origin")
    if origin is None:
        return reads
    host = _host_of(origin)
    return host != b"" and host in {
        # Each of a chain of proxies may add its own; the first one is what the browser sees.
        _without_default_port(given.partition(b",")[0])
        for name in (b"host", b"x-forwarded-host")
        if (given := header(scope, name)) is not None
    }


def _host_of(origin: bytes) -> bytes:
    """Return ``host:port`` of an Origin, without a default port; empty if there is none."""
    try:
        parts = urlsplit(origin.decode("ascii"))
    except ValueError:
        return b""
    if parts.scheme not in ("http", "https"):
        return b""
    return _without_default_port(parts.netloc.encode())


def _without_default_port(host: bytes) -> bytes:
    host = host.strip().lower()
    for port in (b":80", b":443"):
        if host.endswith(port):
            return host[: -len(port)]
    return host


def is_secure(scope: Scope) -> bool:
    """Return True if the client speaks https to us, or to the proxy in front of us.

    Anybody may send X-Forwarded-Proto: it only changes the answer to that request, and makes its
    cookie stricter.
    """
    proto = header(scope, b"x-forwarded-proto") or b""
    return scope.get("scheme") == "https" or proto.split(b",")[0].strip().lower() == b"https"


def cookie(scope: Scope, name: str) -> str | None:
    """Return the value of a cookie."""
    wanted = name.encode()
    for key, value in scope["headers"]:
        if key == b"cookie":
            for part in value.split(b";"):
                found, _, text = part.strip().partition(b"=")
                if found == wanted:
                    return None if len(text) > LONGEST else str(text, "latin-1")
    return None


def take_signature(scope: Scope) -> None:
    """Move the query's signature to where only the token's check looks.

    The scope is changed in place, so the server's access log shows the address without it.
    """
    kept = []
    for part in scope["query_string"].split(b"&"):
        name, _, value = part.partition(b"=")
        if name == b"signature":
            scope[SIGNATURE] = value[:LONGEST].decode("latin-1")
        else:
            kept.append(part)
    scope["query_string"] = b"&".join(kept)


def job_of_events(scope: Scope) -> str | None:
    """Return the job whose events a request reads, or None."""
    parts = route_path(scope).split("/")
    reads = scope["method"] == "GET" and len(parts) == 4
    return parts[2] if reads and (parts[1], parts[3]) == ("jobs", "events") else None


def wants_page(scope: Scope) -> bool:
    """Return True if a person opens this address in a browser."""
    accept = header(scope, b"accept") or b""
    mode = header(scope, b"sec-fetch-mode")
    return scope["method"] == "GET" and b"text/html" in accept and mode in (None, b"navigate")


def login_address(scope: Scope) -> str:
    """Return the address of the login page, which leads back to this request's address."""
    place = quote(scope["path"], safe="/")
    if scope["query_string"]:
        place += "?" + scope["query_string"].decode("latin-1")
    root = scope.get("root_path", "").rstrip("/")
    return f"{root}/login?next={quote(place, safe='/')}"


async def _redirect(send: Send, place: str) -> None:
    headers = [(b"location", place.encode("ascii")), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _leads_to_login(scope: Scope) -> bool:
    path = route_path(scope)
    return path in LOGIN_PATHS or path.startswith(ASSETS)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def unauthorized(detail: str, challenge: bytes = b"Bearer") -> Problem:
    """Make a 401 that says what to send."""
    headers = [(b"www-authenticate", challenge)]
    return Problem(401, "unauthorized", "A token is needed", detail, headers=headers)
