"""The way back from a worker: reports, and values that are too large to be in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jetmap.functions.function import Function
from jetmap.wire import frames
from jetmap.wire.messages import SHARE_BYTES, SHARED_FACTOR, Chunk, Report
from jetmap.wire.subjects import job_of

from .compute import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from jetmap.wire.worker_start import Setup

    from .forks import NoPipe
    from .neighbours import NeighbourSegments

# Sends an encoded report to its dispatcher, past the agent, and returns whether it did; None: there
# is only the way through the agent. The worker of an executor has it from its first call on.
shortcut: Callable[[bytes], bool] | None = None


class Reporter:
    """Send reports to the agent; large values go before theirs, in a frame or in shared memory.

    Attributes:
        pipe: The worker's end.
        neighbours: The memory shared with dispatchers; None until there is one.
        limits: Limits of a chunk whose dispatcher shares no memory.
    """

    def __init__(self, pipe: frames.BlockingPipe) -> None:
        self.pipe: frames.BlockingPipe | NoPipe = pipe
        self.neighbours: NeighbourSegments | None = None
        self.limits: Limits
        self._at_once: Limits
        self._shared: Limits
        self._inline = 0  # Bytes of values above which they go before their report.
        self._large = 0  # Bytes of values above which they do not go with their report.
        self._is_shared = False  # The chunk's dispatcher shares memory.
        self._encode = msgspec.msgpack.Encoder().encode

    def start(self, setup: Setup) -> None:
        """Set the limits of this worker."""
        value, report = setup.max_value, setup.max_report
        self.limits = Limits(value=value, report=report)
        self._at_once = Limits(value=value, report=report, report_seconds=0.0)
        self._shared = Limits(value=value, report=SHARED_FACTOR * report, scatters=True)
        self._large = self._inline = setup.inline

    def begin(self, chunk: Chunk, function: Function) -> Limits:
        """Prepare for the reports of a chunk; return their limits."""
        limits = self.limits if self.neighbours is None else self.share(chunk)
        return self._at_once if function.reports_each else limits

    def share(self, chunk: Chunk) -> Limits:
        """Let a chunk's values go into shared memory, if its dispatcher reads them there."""
        shared = self.neighbours
        self._is_shared = shared is not None and chunk.inbox in shared and not job_of(chunk.map)
        self._large = min(SHARE_BYTES, self._inline) if self._is_shared else self._inline
        return self._shared if self._is_shared else self.limits

    def emit(self, report: Report) -> None:
        """Send a report of the chunk that was begun, or shared, last.

        The agent only learns the end of a chunk whose outcomes have gone past it.
        """
        if shortcut is not None and self._goes_past(report) and shortcut(self._encode(report)):
            if report.final is not None:
                self.pipe.send(frames.ENDED, b"")
            return
        if len(report.values) > self._large:
            self._send_values(report)
        if type(report.values) is not bytes:  # They are scattered, and not in shared memory.
            report.values = bytes(report.values)
        kind = frames.PART if report.final is None else frames.LAST
        self.pipe.send(kind, self._encode(report))

    def _goes_past(self, report: Report) -> bool:
        """Return whether a report is small enough for the short way."""
        return len(report.values) <= SHARE_BYTES and type(report.values) is bytes

    def send(self, kind: bytes, message: object) -> None:
        """Send a frame that is not a report."""
        self.pipe.send(kind, self._encode(message))

    def _send_values(self, report: Report) -> None:
        """Send large values before their report: in shared memory, else in a frame."""
        size = len(report.values)
        if self._is_shared and self.neighbours is not None:
            report.at = self.neighbours.put(report.values)
        if report.at is not None:
            self.send(frames.REGION, report.at)
        elif size > self._inline:
            self.pipe.send(frames.VALUES, bytes(report.values))
        else:
            return
        report.size, report.values = size, b""
