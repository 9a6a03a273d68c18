"""The least that a gateway does with a list: read the body, split it, join its elements, send them.

A plain ASGI application without a framework, and without a worker: nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from jetmap.wire.arrays import join
from jetmap.wire.messages import Format

from .wire import MSGPACK

_split: dict[Format, Callable[[bytes], Sequence[msgspec.Raw]]] = {
    "json": msgspec.json.Decoder(list[msgspec.Raw]).decode,
    "msgpack": msgspec.msgpack.Decoder(list[msgspec.Raw]).decode,
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = await _body(receive) if scope["method"] == "POST" else b"[]"
    media = dict(scope["headers"]).get(b"content-type", b"application/json")
    format: Format = "msgpack" if media == MSGPACK.encode() else "json"
    elements = _split[format](body)
    del body
    answer = join(elements, format)
    del elements
    headers = [(b"content-type", media), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def _body(receive: Any) -> bytes:
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        parts.append(message["body"])
        more = message["more_body"]
    return b"".join(parts)
