"""Pages for people: the functions, the documentation to try out, and their assets.

Everything that a browser needs comes from here, so that pages work without the internet and under a
strict Content-Security-Policy.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

import jetmap

from .asgi import Scope, header
from .samples import sample
from .security import is_secure

if TYPE_CHECKING:
    from jetmap.dispatch.roster import FunctionStatus

STATIC = Path(__file__).parent / "static"

MEDIA = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}

_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; style-src 'self'"
)
PAGE_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With no-referrer, a form would be sent with the Origin null.
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
# Swagger UI sets the styles of elements from its script.
DOCS_HEADERS = {**PAGE_HEADERS, "content-security-policy": f"{_POLICY} 'unsafe-inline'"}
# Characters of a sample list in a command to paste.
MOST_SHOWN = 100


class Pages:
    """``/``, ``/commands``, ``/docs`` and ``/assets``.

    functions: returns those offered now. guarded: the gateway asks for a token.
    """

    def __init__(self, functions: Callable[[], list[FunctionStatus]], guarded: bool) -> None:
        self._functions = functions
        self._guarded = guarded

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/", self._index, methods=["GET"], include_in_schema=False),
            Route("/commands", self._commands, methods=["GET"], include_in_schema=False),
            Route("/docs", self._docs, methods=["GET"], include_in_schema=False),
            Route("/assets/{name:path}", asset, methods=["GET"], include_in_schema=False),
        ]

    async def _index(self, request: Request) -> Response:
        """Lead people to the dashboard; give programs an overview."""
        scope = request.scope
        headers = {"cache-control": "no-store", "vary": "accept"}
        if prefers_page(header(scope, b"accept")):
            headers["location"] = f"{root_of(scope)}/ui"
            return Response(status_code=303, headers=headers)
        body = msgspec.json.encode(overview(scope, self._functions()))
        return Response(body, headers=headers, media_type="application/json")

    async def _commands(self, request: Request) -> Response:
        """Show a command to paste for each function."""
        scope, statuses = request.scope, self._functions()
        return page(
            "index.html",
            scope,
            headers=PAGE_HEADERS,
            functions=Markup("".join(self._card(scope, status) for status in statuses)),
            empty=Markup("" if statuses else _template("empty.html").template),
            logout=Markup("" if self._guarded else " hidden"),
        )

    def _card(self, scope: Scope, status: FunctionStatus) -> str:
        info = status.info
        where = f"{_plural(status.cores, 'core')} on {_plural(len(status.agents), 'agent')}"
        return _template("function.html").substitute(
            name=escape(info.name),
            summary=escape(info.doc.strip().partition("\n")[0]),
            where=where if status.alive else "no worker has it now",
            state="alive" if status.alive else "away",
            map=escape(curl(scope, status, "map", self._guarded)),
            job=escape(curl(scope, status, "jobs", self._guarded)),
        )

    async def _docs(self, request: Request) -> Response:
        """Show Swagger UI of ``/openapi.json``."""
        return page("docs.html", request.scope, headers=DOCS_HEADERS)


class Markup(str):
    """HTML that goes into a page as it is."""


def page(
    name: str, scope: Scope, status: int = 200, *, headers: dict[str, str], **values: str
) -> Response:
    """Fill in a page; values are escaped unless they are Markup."""
    values = {"root": root_of(scope), "version": jetmap.__version__, **values}
    shown = {
        key: value if isinstance(value, Markup) else escape(value) for key, value in values.items()
    }
    html = _template(name).substitute(shown)
    return Response(html, status, headers=headers, media_type="text/html")


async def asset(request: Request) -> Response:
    """Serve a file of ours or of Swagger UI."""
    name = request.path_params["name"]
    found = _assets().get(name)
    if found is None:
        raise HTTPException(404, f"unknown asset {name!r}")
    # Named by its content: a newer version is asked for at once, an old one costs a 304.
    headers = {
        "etag": found.etag,
        "cache-control": "no-cache",
        "x-content-type-options": "nosniff",
    }
    if found.etag in (request.headers.get("if-none-match") or ""):
        return Response(status_code=304, headers=headers)
    return Response(found.body, headers=headers, media_type=found.media)


@dataclass(frozen=True)
class Asset:
    """A file that pages load."""

    body: bytes
    media: str
    etag: str


@lru_cache(maxsize=1)
def _assets() -> dict[str, Asset]:
    """Load all assets, by their paths below ``/assets``."""
    found = {}
    for path in sorted(STATIC.rglob("*")):
        media = MEDIA.get(path.suffix)
        if media is not None and path.is_file():
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[path.relative_to(STATIC).as_posix()] = Asset(body, media, etag)
    return found


@lru_cache(maxsize=16)
def _template(name: str) -> Template:
    return Template((STATIC / name).read_text(encoding="utf-8"))


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def overview(scope: Scope, statuses: list[FunctionStatus]) -> dict[str, Any]:
    """Make the document of ``GET /``."""
    root = root_of(scope)
    paths = ("functions", "workers", "jobs", "metrics", "healthz", "readyz", "docs", "openapi.json")
    return {
        "name": "jetmap",
        "version": jetmap.__version__,
        "functions": [
            {
                "name": status.info.name,
                "alive": status.alive,
                "map": f"{root}/map/{status.info.name}",
                "jobs": f"{root}/jobs/{status.info.name}",
            }
            for status in statuses
        ],
        "links": {path.partition(".")[0]: f"{root}/{path}" for path in paths},
    }


def curl(scope: Scope, status: FunctionStatus, path: str, guarded: bool) -> str:
    """Make a command to paste, which calls a function with a sample of its items."""
    info = status.info
    items = [sample(info.item, info.item.get("$defs", {}), variant) for variant in range(3)]
    url = f"{origin_of(scope)}{root_of(scope)}/{path}/{info.name}"
    if info.kwargs.get("required"):
        keywords = json.dumps(sample(info.kwargs, info.kwargs.get("$defs", {})))
        url += f"?kwargs={quote(keywords)}"
    body = json.dumps(items, ensure_ascii=False)
    if len(body) > MOST_SHOWN:
        body = json.dumps(items[:1], ensure_ascii=False)
    token = ' -H "Authorization: Bearer $JETMAP_TOKEN"' if guarded else ""
    return f"curl{token} --json {shlex.quote(body)} {shlex.quote(url)}"


def origin_of(scope: Scope) -> str:
    """Return scheme and host as the client sees them, for text that is shown."""
    host = (header(scope, b"x-forwarded-host") or header(scope, b"host") or b"localhost").strip()
    scheme = "https" if is_secure(scope) else "http"
    return f"{scheme}://{host.decode('latin-1')}"


def root_of(scope: Scope) -> str:
    """Return the prefix of all paths."""
    root: str = scope.get("root_path", "")
    return root.rstrip("/")


def prefers_page(accept: bytes | None) -> bool:
    """Return True if the client wants HTML rather than JSON.

    ``*/*`` and no header mean a program.
    """
    kinds = [part.partition(b";")[0].strip().lower() for part in (accept or b"").split(b",")]
    if b"text/html" not in kinds:
        return False
    if b"application/json" not in kinds:
        return True
    return kinds.index(b"text/html") < kinds.index(b"application/json")
