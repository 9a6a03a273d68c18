"""Bodies that are read whole: a JSON or MessagePack array, split into raw elements.

The elements are checked, and never decoded here: workers decode them into their types.
"""

from __future__ import annotations

import asyncio

import msgspec

from jetmap.settings import LimitSettings
from jetmap.wire.arrays import length

from .admission import Hold
from .arrival import Arrival, Framing
from .asgi import Receive
from .disconnect import Departure
from .elements import check_count, json_piece
from .problems import Problem, over_limit
from .splitters import Elements, JsonArray, MsgpackArray

# A larger body is parsed in pieces of this size, so that no other request waits for it.
PIECE = 512 * 1024

# Bytes of MessagePack that are split at a time: small values take the longest.
SLICE = 64 * 1024


async def read_body(
    receive: Receive, departure: Departure, framing: Framing, limits: LimitSettings, hold: Hold
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


async def json_elements(body: bytes, limits: LimitSettings, hold: Hold) -> Elements:
    """The raw elements of a JSON array that is held already; they are held in its place.

    Raises Problem: 400 with the position, 413, 429 or 503.
    """
    if len(body) <= PIECE:
        whole = json_piece(body, 0, 0, limits)
        hold.add_items(len(whole))
        return whole
    split = JsonArray(limits)
    elements: list[bytes | msgspec.Raw] = []
    for at in range(0, len(body), PIECE):
        some = split.add(body[at : at + PIECE], at + PIECE < len(body))
        check_count(len(elements) + len(some), limits)
        hold.add_items(len(some))
        elements += some
        await asyncio.sleep(0)
    hold.give(len(body))  # The elements are copies.
    return elements


async def msgpack_elements(body: bytes, limits: LimitSettings, hold: Hold) -> Elements:
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


def _body_too_large(size: int, limits: LimitSettings) -> Problem:
    return over_limit(
        f"the body is {size} bytes or more; {limits.max_body_bytes} is the limit "
        "(max_body_bytes): send JSON lines, which may be of any length",
        setting="max_body_bytes",
        limit=limits.max_body_bytes,
    )
