"""The worker's way back: where the values of a report travel."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from jetmap.functions.function import Function
from jetmap.wire import frames
from jetmap.wire.messages import SHARE_BYTES, Chunk, Final, Region, Report, ValuesPlace
from jetmap.wire.scattered import scattered
from jetmap.wire.worker_start import Setup
from jetmap.worker import reporter
from jetmap.worker.neighbours import NeighbourSegments
from jetmap.worker.reporter import Reporter

INLINE = 4 * SHARE_BYTES
PLACE = ValuesPlace(1, Region(0, 8, 3))

_report = msgspec.msgpack.Decoder(Report).decode


class Neighbours:
    """Memory shared with the dispatcher "near". has_room: whether values fit."""

    def __init__(self, *, has_room: bool = True) -> None:
        self.has_room = has_room
        self.values: list[bytes] = []

    def __contains__(self, inbox: str) -> bool:
        return inbox == "near"

    def put(self, values: bytes) -> ValuesPlace | None:
        if not self.has_room:
            return None
        self.values.append(values)
        return PLACE


class Bench:
    """A reporter whose frames are kept."""

    def __init__(self, neighbours: Neighbours | None = None) -> None:
        self.sent: list[tuple[bytes, bytes]] = []
        self.reporter = Reporter(cast(frames.BlockingPipe, self))
        self.reporter.start(
            Setup(
                memory_limit=None,
                max_value=1 << 20,
                max_report=1 << 16,
                inline=INLINE,
                output_bytes=1,
                log_level="info",
            )
        )
        self.reporter.neighbours = cast(NeighbourSegments, neighbours)

    def send(self, kind: bytes, payload: bytes) -> None:
        self.sent.append((kind, payload))

    def report(self, size: int, *, inbox: str = "near", map: str = "m") -> Report:
        """Send the report of a chunk with values of this size; return it as it was sent."""
        head = map, 1, 1, "f", "json", 0, 1, inbox, None, 1.0, b"[1]"
        self.reporter.begin(Chunk(*head), function())
        self.reporter.emit(Report(map, 1, 1, 0, 1, b"v" * size, [], 0.0, Final(1)))
        assert self.sent[-1][0] == frames.LAST
        return _report(self.sent[-1][1])


def function(**facts: Any) -> Function:
    return cast(Function, SimpleNamespace(**({"reports_each": False} | facts)))


def test_reports_are_parts_until_the_last() -> None:
    bench = Bench()
    bench.reporter.emit(Report("m", 1, 1, 0, 1, b"[1]", [], 0.0))
    bench.report(3)
    assert [kind for kind, _ in bench.sent] == [frames.PART, frames.LAST]


def test_large_values_go_before_their_report() -> None:
    bench = Bench()
    assert bench.report(INLINE).values == b"v" * INLINE
    report = bench.report(INLINE + 1)
    assert (report.values, report.size) == (b"", INLINE + 1)
    assert bench.sent[-2] == (frames.VALUES, b"v" * (INLINE + 1))


@pytest.mark.parametrize("size", [SHARE_BYTES + 1, INLINE + 1])
def test_values_for_a_dispatcher_of_this_host_go_through_memory(size: int) -> None:
    neighbours = Neighbours()
    bench = Bench(neighbours)
    report = bench.report(size)
    assert (report.values, report.size, report.at) == (b"", size, PLACE)
    assert bench.sent[-2][0] == frames.REGION and neighbours.values == [b"v" * size]


def test_values_that_memory_has_no_room_for_go_as_to_other_hosts() -> None:
    bench = Bench(Neighbours(has_room=False))
    assert bench.report(SHARE_BYTES + 1).values == b"v" * (SHARE_BYTES + 1)
    assert bench.report(INLINE + 1).size == INLINE + 1
    assert bench.sent[-2][0] == frames.VALUES


@pytest.mark.parametrize("chunk", [{"inbox": "far"}, {"map": "=job=1"}])
def test_dispatchers_of_other_hosts_and_jobs_read_no_memory(chunk: dict[str, str]) -> None:
    neighbours = Neighbours()
    bench = Bench(neighbours)
    bench.report(SHARE_BYTES + 1)
    assert bench.report(SHARE_BYTES + 1, **chunk).at is None
    assert len(neighbours.values) == 1


def test_limits_are_those_of_the_function_and_of_the_way() -> None:
    bench = Bench(Neighbours())
    near, far = (
        Chunk("m", 1, 1, "f", "json", 0, 1, inbox, None, 1.0, b"[1]") for inbox in ("near", "far")
    )
    each = bench.reporter.begin(near, function(reports_each=True))
    assert each.report_seconds == 0.0
    larger, usual = (bench.reporter.begin(chunk, function()) for chunk in (near, far))
    assert larger.report > usual.report == 1 << 16


@pytest.mark.parametrize("inbox", ["near", "far"])
def test_scattered_values_are_joined_where_memory_is_not_shared(inbox: str) -> None:
    neighbours = Neighbours()
    bench = Bench(neighbours)
    values = scattered([b"v" * SHARE_BYTES, b"w" * 10])
    assert values is not None
    head = "m", 1, 1, "f", "msgpack", 0, 2, inbox, None, 1.0, b""
    limits = bench.reporter.begin(Chunk(*head), function())
    assert limits.scatters == (inbox == "near")
    bench.reporter.emit(Report("m", 1, 1, 0, 2, cast(bytes, values), [], 0.0, Final(2)))
    sent = _report(bench.sent[-1][1])
    if inbox == "near":
        assert neighbours.values == [values] and sent.at == PLACE and not sent.values
    else:
        assert sent.values == bytes(values) and not sent.size


@pytest.mark.parametrize("takes", [True, False])
def test_reports_take_the_short_way_past_the_agent_if_it_is_open(
    takes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    past: list[bytes] = []

    def shortcut(report: bytes) -> bool:
        if takes:
            past.append(report)
        return takes

    monkeypatch.setattr(reporter, "shortcut", shortcut)
    bench, large = Bench(), b"v" * (SHARE_BYTES + 1)
    part, last = (
        Report("m", 1, 1, start, 1, b"[1]", [], 0.0, final)
        for start, final in ((0, None), (1, Final(2)))
    )
    bench.reporter.emit(part)
    bench.reporter.emit(Report("m", 1, 1, 1, 1, large, [], 0.0))
    bench.reporter.emit(last)
    kinds = [kind for kind, _ in bench.sent]
    if takes:
        assert [_report(each) for each in past] == [part, last]
        assert kinds == [frames.PART, frames.ENDED] and not bench.sent[1][1]
    else:
        assert kinds == [frames.PART, frames.PART, frames.LAST]
