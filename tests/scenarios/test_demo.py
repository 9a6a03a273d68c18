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
    assert re.search(r"dashboard: http://127.0.0.1:\d+/ui, its token: \S+", said)
    assert "the largest found is 100,039,000," in said
    for title in ("source metrics", "prime search"):
        assert re.search(rf"{title} +\d+\.\d\d s +\d+\.\d\d s +\d+\.\d\d +\d+%", said), said
    house.nothing_is_left()
