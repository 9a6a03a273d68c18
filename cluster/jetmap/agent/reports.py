"""Reports on their way to dispatchers: gathered, sent, and sent again until confirmed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import msgspec

from jetmap.wire import arrays
from jetmap.wire.messages import ErrorRecord, ForwardedDelivery, Report, encode

from .holdings import Holding, Holdings

DELIVERY_BYTES = 262_144  # Reports share a message up to this size.

Send = Callable[[str, bytes], Awaitable[None]]


_report = msgspec.msgpack.Decoder(Report).decode


class Reports:
    """agent: its id. mail: where dispatchers confirm. send: publishes, or gives up. room: bytes
    of reports that the broker's largest message takes."""

    def __init__(
        self, held: Holdings, agent: str, mail: str, send: Send, room: Callable[[], int]
    ) -> None:
        self._held = held
        self._agent = agent
        self._mail = mail
        self._send = send
        self._room = room
        self._gathered: dict[tuple[str, int], list[tuple[Holding, bytes]]] = {}
        self._bytes = 0

    async def add(self, held: Holding, report: bytes) -> None:
        """A report goes out with others that go to the same dispatcher: see ``flush``."""
        if self._bytes + len(report) > min(DELIVERY_BYTES, self._room()):
            await self.flush()
        self._gathered.setdefault((held.head.inbox, held.pending), []).append((held, report))
        self._bytes += len(report)

    async def flush(self) -> None:
        """Sends the reports that were gathered, one message for each dispatcher."""
        if not self._gathered:
            return
        gathered, self._gathered, self._bytes = self._gathered, {}, 0
        now = time.monotonic()
        for (inbox, pending), reports in gathered.items():
            token = self._held.next_token()
            raw = [msgspec.Raw(report) for _, report in reports]
            delivery = encode(ForwardedDelivery(self._agent, self._mail, token, pending, raw))
            self._held.sent([held for held, _ in reports], inbox, delivery, now)
            await self._send(f"{inbox}.result", delivery)

    async def again(self, now: float) -> None:
        """Every beat: what nobody has confirmed for a beat is sent again."""
        for sent in self._held.overdue(now):
            await self._send(f"{sent.inbox}.result", sent.delivery)


def too_large(report: bytes, limit: int) -> bytes:
    """Instead of a report that the broker cannot carry: it has been replaced, since the worker
    started, by one that takes less."""
    decoded = _report(report)
    message = (
        f"the result takes {len(report):,} bytes; the broker now takes {limit:,}: raise "
        "max_payload on the NATS server, or start the workers again, which learn it"
    )
    indices = range(decoded.start, decoded.start + decoded.count)
    decoded.errors = [ErrorRecord(i, "unencodable", "ValueError", message) for i in indices]
    is_json = decoded.values[:1] == b"["
    decoded.values = arrays.nulls(decoded.count, "json" if is_json else "msgpack")
    return encode(decoded)
