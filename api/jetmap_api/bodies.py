"""Bodies that are read whole: a JSON or MessagePack array, split into raw elements.

The elements are checked, and never decoded here: workers decode them into their types.
"""

from __future__ import annotations

import asyncio

import msgspec

from jetmap.settings import LimitSettings
from jetmap.wire.arrays import length
from jetmap.wire.split import Elements, JsonArray, MsgpackArray, Splitter
from jetmap.wire.split.json_array import split_array

from .admission import Reservation
from .arrival import Arrival, Framing
from .asgi import Receive
from .disconnect import DisconnectWatcher
from .media import USE_JSON
from .problems import Problem, over_limit

# A larger body is parsed in pieces of this size, so that no other request waits for it.
PIECE = 512 * 1024

# Bytes of MessagePack that are split at a time: small values take the longest.
SLICE = 64 * 1024


async def read_body(
    receive: Receive,
    watcher: DisconnectWatcher,
    framing: Framing,
    limits: LimitSettings,
    reservation: Reservation,
) -> bytes:
    """The whole body, which is held; twice, if it is larger than PIECE, for it is copied when it
    is put together and when it is split. Raises Problem: 413 or 503, before it is sent where its
    length is known; 408 where it stalls; 400 where it is not as long as announced."""
    length = framing.length
    if length is not None:
        if length > limits.max_body_bytes:
            raise _body_too_large(length, limits)
        reservation.add(length if length <= PIECE else 2 * length)
    arrival = Arrival(receive, framing, idle=limits.body_idle_timeout, rate=limits.min_body_rate)
    parts: list[bytes] = []
    while arrival.more:
        part = await arrival.next()
        if part is None:
            watcher.leave()
            await asyncio.sleep(0)  # where leaving takes effect
            continue
        if arrival.size > limits.max_body_bytes:
            raise _body_too_large(arrival.size, limits)
        if length is None:
            reservation.add(len(part))
        parts.append(part)
    if length is None and arrival.size > PIECE:
        reservation.add(arrival.size)
    return b"".join(parts)


async def json_elements(body: bytes, limits: LimitSettings, reservation: Reservation) -> Elements:
    """Split a JSON array that is held already; the elements are held in its place.

    Raises Malformed (400), with the position; TooLarge, Problem: 413, 429 or 503.
    """
    if len(body) <= PIECE:
        whole = split_array(body, limits, advice=USE_JSON)
        _count(len(whole), 0, limits, reservation)
        return whole
    elements = await _split(JsonArray(limits, USE_JSON), body, PIECE, limits, reservation)
    reservation.give(len(body))  # The elements are copies.
    return elements


async def msgpack_elements(
    body: bytes, limits: LimitSettings, reservation: Reservation
) -> Elements:
    """Split a MessagePack array, as ``json_elements`` does a JSON array."""
    count = length(body)
    if count <= len(body):
        _check_count(count, limits)
    elements = await _split(MsgpackArray(limits, USE_JSON), body, SLICE, limits, reservation)
    if len(body) > PIECE:
        reservation.give(len(body))  # The elements are copies.
    return elements


async def _split(
    splitter: Splitter, body: bytes, step: int, limits: LimitSettings, reservation: Reservation
) -> list[bytes | msgspec.Raw]:
    """Split a body in steps of so many bytes, between which others run."""
    elements: list[bytes | msgspec.Raw] = []
    for at in range(0, max(len(body), 1), step):
        splitter.feed(body[at : at + step])
        if at + step >= len(body):
            splitter.close()
        while some := splitter.next_elements():
            _count(len(some), len(elements), limits, reservation)
            elements += some
        await asyncio.sleep(0)
    return elements


def _count(count: int, before: int, limits: LimitSettings, reservation: Reservation) -> None:
    """Count elements. Raises Problem: 413, 429 or 503."""
    _check_count(before + count, limits)
    reservation.add_items(count)


def _check_count(count: int, limits: LimitSettings) -> None:
    if count > limits.max_list:
        raise over_limit(
            f"the list has more than {limits.max_list} items (max_list): "
            "send it as JSON lines, which may be of any length",
            setting="max_list",
            limit=limits.max_list,
        )


def _body_too_large(size: int, limits: LimitSettings) -> Problem:
    return over_limit(
        f"the body is {size} bytes or more; {limits.max_body_bytes} is the limit "
        "(max_body_bytes): send JSON lines, which may be of any length",
        setting="max_body_bytes",
        limit=limits.max_body_bytes,
    )
