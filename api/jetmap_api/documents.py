"""JSON documents as answers that no cache keeps."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel
from starlette.responses import Response

from .asgi import Header

NO_STORE: Header = (b"cache-control", b"no-store")


def encoded(document: BaseModel) -> bytes:
    """Encode a document as JSON."""
    return document.model_dump_json(by_alias=True).encode()


def answer(
    document: BaseModel | bytes, status: int = 200, headers: Iterable[Header] = ()
) -> Response:
    """Make an answer from a document, which may be encoded already."""
    body = document if isinstance(document, bytes) else encoded(document)
    made = Response(body, status, media_type="application/json")
    made.raw_headers += [NO_STORE, *headers]
    return made


def done() -> Response:
    """Make the answer to a request that was carried out and has nothing to show."""
    return Response(status_code=204, headers={"cache-control": "no-store"})
