"""Bodies that are read whole: a JSON or MessagePack array, split into raw elements.

The elements are checked, and never decoded here: workers decode them into their types.
"""

from __future__ import annotations

import asyncio
import re

import msgspec

from jetmap.arrays import length
from jetmap.dispatch.memory import ELEMENT_BYTES
from jetmap.rawjson import located, not_utf8, utf8_error

from .admission import Hold
from .arrival import Arrival, Framing
from .asgi import Receive
from .departure import Departure
from .elements import check_count, json_piece
from .limits import Limits
from .problems import Problem, over_limit
from .splitters import Elements, MsgpackArray

# A larger body is parsed in pieces of this size, so that no other request waits for it.
PIECE = 512 * 1024
TRIES = 3

# Bytes of MessagePack that are split at a time: small values take the longest.
SLICE = 64 * 1024

_SPACE = b" \t\r\n"
_FIRST_KEY = re.compile(rb'\{\s*"[^"\\]{0,200}"\s*:')
_split_json = msgspec.json.Decoder(list[msgspec.Raw]).decode


async def read_body(
    receive: Receive, departure: Departure, framing: Framing, limits: Limits, hold: Hold
) -> bytes:
    """The whole body, which is held; twice, if it is larger than PIECE, for it is copied when it
    is put together and when it is split. Raises Problem: 413 or 503, before it is sent where its
    length is known; 408 where it stalls; 400 where it is not as long as announced."""
    length = framing.length
    if length is not None:
        if length > limits.max_body_bytes:
            raise _body_too_large(length, limits)
        hold.add(length if length <= PIECE else 2 * length)
    arrival = Arrival(receive, framing, idle=limits.body_idle_timeout, rate=limits.min_body_rate)
    parts: list[bytes] = []
    while arrival.more:
        part = await arrival.next()
        if part is None:
            departure.leave()
            await asyncio.sleep(0)  # where leaving takes effect
            continue
        if arrival.size > limits.max_body_bytes:
            raise _body_too_large(arrival.size, limits)
        if length is None:
            hold.add(len(part))
        parts.append(part)
    if length is None and arrival.size > PIECE:
        hold.add(arrival.size)
    return b"".join(parts)


async def json_elements(body: bytes, limits: Limits, hold: Hold) -> list[msgspec.Raw]:
    """The raw elements of a JSON array that is held already; they are held in its place.

    Raises Problem: 400 with the position, 413, 429 or 503.
    """
    if len(body) <= PIECE:
        elements = json_piece(body, 0, 0, limits)
        hold.add_items(len(elements))
        return elements
    elements = await _json_pieces(body, limits, hold)
    hold.give(len(body))  # The pieces were copies.
    return elements


async def _json_pieces(body: bytes, limits: Limits, hold: Hold) -> list[msgspec.Raw]:
    position = utf8_error(body)  # of all of it: pieces are cut at what might be inside a string
    if position is not None:
        raise not_utf8(position)
    elements: list[msgspec.Raw] = []
    start = len(body) - len(body.lstrip(_SPACE))
    if body[start : start + 1] == b"[":
        start += 1
        signature = _signature(body, start)
        while (end := _cut(body, start, signature)) is not None:
            piece = b"[" + body[start:end] + b"]"
            some = json_piece(piece, start - 1, len(elements), limits)
            hold.add_items(len(some))
            elements += some
            start = end + 1
            await asyncio.sleep(0)
        if elements:
            rest = body[start:]
            if not rest.strip(_SPACE).strip(b"]"):
                raise located("JSON is malformed: trailing comma in array", start, None)
            return elements + _last_piece(b"[" + rest, start - 1, len(elements), limits, hold)
    return _last_piece(body, 0, 0, limits, hold)


def _last_piece(
    piece: bytes, offset: int, first: int, limits: Limits, hold: Hold
) -> list[msgspec.Raw]:
    """As ``json_piece``, of any size: so there must be room for as many items as it may have."""
    most = (piece.count(b",") + 1) * ELEMENT_BYTES if len(piece) > 2 * PIECE else 0
    hold.add(most)
    elements = json_piece(piece, offset, first, limits)
    hold.give(most)
    hold.add_items(len(elements))
    return elements


async def msgpack_elements(body: bytes, limits: Limits, hold: Hold) -> Elements:
    """As ``json_elements``, of a MessagePack array."""
    count = length(body)
    if count <= len(body):
        check_count(count, limits)
    split = MsgpackArray(limits)
    elements: list[bytes | msgspec.Raw] = []
    for at in range(0, max(len(body), 1), SLICE):
        some = split.add(body[at : at + SLICE], at + SLICE < len(body))
        hold.add_items(len(some))
        elements += some
        await asyncio.sleep(0)
    if len(body) > PIECE:
        hold.give(len(body))  # The elements are copies.
    return elements


def _body_too_large(size: int, limits: Limits) -> Problem:
    return over_limit(
        f"the body is {size} bytes or more; {limits.max_body_bytes} is the limit "
        "(max_body_bytes): send JSON lines, which may be of any length",
        setting="max_body_bytes",
        limit=limits.max_body_bytes,
    )


def _signature(body: bytes, start: int) -> bytes:
    """How elements begin, judged by the first: ``{"name":`` , a bracket, a quote, or nothing."""
    while start < len(body) and body[start] in _SPACE:
        start += 1
    key = _FIRST_KEY.match(body, start)
    if key is not None:
        return key[0]
    first = body[start : start + 1]
    return first if first in (b"{", b"[", b'"') else b""


def _cut(body: bytes, start: int, signature: bytes) -> int | None:
    """A comma between two elements, about PIECE bytes from ``start``; None: take the rest.

    A guess that is proved right by what precedes it being whole.
    """
    search = start + PIECE
    for _ in range(TRIES):
        found = body.find(signature or b",", search)
        if found < 0:
            return None
        comma = body.rfind(b",", start, found + 1)
        if comma > start:
            try:
                _split_json(b"[" + body[start:comma] + b"]")
            except (msgspec.MsgspecError, RecursionError):
                pass
            else:
                return comma
        search = found + 1
    return None
