"""Chromium, for the pages of the gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from browser import CHROMIUM, Browser
from tools import need_tool


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(need_tool(*CHROMIUM), tmp_path_factory.mktemp("profile"))
    yield started
    started.close()
