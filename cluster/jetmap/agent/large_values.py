"""Send large values before their reports; while many are on their way, cores pull no chunks."""

from __future__ import annotations

import logging

import msgspec

from jetmap.background import Background
from jetmap.errors import JetmapError
from jetmap.nats.broker import Broker
from jetmap.wire.messages import Chunk, Report, ReportHead, encode
from jetmap.wire.protocol import PARTS_PROTOCOL

from .holdings import HeldChunk
from .intake import Intake
from .parts import Transfers
from .reports import ENVELOPE_BYTES, Reports, too_large
from .stored_reports import StoredReports
from .withdrawals import Withdrawals

logger = logging.getLogger(__name__)

# Bytes of large values on their way to dispatchers, above which cores wait for their next chunk.
OPEN_BYTES = 64 << 20

_chunk = msgspec.msgpack.Decoder(Chunk).decode
_report = msgspec.msgpack.Decoder(Report).decode


class LargeValues:
    """The large values of one agent that are on their way to dispatchers, or into the store.

    Attributes:
        open_bytes: Bytes of them.
    """

    def __init__(
        self,
        connection: Broker,
        intake: Intake,
        reports: Reports,
        stored: StoredReports,
        parts: Transfers,
        withdrawals: Withdrawals,
        background: Background,
    ) -> None:
        self._connection = connection
        self._intake = intake
        self._reports = reports
        self._stored = stored
        self._parts = parts
        self._withdrawals = withdrawals
        self._background = background
        self._held_back = 0  # Idle cores that wait for values to be on their way.
        self.open_bytes = 0

    def hold_back(self) -> None:
        """Let an idle core wait until fewer bytes are on their way."""
        self._held_back += 1

    def on_core_lost(self) -> None:
        """Count one idle core less: one that is held back, if there is any."""
        if self._held_back:
            self._held_back -= 1
        else:
            self._intake.on_core_lost()

    def add(self, held: HeldChunk, head: ReportHead, report: bytes, values: bytes) -> None:
        """Send values, and then their report. head: that of the report."""
        held.unsent += 1
        self.open_bytes += len(values)
        self._background.spawn(self._send(held, head, report, values), "send values")

    async def _send(self, held: HeldChunk, head: ReportHead, report: bytes, values: bytes) -> None:
        try:
            if held.sink is self._stored:
                await self._stored.add_large(held, report, values)
            elif _chunk(held.data).protocol < PARTS_PROTOCOL:
                whole = _report(report)
                whole.values, whole.size = values, 0
                report = encode(whole)
                if len(report) > (limit := self._connection.max_payload - ENVELOPE_BYTES):
                    report = too_large(report, limit)
                await self._reports.add(held, report)
            elif await self._parts.push(held, head, values):
                await self._reports.add(held, report)
            else:
                await self._withdrawals.withdraw(held)
            held.unsent -= 1
            await self._reports.flush()
        finally:
            self.open_bytes -= len(values)
            await self._pull_held_back()

    async def _pull_held_back(self) -> None:
        """Pull for the cores that waited until these values were on their way."""
        while self._held_back and self.open_bytes <= OPEN_BYTES:
            self._held_back -= 1
            try:
                await self._intake.on_core_freed()
            except JetmapError as error:
                logger.debug("not pulled: %s", error)
