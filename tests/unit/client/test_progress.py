"""The progress of a map: reported to a function, and drawn where it can be."""

from __future__ import annotations

import asyncio
import io
import re
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from jetmap import Cluster, ItemRaised, Progress, task
from jetmap.client import progress as bars
from jetmap.client.progress import LogLines, MeteredMap, NotebookBar, TerminalBar, describe

pytestmark = pytest.mark.anyio


@task
def metered(n: int) -> int:
    if n % 10 == 9:
        raise ValueError(n)
    return n


async def test_a_function_hears_each_batch() -> None:
    seen: list[Progress] = []
    async with Cluster(inline=True) as cluster:
        await cluster.map(metered, range(50), return_exceptions=True, progress=seen.append)
        assert (seen[0], seen[-1]) == (Progress(0, 0, 50), Progress(50, 5, 50))
        assert seen == sorted(seen) and len(seen) == len(set(seen))
        seen.clear()
        async with cluster.stream(metered, iter(range(9)), progress=seen.append) as stream:
            assert len([outcome async for outcome in stream]) == 9
        assert (seen[0], seen[-1]) == (Progress(0, 0, None), Progress(9, 0, 9))
        seen.clear()
        await cluster.map(metered, [9, 9], max_failed=2, progress=seen.append)
        assert seen[-1] == Progress(2, 2, 2)
        await cluster.map(metered, [1], progress=None)  # type: ignore[call-overload]


async def test_what_the_function_raises_ends_the_map() -> None:
    def refuse(progress: Progress) -> None:
        if progress.done:
            raise KeyError(progress.done)

    async with Cluster(inline=True) as cluster:
        with pytest.raises(KeyError):
            await cluster.map(metered, [1], progress=refuse)
        async with cluster.stream(metered, [1], progress=refuse) as stream:
            with pytest.raises(KeyError):
                await anext(stream)
            assert stream._running is not None and stream._running.ended


async def test_a_reader_that_stops_waiting_may_come_again() -> None:
    class Run:
        id, ended, total, done = "m", False, 1, 0
        batch: asyncio.Future[Any]

        async def __anext__(self) -> Any:
            return await asyncio.shield(self.batch)

        async def aclose(self) -> None:
            self.ended = True

    run: Any = Run()
    run.batch = asyncio.get_running_loop().create_future()
    seen: list[Progress] = []
    metered_map = MeteredMap(run, "f", seen.append)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(metered_map), 0)
    assert not run.ended
    run.batch.set_result(SimpleNamespace(count=1, errors=[]))
    await anext(metered_map)
    assert seen == [Progress(0, 0, 1), Progress(1, 0, 1)]


async def test_what_is_no_function() -> None:
    async def report(progress: Progress) -> None: ...

    async with Cluster(inline=True) as cluster:
        with pytest.raises(TypeError, match="progress is True, or a function"):
            await cluster.map(metered, [1], progress=1)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="async function"):
            cluster.stream(metered, [1], progress=report)


async def test_a_log_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    async with Cluster(inline=True) as cluster:
        await cluster.map(metered, range(9), progress=True)
        with pytest.raises(ItemRaised):
            await cluster.map(metered, [9], progress=True)
        stream = cluster.stream(metered, range(9), progress=True)
        await anext(stream)
        await stream.aclose()
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"[\d.]+ s$", "", line) for line in lines] == [
        "metered: 9 of 9 items done, ",
        "metered: 1 of 1 items done, 1 failed, ",
        f"metered: {lines[2].split()[1]} of 9 items done, ",
    ]


def test_lines_come_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    lines = LogLines("f")
    for now in (1.0, 9.0, 10.0, 11.0, 20.0):
        lines.show(Progress(int(now), 0, None))
    assert capsys.readouterr().err == "f: 10 items done, 10.0 s\nf: 20 items done, 20.0 s\n"
    assert (
        describe("f", Progress(1000, 2, 5000), 1) == "f: 1,000 of 5,000 items done, 2 failed, 1.0 s"
    )


def test_bars_share_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, record=True)
    first, second = TerminalBar("first", console), TerminalBar("second", console)
    first.show(Progress(1, 1, 2))
    first.close()
    assert TerminalBar._display is not None
    second.show(Progress(3, 0, 4))
    second.close()
    assert TerminalBar._display is None
    text = console.export_text()
    assert re.search(r"first .* 1/2 .* 1 failed", text) and re.search(r"second .* 3/4 ", text)


def test_a_notebook_shows_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    handle = SimpleNamespace(update=shown.append)

    def display(table: Any, *, display_id: bool) -> Any:
        assert display_id
        shown.append(table)
        return handle

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(time, "monotonic", lambda: 7.0)
    bar = bars.bar_for("f")
    assert isinstance(bar, NotebookBar)
    for done in range(100):
        bar.show(Progress(done, 0, 100))
    bar.show(Progress(100, 0, 100))
    bar.close()
    assert len(shown) == 2 and "100/100" in shown[-1]._repr_mimebundle_([], [])["text/html"]


async def test_the_length_of_a_stream() -> None:
    async with Cluster(inline=True) as cluster:
        known = cluster.stream(metered, range(0))
        unknown = cluster.stream(metered, iter(range(3)))
        assert (len(known), bool(known), bool(unknown)) == (0, True, True)
        with pytest.raises(TypeError, match="not known yet"):
            len(unknown)
        assert [o.index async for o in unknown] == [0, 1, 2] and len(unknown) == 3
    with Cluster(inline=True).sync as sync, sync.stream(metered, iter([1, 2])) as blocking:
        assert [outcome.value for outcome in list(blocking)] == [1, 2]
        assert len(blocking) == 2
