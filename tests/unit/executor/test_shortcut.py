"""Reports go to the executor whole and in order, or not at all."""

from __future__ import annotations

import socket

import pytest

from jetmap.executor.shortcut import MOST_AT_ONCE, MOST_BYTES, ReportReader, ReportSender
from jetmap.wire.messages import Report, encode
from waiting import wait_until

pytestmark = pytest.mark.anyio


def report(start: int, size: int = 1) -> Report:
    return Report("m", 1, 1, start, 1, b"v" * size, [], 0.0)


async def test_reports_arrive_in_order() -> None:
    received: list[Report] = []
    reader = ReportReader(received.extend)
    sender = ReportSender(reader.connect())
    reports = [report(start) for start in range(MOST_AT_ONCE + 10)]
    assert all(sender.send(encode(each)) for each in reports) and not received
    await wait_until(lambda: received == reports, "all reports have come")
    sender.close()
    reader.close()


async def test_a_report_that_does_not_fit_is_not_sent_at_all() -> None:
    received: list[Report] = []
    reader = ReportReader(received.extend)
    sender = ReportSender(reader.connect())
    send = sender.send
    assert not send(encode(report(0, MOST_BYTES)))
    sent = 0
    while send(encode(report(sent, 10_000))):
        sent += 1
    reader.read()
    assert [each.start for each in received] == list(range(sent))
    assert {len(each.values) for each in received} == {10_000}
    assert send(encode(report(sent))), "there is room again"
    reader.close()
    assert not send(encode(report(sent + 1)))
    sender.close()


async def test_what_dead_workers_have_sent_is_read() -> None:
    received: list[Report] = []
    reader = ReportReader(received.extend)
    for start in range(2):
        sender = ReportSender(reader.connect())
        assert sender.send(encode(report(start)))
        sender.close()
    reader.read()
    assert sorted(each.start for each in received) == [0, 1]
    assert not reader._workers


async def test_systems_without_such_sockets_have_no_short_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(socket, "SOCK_SEQPACKET")
    assert ReportReader(lambda reports: None).connect() == -1
