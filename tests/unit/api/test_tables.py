"""The tables that a browser without scripts shows."""

from __future__ import annotations

import time

from activities import activity, failure, map_of
from announcements import presence
from fake_watch import FakeWatch
from jetmap.dispatch.roster import FunctionStatus
from jetmap.wire.presence import FunctionInfo
from jetmap_api.tables import MOST_ROWS, tables


def test_an_empty_pool_has_tables_too() -> None:
    page = tables(None, [], [])
    assert "0 of 0 cores busy" in page and "None." in page


def test_everything_is_shown_as_text() -> None:
    watch = FakeWatch()
    bad = '<script>alert("x")</script>'
    maps = [map_of(f"m{n}", function=bad) for n in range(MOST_ROWS + 7)]
    watch.hear(activity(maps=maps, failures=[failure(message=bad)]))
    watch.pool.advance(time.monotonic())
    functions = [FunctionStatus(FunctionInfo(bad, doc=bad), [], 2, True)]
    page = tables(watch.pool.snapshot(), [presence(host=bad, failure=bad)], functions)
    assert "<script" not in page and page.count("&lt;script&gt;") > MOST_ROWS
    assert "7 more." in page and "10 of 100" in page


def test_numbers_are_read_by_people() -> None:
    watch = FakeWatch()
    watch.hear(activity(maps=[map_of(total=10_000_000, done=1_433_333, failed=28_667)]))
    page = tables(watch.pool.snapshot(), [presence(cores=1, ready=1)], [])
    assert "0 of 1 core busy, on 1 agent." in page
    assert "<td>1,433,333 of 10,000,000</td>" in page and '<td class="num">28,667</td>' in page
    assert '<th class="num">Failed</th>' in page and "<th>Map</th>" in page
