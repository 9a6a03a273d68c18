"""Gather reports, send them to their dispatchers, and send them again until confirmed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import msgspec

from jetmap.wire import arrays
from jetmap.wire.messages import ErrorRecord, Final, ForwardedDelivery, Report, Rest, encode

from .holdings import HeldChunk, Holdings

ENVELOPE_BYTES = 4096  # Bytes of a message around its reports.
DELIVERY_BYTES = 262_144  # Bytes of reports that share a message, at most.

Publish = Callable[[str, bytes], Awaitable[None]]

_report = msgspec.msgpack.Decoder(Report).decode


class Reports:
    """The reports of one agent on their way.

    Args:
        agent: Id of the agent.
        mail: Subject on which dispatchers confirm.
        send: Publishes, or gives up.
        room: Bytes of reports that the broker's largest message takes.
    """

    def __init__(
        self, held: Holdings, agent: str, mail: str, send: Publish, room: Callable[[], int]
    ) -> None:
        self._held = held
        self._agent = agent
        self._mail = mail
        self._send = send
        self._room = room
        self._gathered: dict[tuple[str, int], list[tuple[HeldChunk, bytes]]] = {}
        self._bytes = 0

    async def add(self, held: HeldChunk, report: bytes) -> None:
        """Queue a report, to go out by ``flush`` with others for the same dispatcher."""
        held.unsent += 1
        if self._bytes and self._bytes + len(report) > min(DELIVERY_BYTES, self._room()):
            await self.flush()
        self._gathered.setdefault((held.head.inbox, held.pending), []).append((held, report))
        self._bytes += len(report)

    async def add_empty(
        self, held: HeldChunk, start: int, *, final: Final | None = None, rest: Rest | None = None
    ) -> None:
        """Queue a report without outcomes. start: index of the first item without one."""
        head = held.head
        values = b"[]" if head.format == "json" else b"\x90"
        report = Report(head.map, head.number, head.attempt, start, 0, values, [], 0.0, final)
        report.rest = rest
        await self.add(held, encode(report))

    async def flush(self) -> None:
        """Send the reports that were gathered, one message for each dispatcher."""
        if not self._gathered:
            return
        gathered, self._gathered, self._bytes = self._gathered, {}, 0
        now = time.monotonic()
        for (inbox, pending), reports in gathered.items():
            token = self._held.next_token()
            raw = [msgspec.Raw(report) for _, report in reports]
            delivery = encode(ForwardedDelivery(self._agent, self._mail, token, pending, raw))
            self._held.on_sent([held for held, _ in reports], inbox, delivery, now)
            await self._send(f"{inbox}.result", delivery)

    async def send_overdue(self, now: float) -> None:
        """Send again, every beat, the deliveries that have not been confirmed for a beat."""
        for sent in self._held.take_overdue(now):
            await self._send(f"{sent.inbox}.result", sent.delivery)


def without_values(report: bytes) -> tuple[bytes, bytes]:
    """Split a report that the broker cannot carry into the report and its values.

    The broker was replaced, after the worker started, by one with smaller messages.
    """
    decoded = _report(report)
    values, decoded.values = decoded.values, b""
    decoded.size = len(values)
    return encode(decoded), values


def too_large(report: bytes, limit: int) -> bytes:
    """Replace a report that the broker cannot carry by one that fails its items.

    Its dispatcher takes no values in parts, or its errors alone are too large.
    """
    decoded = _report(report)
    message = (
        f"the result takes {len(report):,} bytes; the broker now takes {limit:,}: raise "
        "max_payload on the NATS server, or upgrade jetmap where the map was called"
    )
    indices = range(decoded.start, decoded.start + decoded.count)
    decoded.errors = [ErrorRecord(i, "unencodable", "ValueError", message) for i in indices]
    is_json = decoded.values[:1] == b"["
    decoded.values = arrays.nulls(decoded.count, "json" if is_json else "msgpack")
    return encode(decoded)
