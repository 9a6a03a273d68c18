"""The login page: a browser that sends the token gets a login session, which is a cookie."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .asgi import Receive, Scope, header
from .pages import PAGE_HEADERS, page, root_of
from .problems import Problem
from .security import CALLER, CROSS_SITE, is_same_origin, is_secure
from .signer import LoginLimiter, Signer

# Bytes of a form.
MOST_FORM = 8192
# Pieces in which a form may arrive.
MOST_PARTS = 64
# A path of this host, as a browser reads it: one slash, no backslash, printable ASCII.
_PLACE = re.compile(r"/(?![/\\])[!-\[\]-~]*")

FORM = b"application/x-www-form-urlencoded"
WRONG = "This is not the gateway's token."
WAIT = "Too many wrong tokens. Try again in {} s."


class Login:
    """``/login`` and ``/logout``.

    token: None if the gateway asks for none; a login is then not needed. ttl: seconds that a
    session lasts.
    """

    def __init__(
        self,
        token: str | None,
        signer: Signer | None,
        ttl: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._token = token
        self._signer = signer
        self._ttl = ttl
        self._now = now
        self._attempts = LoginLimiter()

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/login", self._show, methods=["GET"], include_in_schema=False),
            Route("/login", self._log_in, methods=["POST"], include_in_schema=False),
            Route("/logout", self._log_out, methods=["POST"], include_in_schema=False),
        ]

    async def _show(self, request: Request) -> Response:
        """Show the form, or go on to ``next`` if a login is not needed."""
        scope = request.scope
        place = place_of(scope, fields_of(scope["query_string"]).get("next"))
        if self._signer is None or CALLER in scope:
            return _go(place)
        return _form(scope, place)

    async def _log_in(self, request: Request) -> Response:
        scope = request.scope
        media = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
        if media != FORM:
            detail = f"send a form as {FORM.decode()}"
            raise Problem(415, "unsupported-media-type", "Send a form", detail)
        if not is_same_origin(scope):
            raise CROSS_SITE
        fields = fields_of(await read_form(request.receive))
        place = place_of(scope, fields.get("next"))
        if self._signer is None or self._token is None:
            return _go(place)
        address, now = address_of(scope), self._now()
        wait = math.ceil(self._attempts.wait(address, now))
        if wait:
            answer = _form(scope, place, WAIT.format(wait), 429)
            answer.headers["retry-after"] = str(wait)
            return answer
        given = fields.get("token", "").strip()
        if not hmac.compare_digest(_digest(given), _digest(self._token)):
            self._attempts.failed(address, now)
            answer = _form(scope, place, WRONG, 401)
            answer.headers["www-authenticate"] = "Bearer"
            return answer
        answer = _go(place)
        session = self._signer.login_session(int(now + self._ttl))
        answer.headers["set-cookie"] = self._cookie(scope, session, int(self._ttl))
        return answer

    async def _log_out(self, request: Request) -> Response:
        """Forget the login session in this browser; a copy of it would count until its end."""
        if not is_same_origin(request.scope):
            raise CROSS_SITE
        answer = _go(place_of(request.scope, None))
        if self._signer is not None:
            answer.headers["set-cookie"] = self._cookie(request.scope, "", 0)
        return answer

    def _cookie(self, scope: Scope, value: str, seconds: int) -> str:
        assert self._signer is not None
        text = f"{self._signer.cookie}={value}; Path={root_of(scope) or '/'}; Max-Age={seconds}"
        secure = "; Secure" if is_secure(scope) else ""
        return f"{text}; HttpOnly; SameSite=Strict{secure}"


def place_of(scope: Scope, given: str | None) -> str:
    """Choose where to go after the login: a path of this host, else the first page."""
    if given is not None and len(given) <= MOST_FORM and _PLACE.fullmatch(given):
        return given
    return root_of(scope) + "/"


def fields_of(form: bytes) -> dict[str, str]:
    """Parse a form or a query; return nothing if it is malformed."""
    try:
        return dict(parse_qsl(form.decode("ascii"), errors="strict", max_num_fields=16))
    except ValueError:
        return {}


async def read_form(receive: Receive) -> bytes:
    """Read a small body. Raises Problem: 413."""
    body: bytes = b""
    for _ in range(MOST_PARTS):
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MOST_FORM:
            break
        if message["type"] != "http.request" or not message.get("more_body", False):
            return body
    raise Problem(413, "limit-exceeded", "Over a limit", f"a form has at most {MOST_FORM} bytes")


def address_of(scope: Scope) -> str:
    """Return the address whose attempts are counted: IPv4, or the network of IPv6."""
    client = scope.get("client")
    if not client:
        return ""
    try:
        address = ip_address(client[0])
    except ValueError:
        return str(client[0])[:64]
    if isinstance(address, IPv6Address):
        return str(int(address) >> 64)
    return str(address)


def _go(place: str) -> Response:
    return Response(status_code=303, headers={"location": place, "cache-control": "no-store"})


def _form(scope: Scope, place: str, message: str = "", status: int = 200) -> Response:
    return page("login.html", scope, status, headers=PAGE_HEADERS, next=place, message=message)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
