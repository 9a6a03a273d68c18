"""Bodies that are read whole: a JSON or MessagePack array, split into raw elements.

The elements are checked, and never decoded here: workers decode them into their types.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import msgspec

from jetmap.arrays import header, length, split
from jetmap.dispatch.memory import ELEMENT_BYTES
from jetmap.errors import Malformed
from jetmap.jsonlines import item_too_large
from jetmap.rawjson import (
    deeper_than,
    depth_error,
    located,
    not_utf8,
    syntax,
    too_deep,
    utf8_error,
)

from .admission import Hold
from .arrival import Arrival, Framing
from .asgi import Receive
from .departure import Departure
from .limits import Limits
from .media import USE_JSON
from .problems import Problem, malformed, over_limit
from .rawmsgpack import Fault, faults, find_fault

# A larger body is parsed in pieces of this size, so that no other request waits for it.
PIECE = 512 * 1024
TRIES = 3

_HEADS = {0xDC: 3, 0xDD: 5}  # Bytes of an array's head by its first; else 1.
_BYTE = re.compile(r" \(byte \d+\)$")
_WRONG = (msgspec.MsgspecError, RecursionError, ValueError, TypeError, OverflowError)

_SPACE = b" \t\r\n"
_FIRST_KEY = re.compile(rb'\{\s*"[^"\\]{0,200}"\s*:')
_split_json = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_msgpack = msgspec.msgpack.Decoder().decode


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


async def msgpack_elements(body: bytes, limits: Limits, hold: Hold) -> list[msgspec.Raw]:
    """As ``json_elements``, of a MessagePack array."""
    if len(body) > PIECE:
        hold.give(len(body))  # The elements are parts of it.
    count = length(body)
    if count <= len(body):
        _check_count(count, limits)
        hold.add_items(count)
    try:
        elements = split(body, "msgpack")
    except msgspec.ValidationError as exc:
        raise _not_a_list(exc) from exc
    except msgspec.DecodeError as exc:
        raise syntax(exc, body, 0) from exc
    except RecursionError as exc:
        for fault in faults(body, limits.max_depth + 1):
            if fault is not None:
                raise _located(fault, 0, limits) from exc
            await asyncio.sleep(0)
        raise too_deep(len(body), limits.max_depth) from exc
    _check_sizes(elements, len(body), 0, limits)
    done = 0
    at = _HEADS.get(body[0], 1)
    for first in range(0, len(elements), 4096):
        chosen = elements[first : first + 4096]
        some = b"".join(chosen)
        check_msgpack(chosen, some, first, at, limits)
        at += len(some)
        done += len(some)
        if done > PIECE:
            done = 0
            await asyncio.sleep(0)
    return elements


def check_msgpack(
    elements: Sequence[bytes | msgspec.Raw], some: bytes, first: int, at: int, limits: Limits
) -> None:
    """Checks encoded items. some: all of them. first: the first one's index; at: its position in
    the body. Raises Malformed, with the position."""
    try:
        values = _decode_msgpack(header(len(elements)) + some)
    except _WRONG as exc:
        fault = find_fault(some, limits.max_depth)
        if fault is not None:
            raise _located(fault, at, limits) from exc
        for index, element in enumerate(elements, first):
            try:
                _decode_msgpack(element)
            except _WRONG as error:
                raise _wrong_item(error, index, at, limits) from error
            at += memoryview(element).nbytes
        raise located(str(exc), at, None) from exc
    if len(some) > limits.max_depth and _levels(values) > limits.max_depth + 1:
        fault = find_fault(some, limits.max_depth)
        raise too_deep(at + (fault.position if fault else 0), limits.max_depth)


def too_deep_msgpack(some: bytes, at: int, limits: Limits) -> Malformed:
    """Of items that cannot be skipped, the first of them ``at`` this position in the body."""
    fault = find_fault(some, limits.max_depth)
    return too_deep(at, limits.max_depth) if fault is None else _located(fault, at, limits)


def json_piece(piece: bytes, offset: int, first: int, limits: Limits) -> list[msgspec.Raw]:
    """The checked elements of one array. offset: of the piece in the body; first: its index."""
    position = utf8_error(piece)
    if position is not None:
        raise not_utf8(position + offset)
    try:
        elements = _split_json(piece)
    except msgspec.ValidationError as exc:
        raise _not_a_list(exc) from exc
    except msgspec.DecodeError as exc:
        if not piece.strip(_SPACE):
            raise malformed(f"the body is empty: {USE_JSON}", position=0) from exc
        raise syntax(exc, piece, offset) from exc
    except RecursionError as exc:
        raise too_deep(depth_error(piece, limits.max_depth + 1) + offset, limits.max_depth) from exc
    # an item may nest max_depth levels; the list itself is one more
    if deeper_than(piece, limits.max_depth + 1):
        raise too_deep(depth_error(piece, limits.max_depth + 1) + offset, limits.max_depth)
    _check_sizes(elements, len(piece), first, limits)
    return elements


def _check_sizes(elements: list[msgspec.Raw], size: int, first: int, limits: Limits) -> None:
    _check_count(first + len(elements), limits)
    # every other element takes a byte at least
    if size - len(elements) <= limits.max_item_bytes:
        return
    for index, element in enumerate(elements, first):
        nbytes = memoryview(element).nbytes
        if nbytes > limits.max_item_bytes:
            raise item_too_large(index, nbytes, limits.max_item_bytes)


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.max_list:
        raise over_limit(
            f"the list has more than {limits.max_list} items (max_list): "
            "send it as JSON lines, which may be of any length",
            setting="max_list",
            limit=limits.max_list,
        )


def _body_too_large(size: int, limits: Limits) -> Problem:
    return over_limit(
        f"the body is {size} bytes or more; {limits.max_body_bytes} is the limit "
        "(max_body_bytes): send JSON lines, which may be of any length",
        setting="max_body_bytes",
        limit=limits.max_body_bytes,
    )


def _not_a_list(exc: Exception) -> Problem:
    return malformed(f"the body is no array ({exc}): {USE_JSON}", position=0)


def _located(fault: Fault, at: int, limits: Limits) -> Malformed:
    position = at + fault.position
    if fault.kind == "utf8":
        return not_utf8(position)
    return too_deep(position, limits.max_depth)


def _wrong_item(exc: Exception, index: int, at: int, limits: Limits) -> Malformed:
    """at: the item's position in the body."""
    if isinstance(exc, RecursionError):
        return too_deep(at, limits.max_depth)
    # Where the decoder noticed it may be far behind.
    return located(f"item {index}: {_BYTE.sub('', str(exc))}", at, None)


def _levels(value: list[object]) -> int:
    """How deep lists and maps nest."""
    levels = 0
    level: list[object] = [value]
    while level:
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)  # type: ignore[attr-defined]
            if isinstance(inner, list | dict)
        ]
        levels += 1
    return levels


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
