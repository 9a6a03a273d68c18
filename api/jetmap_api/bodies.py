"""Read bodies, and split those that are read whole into raw elements.

Elements are checked here, but only workers decode them, into their types.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from io import BytesIO

import msgspec

from jetmap.settings import LimitSettings
from jetmap.wire.arrays import length
from jetmap.wire.messages import Format
from jetmap.wire.split import Elements, JsonArray, MsgpackArray, Splitter
from jetmap.wire.split.large import NotLargeError, large_elements
from jetmap.wire.split.whole_json import split_array

from .admission import Reservation
from .asgi import Header, Receive
from .disconnect import DisconnectWatcher
from .media import USE_JSON
from .problems import Problem, over_limit

# Seconds of waiting for a body, or for an item of it, before its average rate counts.
ALLOWANCE = 60.0
# Bytes of a body that are parsed at a time, so that other requests need not wait for it.
PIECE = 512 * 1024
# Bytes of MessagePack that are split at a time: small values take the longest.
SLICE = 64 * 1024
# Bytes that an element takes beside its own if it is a view of its body (a memoryview, in CPython).
VIEW_BYTES = 184


class Framing(msgspec.Struct, frozen=True):
    """The way a request delimits its body.

    length: its Content-Length. chunked: it has a Transfer-Encoding, and so a body. upgrade: it
    offers another protocol. arrived: the server has all of it already.
    """

    length: int | None = None
    chunked: bool = False
    upgrade: bool = False
    arrived: bool = False

    @classmethod
    def of(cls, headers: Iterable[Header]) -> Framing:
        length: int | None = None
        chunked = upgrade = False
        for name, value in headers:
            if name == b"content-length":
                length = read_length(value)
            elif name == b"transfer-encoding":
                chunked = True
            elif name == b"upgrade":
                upgrade = True
        return cls(length, chunked, upgrade)

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.length)

    def check(self, size: int) -> None:
        """Check the size of a body that the server calls complete. Raises Problem: 400."""
        if self.length is not None and not self.chunked:
            if size == self.length:
                return
            announced = f"the request announces {self.length} bytes and the server read {size}"
        elif self.chunked and self.upgrade and not size:
            announced = "the server read nothing of a chunked body"
        else:
            return
        advice = "send it again without the header Upgrade" if self.upgrade else "send it again"
        raise Problem(
            400, "body-incomplete", "The body did not arrive whole", f"{announced}: {advice}"
        )


def read_length(value: bytes) -> int | None:
    """Read a Content-Length. Twenty digits exceed any limit, and int() refuses thousands."""
    return int(value.lstrip(b"0")[:20] or b"0") if value.isdigit() else None


class BodyPace:
    """Decide how long to wait for the next piece of a body.

    Only waiting counts: a client that is itself kept waiting is not slow.

    idle: seconds without a byte. rate: the least average in bytes a second after the first
    ALLOWANCE seconds, since the start or the last ``restart``; 0 allows any.
    """

    __slots__ = ("_bytes", "_dry", "_idle", "_rate", "_waited")

    def __init__(self, idle: float, rate: float) -> None:
        self._idle = idle
        self._rate = rate
        self._dry = 0.0  # seconds since the last byte
        self._waited = 0.0
        self._bytes = 0

    def came(self, size: int, waited: float) -> None:
        """Count a piece. size: its bytes. waited: seconds until it came."""
        self._waited += waited
        self._bytes += size
        self._dry = 0.0 if size else self._dry + waited

    def restart(self) -> None:
        """Begin the average anew, because an item is complete."""
        self._waited = 0.0
        self._bytes = 0

    @property
    def patience(self) -> float:
        """The seconds to wait for the next piece."""
        return min(self._until_idle, self._until_slow)

    def refusal(self, setting: str) -> Problem:
        """Make the 408 for when the patience has ended. setting: the name of ``idle``."""
        if self._until_idle <= self._until_slow:
            detail = f"nothing of it arrived for {self._idle:g} seconds"
        else:
            detail = f"it arrives at less than {self._rate:g} bytes a second"
            setting = "min_body_rate"
        detail += f" (setting {setting}): send the request again"
        return Problem(408, "upload-idle", "The body has stalled", detail, setting=setting)

    @property
    def _until_idle(self) -> float:
        return self._idle - self._dry

    @property
    def _until_slow(self) -> float:
        if not self._rate:
            return math.inf
        return ALLOWANCE + self._bytes / self._rate - self._waited


class Arrival:
    """Read one body, in time. more: whether it goes on. size: bytes so far.

    by_line: its items are lines, and each has the time that otherwise a whole body has.

    An application cannot rely on its server here. uvicorn's httptools ends a body before its first
    byte if the request offers an upgrade (``curl --http2``, Java's HttpClient), and ASGI servers do
    not give up bodies that stall.
    """

    def __init__(
        self,
        receive: Receive,
        framing: Framing,
        *,
        idle: float,
        rate: float,
        setting: str = "body_idle_timeout",
        by_line: bool = False,
    ) -> None:
        self.more = True
        self.size = 0
        self._receive = receive
        self._framing = framing
        self._setting = setting
        self._by_line = by_line
        self._time = asyncio.get_running_loop().time
        self._pace = BodyPace(idle, rate)

    async def next(self) -> bytes | None:
        """Return the next piece; None if the client has left.

        Raises Problem: 408, or 400 at the end of a body that is not as long as announced.
        """
        began = self._time()
        try:
            async with asyncio.timeout_at(began + self._pace.patience):
                message = await self._receive()
        except TimeoutError:
            raise self._pace.refusal(self._setting) from None
        if message["type"] == "http.disconnect":
            return None
        data: bytes = message.get("body", b"")
        self.size += len(data)
        self.more = message.get("more_body", False)
        if self.more:
            self._pace.came(len(data), self._time() - began)
            if self._by_line and b"\n" in data:
                self._pace.restart()
        else:
            self._framing.check(self.size)
        return data


async def read_body(
    receive: Receive,
    watcher: DisconnectWatcher,
    framing: Framing,
    limits: LimitSettings,
    reservation: Reservation,
) -> bytes:
    """Read a whole body, and reserve memory for it.

    A body larger than PIECE needs twice its size, because it is copied when it is split. Raises
    Problem: 413 or 503, before it is sent if its length is known; 408 if it stalls; 400 if it is
    not as long as announced.
    """
    length = None if framing.chunked else framing.length  # Chunks overrule a length.
    if length is not None:
        if length > limits.max_body_bytes:
            raise _body_too_large(length, limits)
        reservation.add(length if length <= PIECE else 2 * length)
    if framing.arrived:  # As small ones are: there is nothing to wait for.
        message = await receive()
        if message["type"] == "http.request" and not message["more_body"]:
            whole: bytes = message["body"]
            framing.check(len(whole))
            if len(whole) > limits.max_body_bytes:
                raise _body_too_large(len(whole), limits)
            if length is None:
                reservation.add(len(whole) if len(whole) <= PIECE else 2 * len(whole))
            return whole
    arrival = Arrival(receive, framing, idle=limits.body_idle_timeout, rate=limits.min_body_rate)
    body = BytesIO()  # It grows where it is; parts to be joined would take fresh memory twice.
    while arrival.more:
        part = await arrival.next()
        if part is None:
            watcher.leave()
            await asyncio.sleep(0)  # Leaving takes effect here.
            continue
        if arrival.size > limits.max_body_bytes:
            raise _body_too_large(arrival.size, limits)
        if length is None:
            reservation.add(len(part))
        body.write(part)
    if length is None and arrival.size > PIECE:
        reservation.add(arrival.size)
    return body.getvalue()


async def json_elements(body: bytes, limits: LimitSettings, reservation: Reservation) -> Elements:
    """Split a JSON array whose bytes are reserved already; its elements take their place.

    Raises Malformed (400), with the position; TooLarge, Problem: 413, 429 or 503.
    """
    if len(body) <= PIECE:
        whole = split_array(body, limits, advice=USE_JSON)
        _count(len(whole), 0, limits, reservation)
        return whole
    elements = await _large(body, "json", limits, reservation)
    if elements is None:
        elements = await _split(JsonArray(limits, USE_JSON), body, PIECE, limits, reservation)
        reservation.leave_to_values(len(body))  # The elements are copies.
    return elements


async def msgpack_elements(
    body: bytes, limits: LimitSettings, reservation: Reservation
) -> Elements:
    """Split a MessagePack array, as ``json_elements`` does a JSON array."""
    count = length(body)
    if count <= len(body):
        _check_count(count, limits)
    elements = None
    if len(body) > PIECE:
        elements = await _large(body, "msgpack", limits, reservation)
    if elements is None:
        elements = await _split(MsgpackArray(limits, USE_JSON), body, SLICE, limits, reservation)
        if len(body) > PIECE:
            reservation.leave_to_values(len(body))  # The elements are copies.
    return elements


async def _large(
    body: bytes, format: Format, limits: LimitSettings, reservation: Reservation
) -> Elements | None:
    """Split a body of large elements without copying them; None: let a splitter do it."""
    elements: list[msgspec.Raw] = []
    turn = PIECE
    at = 0
    try:
        for element in large_elements(body, format, limits.max_item_bytes):
            elements.append(msgspec.Raw(element))
            at += len(element)
            if at >= turn:
                turn = at + PIECE
                await asyncio.sleep(0)
    except NotLargeError:
        return None
    _count(len(elements), 0, limits, reservation)
    reservation.leave_to_values(len(body) - VIEW_BYTES * len(elements))  # The body stays.
    return elements


async def _split(
    splitter: Splitter, body: bytes, step: int, limits: LimitSettings, reservation: Reservation
) -> list[bytes | msgspec.Raw]:
    """Split a body in steps of ``step`` bytes, between which other requests run."""
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
