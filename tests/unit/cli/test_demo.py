"""The demo: its settings, its report, and its threads."""

from __future__ import annotations

import asyncio
import io
from contextlib import nullcontext
from typing import cast

import pytest
from rich.console import Console

from jetmap.cli import demo
from jetmap.cli.demo import FinishedMap, Serial
from jetmap.demo.http import DemoError, GatewayClient
from jetmap.demo.live import Reading
from jetmap.demo.work import Sample, prime_search
from jetmap.settings import Settings
from waiting import wait_until

pytestmark = pytest.mark.anyio


def report(cpu: float) -> str:
    console = Console(width=120, record=True)
    run = FinishedMap(prime_search(2), seconds=5.0, first=0.02, notes=[])
    serial = Serial(seconds=10.0, cpu=cpu, sample=Sample(1, [1], 1.0))
    with console.capture() as capture:
        demo._report([(run, serial)], 2, console)
    return capture.get()


def test_the_report_compares_the_same_work() -> None:
    said = report(cpu=10.0)
    assert "10.00 s" in said and "5.00 s" in said
    assert "2.00" in said and "100%" in said
    assert "first results over HTTP after 20 ms" in said
    assert "other programs" not in said
    assert "jetmap up tasks.py" in said


def test_the_report_admits_a_busy_machine() -> None:
    assert "other programs had the core for up to 20% of the time" in report(cpu=8.0)


def test_the_demo_ignores_what_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETMAP_NATS_URL", "nats://elsewhere:4222")
    monkeypatch.setenv("JETMAP_HOST", "0.0.0.0")
    monkeypatch.setenv("JETMAP_RECYCLE_CHUNKS", "1")
    settings = demo.own(Settings.load(cores="1"))
    assert (settings.broker.nats_url, settings.gateway.host, settings.gateway.port) == (
        None,
        "127.0.0.1",
        0,
    )
    assert (settings.workers.cores, settings.workers.recycle_chunks) == ("1", None)
    assert settings.gateway.read_token()


async def test_a_blocking_function_runs_in_a_thread() -> None:
    assert await demo.in_thread(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await demo.in_thread(lambda: 1 / 0)


async def test_with_stay_the_work_goes_on_until_it_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A map that somebody cancels on the dashboard does not end it."""
    runs: list[str] = []
    monkeypatch.setattr(demo, "work_beside", lambda gateway, files: nullcontext())

    class Gateway:
        def map(self, function: str, items: list[int]) -> list[object]:
            runs.append(function)
            if len(runs) == 1:
                raise DemoError("it was cancelled")
            return []

        def another(self) -> Gateway:
            return self

        def reading(self) -> Reading:
            return Reading(0.0, (True,), 0, 0)

        def close(self) -> None:
            pass

    works = [prime_search(1), prime_search(2)]
    gateway = cast(GatewayClient, Gateway())
    task = asyncio.ensure_future(demo._go_on(gateway, works, Console(file=io.StringIO())))
    await wait_until(lambda: len(runs) > 4, "the works have been repeated")
    task.cancel()
    assert set(runs) == {works[0].function}
