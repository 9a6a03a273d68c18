"""The dashboard of a made-up pool in Chromium: ``python -m bench.page``.

Prints, for 1,000 hosts of 64 cores and a job of ten million items, what the first view and a change
take on the wire, and what a frame takes. Script is what passes from the state to HTML, its patch,
charts and 64,000 cells, which a busy machine makes longer. CPU is that of the page's main thread
from one frame to the next, with style, layout and all else. With ``--docs`` it draws the pictures
of the documentation instead; ``python -m bench.pictures`` draws every view in every state.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import cast

import msgspec
import uvloop

from .servers import ROOT

sys.path.append(str(ROOT / "tests" / "support"))

from browser import CHROMIUM, Browser, Tab
from fake_cluster import FakeCluster
from jetmap.client.cluster import Cluster
from made_up_pool import FUNCTIONS, MadeUpPool, PlayedWatch
from served import served
from tools import need_tool

VIEWS = ("now", "maps", "map/0QK3ZM2T8V0000", "failures", "functions/parse_invoice", "hosts")
WIDTHS = ((390, 844), (1280, 900), (2560, 1400))
SECONDS = 10  # Seconds for which a view is measured; it has a frame a second.


def parse_invoice(pages: list[str], *, language: str = "en") -> dict[str, float]:
    """Read an invoice's fields from its PDF."""
    return {language: len(pages)}


@contextmanager
def gateway(watch: PlayedWatch) -> Iterator[str]:
    """Serve the dashboard of this pool in a thread, at the address that is yielded."""
    port: list[int] = []
    begun, ended = threading.Event(), threading.Event()

    async def serve() -> None:
        cluster = FakeCluster(parse_invoice)
        cluster.watch = watch
        async with served(cast(Cluster, cluster)) as found:
            port.append(found)
            begun.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=uvloop.run, args=(serve(),))
    thread.start()
    begun.wait()
    try:
        yield f"http://127.0.0.1:{port[0]}"
    finally:
        ended.set()
        thread.join()


def show(tab: Tab, url: str, view: str, theme: str) -> None:
    """Open a view, anew, and wait until it is drawn."""
    tab.open(f"{url}/healthz")
    tab.do(f"localStorage.setItem('jetmap theme', {theme!r})")
    tab.open(f"{url}/ui#{view}")
    name = view.partition("/")[0]
    tab.until(f"document.querySelector('[data-key=\"view-{name}\"]') !== null")


def measure(browser: Browser) -> None:
    """Print what a large pool costs a browser."""
    watch = PlayedWatch(MadeUpPool(1_000, 64, maps=340))
    whole = len(msgspec.json.encode(watch.pool.snapshot()))
    changes = [len(msgspec.json.encode(watch.step())) for _ in range(4)]
    print(f"first view {whole / 1e3:,.0f} kB, changes {max(changes) / 1e3:,.0f} kB at most\n")
    print("| script, CPU | 390 px | 1280 px | 2560 px |\n| --- | --- | --- | --- |")
    with gateway(watch) as url:
        tab = Tab(browser)
        browser.call("Performance.enable", timeDomain="threadTicks")
        for view in VIEWS:
            cells = []
            for width, height in WIDTHS:
                tab.size(width, height)
                show(tab, url, view, "light")
                tab.do("jetmap.frames.length = 0")
                before = _busy(browser)
                time.sleep(SECONDS)
                frames = cast(list[float], tab.do("jetmap.frames"))
                used = 1e3 * (_busy(browser) - before) / len(frames)
                cells.append(f"{median(frames):.0f} ms, {used:.0f} ms")
            print(f"| {view.partition('/')[0]} | {' | '.join(cells)} |", flush=True)


def _busy(browser: Browser) -> float:
    """CPU seconds of the page's main thread."""
    metrics = browser.call("Performance.getMetrics")["metrics"]
    return next(float(m["value"]) for m in metrics if m["name"] == "TaskDuration")


def draw_docs(browser: Browser) -> None:
    """Draw the pictures of docs/dashboard.md."""
    browser.call("Emulation.setScrollbarsHidden", hidden=True)
    with gateway(PlayedWatch(MadeUpPool(state="failing"))) as url:
        tab = Tab(browser)
        tab.size(1280)
        for view in VIEWS:
            show(tab, url, view, "dark")
            time.sleep(2)  # Its details have been asked for.
            tab.save(ROOT / "docs" / "img" / f"dashboard-{view.partition('/')[0]}.png")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument("--docs", action="store_true", help="draw those in docs/img instead")
    chosen = parser.parse_args()
    assert FUNCTIONS[3][0] == parse_invoice.__name__
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(need_tool(*CHROMIUM), Path(profile))
        try:
            if chosen.docs:
                draw_docs(browser)
            else:
                measure(browser)
        finally:
            browser.close()


if __name__ == "__main__":
    main()
