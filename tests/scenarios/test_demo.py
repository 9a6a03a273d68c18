"""``jetmap demo``, over less input."""

from __future__ import annotations

import asyncio
import email
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from house import House
from jetmap.cli import demo
from jetmap.demo.work import prime_search, sample
from jetmap.settings import Settings


def test_demo_runs_whole_and_leaves_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real demonstration, over less input."""
    part = str(Path(email.__file__).parent)  # the whole installation takes long to read
    paths = {name: part for name in ("stdlib", "purelib", "platlib")}
    monkeypatch.setattr("jetmap.demo.work.sysconfig", SimpleNamespace(get_paths=lambda: paths))
    monkeypatch.setattr("jetmap.demo.work.PRIMES_PER_CORE", 20)
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, house.environment[name])
    monkeypatch.chdir(house.directory)
    settings = demo.own(Settings.load(cores="2"))
    asyncio.run(demo._work(settings, Console(width=120, highlight=False)))
    assert not (house.directory / "state").exists()
    said = capsys.readouterr().out
    assert re.search(r"workers on 2 cores: ready in \d+\.\d s", said)
    assert "the largest found is 100,039,000," in said
    for title in ("source metrics", "prime search"):
        assert re.search(rf"{title} +\d+\.\d\d s +\d+\.\d\d s +\d+\.\d\d +\d+%", said), said
    house.nothing_is_left()


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


def test_a_sample_stands_for_the_whole() -> None:
    work = prime_search(2)
    whole = sample(work, parallel_seconds=2.0, cores=2)
    assert (whole.step, whole.factor, whole.items) == (1, 1.0, work.items)
    part = sample(work, parallel_seconds=40.0, cores=2)
    assert part.step == 4
    assert len(part.items) == len(work.items) / 4
    assert part.factor == 4.0
    assert "one in 4" in str(part)
