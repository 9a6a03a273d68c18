"""Chromium, for the pages of the gateway; ``dashboard`` is that of a made-up pool in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bench.page import gateway

from browser import CHROMIUM, Browser
from dashboard import Dashboard
from jetmap.wire.controls import PoolControl
from made_up_pool import MadeUpPool, PlayedWatch
from tools import need_tool


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(need_tool(*CHROMIUM), tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def played() -> Iterator[tuple[PlayedWatch, str]]:
    watch = PlayedWatch(MadeUpPool())
    watch.step_seconds = 0.2
    with gateway(watch) as url:
        yield watch, url


@pytest.fixture
def dashboard(browser: Browser, played: tuple[PlayedWatch, str]) -> Iterator[Dashboard]:
    watch, url = played
    watch.made_up = MadeUpPool()
    watch.asked.clear()
    watch.pool.control = PoolControl()
    shown = Dashboard(browser, watch, url)
    try:
        yield shown
        assert shown.tab.do("window.refused") == []
    finally:
        shown.tab.open("about:blank")
