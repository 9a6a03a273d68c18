"""Thousands of maps through a gateway whose dashboard is open: nothing grows with their number.

``MAPS=10000`` in the environment makes a longer run of it; with ``-s`` it prints its figures.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from browser import Browser, Tab
from house import House, Up
from jetmap.monitoring.observer import MOST_ENDED
from waiting import PATIENCE, wait_until_sync

MAPS = int(os.environ.get("MAPS", "1500"))
CALLERS = 8  # Connections that post maps at the same time.
EVERY = 10  # Maps between two that fail; these are kept for ten minutes.
MOST_CHANGE = 128 * 1024  # Bytes of a change: at most what the kept maps take.
MOST_GROWTH = 24 << 20  # Bytes by which a gateway may grow between two halves of the maps.


class Stream:
    """The events that a dashboard gets, read in a thread until ``close``."""

    def __init__(self, url: str) -> None:
        self.sizes: list[tuple[str, int]] = []
        self.totals: dict[str, Any] = {}
        self.maps: set[str] = set()
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
        self._connection.request("GET", "/ui/events")
        self._answer = self._connection.getresponse()
        self._is_closing = False
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        name = ""
        while line := self._line():
            if line.startswith(b"event: "):
                name = line[7:].strip().decode()
            elif line.startswith(b"data: "):
                self._on_event(name, line[6:])

    def _line(self) -> bytes:
        try:
            return self._answer.fp.readline()
        except ConnectionResetError:
            if not self._is_closing:  # What still comes when we have hung up is refused.
                raise
            return b""

    def _on_event(self, name: str, data: bytes) -> None:
        change = json.loads(data)
        self.sizes.append((name, len(data)))
        self.totals = change.get("totals", self.totals)
        for id, row in change.get("maps", {}).items():
            (self.maps.discard if row is None else self.maps.add)(id)

    def close(self) -> None:
        self._is_closing = True
        if (sock := self._connection.sock) is not None:
            sock.shutdown(2)
        self._thread.join(PATIENCE)
        self._connection.close()


@pytest.fixture
def up(house: House) -> Iterator[Up]:
    up = house.up()
    yield up
    assert up.stop() == 0


def post(url: str, count: int) -> int:
    """Post maps of one item on one connection; return how many were answered as they should be."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    good = 0
    for number in range(count):
        fails = number % EVERY == 0
        body = b"[13]" if fails else b"[21]"
        connection.request("POST", "/map/double", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        good += answer.status == (500 if fails else 200)
    connection.close()
    return good


def run(url: str, count: int) -> float:
    """Post this many maps, and return the seconds that they took."""
    began = time.monotonic()
    with ThreadPoolExecutor(CALLERS) as pool:
        answered = sum(pool.map(post, [url] * CALLERS, [count // CALLERS] * CALLERS))
    assert answered == count // CALLERS * CALLERS
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_maps_that_have_ended_leave_a_bounded_trace(up: Up, browser: Browser) -> None:
    gateway = up.child("api")
    tab = Tab(browser)
    tab.open(f"{up.url}/ui#maps")
    tab.until("globalThis.jetmap?.world.document != null")
    stream = Stream(up.url)
    try:
        took = run(up.url, MAPS // 3)
        before = gateway.memory_info().rss
        took += run(up.url, MAPS - MAPS // 3)
        growth = gateway.memory_info().rss - before
        items = MAPS // CALLERS * CALLERS - CALLERS  # Each part is a multiple of the callers.
        wait_until_sync(lambda: stream.totals.get("items", 0) >= items, "all are counted")
        tab.until(f"jetmap.world.document.totals.items >= {items}")
        kept = len(stream.maps)
    finally:
        stream.close()
        tab.open("about:blank")
    changes = [size for name, size in stream.sizes if name == "change"]
    print(
        f"{MAPS / took:.0f} maps a second, gateway {before / 1e6:.0f} MB, "
        f"{growth / 1e6:+.1f} MB, {len(changes)} changes of at most {max(changes):,} bytes, "
        f"{kept} maps kept"
    )
    assert kept <= MOST_ENDED
    assert max(changes) <= MOST_CHANGE
    assert growth <= MOST_GROWTH
    assert len(changes) >= 2, "the page is live"
