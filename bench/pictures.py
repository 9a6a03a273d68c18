"""Pictures of the dashboard for people to look at: ``python -m bench.pictures FOLDER``.

Draws every view at three widths and in both themes: of a made-up pool of three hosts in each state,
of one of 1,000 hosts, the login page, the page without scripts, and one whose gateway has gone.
With ``--real`` it draws a real `jetmap up` instead, with a second gateway behind a token: without a
worker, idle, busy, failing, its broker away, its gateway killed. Sheets of several pictures are in
``FOLDER/sheets``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .page import VIEWS, WIDTHS, gateway, show
from .servers import ROOT

sys.path.append(str(ROOT / "tests" / "support"))

from browser import CHROMIUM, Browser, Tab
from house import House, Up
from made_up_pool import MadeUpPool, PlayedWatch, State
from tools import need_tool

THEMES = ("light", "dark")
STATES: tuple[State, ...] = ("empty", "idle", "busy", "failing", "away")
TOKEN = "only-for-pictures-0123456789"
# Pixels of a picture's width in a sheet, and pictures of a row, by the width of the page.
SHEETS = {390: (260, 6), 1280: (780, 2), 2560: (1560, 1)}

TASKS = '''
import os
import time

from jetmap import task


@task
def price_option(seconds: float) -> float:
    """Price one option by Monte Carlo."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return seconds


@task
def parse_invoice(page: int, *, language: str = "en") -> dict[str, int]:
    """Read an invoice's fields from its PDF."""
    time.sleep(0.05)
    if page % 7 == 3:
        raise ValueError(f"page {page} has no <table> of items")
    return {language: page}


@task
def ocr_page(page: int) -> int:
    """Recognise one page."""
    time.sleep(0.02)
    if page == 13:
        os.abort()
    return page
'''


class Album:
    """Pictures in a folder.

    Attributes:
        tab: The page that is drawn.
    """

    def __init__(self, browser: Browser, folder: Path) -> None:
        self._browser = browser
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.tab = Tab(browser)

    def draw(self, name: str, prepare: Callable[[str], None]) -> None:
        """Save a page at each width and in each theme.

        Args:
            prepare: Shows the page in a theme.
        """
        for theme in THEMES:
            features = [{"name": "prefers-color-scheme", "value": theme}]
            self._browser.call("Emulation.setEmulatedMedia", features=features)
            self.tab.size(1280)
            prepare(theme)
            self._save(name, theme, lambda: None)

    def draw_views(self, url: str, state: str, views: tuple[str, ...] = VIEWS) -> None:
        """Save views of the dashboard at this address, which is in this state."""
        for theme in THEMES:
            self.tab.size(1280)
            show(self.tab, url, views[0], theme)
            for view in views:
                self.tab.go(view)
                self._wait()
                self._save(f"{view.partition('/')[0]}-{state}", theme, self._wait)

    def _save(self, name: str, theme: str, wait: Callable[[], None]) -> None:
        for width, height in WIDTHS:
            self.tab.size(width, height)
            wait()
            self.tab.save(self._folder / f"{name}-{width}-{theme}.png")

    def _wait(self) -> None:
        """Wait until what the view asks for has come, and a later change has been drawn."""
        version = self.tab.do("jetmap.world.document.version")
        self.tab.until(f"jetmap.world.document.version > {version + 1}")

    def draw_sheets(self) -> None:
        """Save sheets of the pictures of each width."""
        sheets = self._folder / "sheets"
        sheets.mkdir(exist_ok=True)
        for width, (wide, row) in SHEETS.items():
            found = sorted(self._folder.glob(f"*-{width}-*.png"))
            for number in range(0, len(found), 2 * row):
                pictures = found[number : number + 2 * row]
                page = sheets / f"{width}-{number:03}.html"
                figures = "".join(
                    f'<figure><img src="{path.resolve().as_uri()}" width="{wide}">'
                    f"<figcaption>{path.stem}</figcaption></figure>"
                    for path in pictures
                )
                style = f"display: grid; grid-template-columns: repeat({row}, {wide}px); gap: 8px"
                page.write_text(
                    "<style>figure { margin: 0 } figcaption { font: 14px sans-serif }</style>"
                    f'<body style="{style}; margin: 8px">{figures}'
                )
                self.tab.size(row * (wide + 8) + 8, 100)
                self.tab.open(page.resolve().as_uri())
                high = self.tab.do("document.documentElement.scrollHeight")
                self.tab.size(row * (wide + 8) + 8, high)
                self.tab.save(page.with_suffix(".png"))
                page.unlink()


def draw_made_up(album: Album, browser: Browser) -> None:
    """Draw a made-up pool in each state."""
    for state in STATES:
        with gateway(fast(MadeUpPool(state=state))) as url:
            album.draw_views(url, state)
    for state in ("busy", "failing"):
        with gateway(fast(MadeUpPool(1_000, 64, state, maps=340))) as url:
            album.draw_views(url, f"1000hosts-{state}", ("now", "maps", "hosts"))
    with gateway(PlayedWatch(MadeUpPool(state="failing"))) as url:
        browser.call("Emulation.setScriptExecutionDisabled", value=True)
        try:
            album.draw("noscript", lambda theme: album.tab.open(f"{url}/ui"))
        finally:
            browser.call("Emulation.setScriptExecutionDisabled", value=False)


def fast(pool: MadeUpPool) -> PlayedWatch:
    """Return a watch of a pool that has three seconds in one."""
    watch = PlayedWatch(pool)
    watch.step_seconds = 0.35
    return watch


class RealWork:
    """Maps and jobs of a real `jetmap up`, each in a thread of its own."""

    def __init__(self, up: Up) -> None:
        self._up = up
        self._threads: list[threading.Thread] = []

    def post(self, path: str, items: list[Any]) -> None:
        thread = threading.Thread(target=self._up.get, args=(path, json.dumps(items)), daemon=True)
        thread.start()
        self._threads.append(thread)

    def begin(self) -> None:
        self.post("/map/price_option?labels=customer=7", [0.05] * 20_000)
        self.post("/map/price_option?max_parallel=1&labels=customer=8", [0.2] * 5_000)
        self.post("/jobs/price_option?labels=team=risk", [2.0] * 500)
        for _ in range(3):
            self.post("/map/ocr_page", [1, 2, 3])

    def fail(self) -> None:
        self.post("/jobs/parse_invoice?labels=customer=7", list(range(60)))
        self.post("/jobs/ocr_page", [1, 13, 2])


def draw_real(album: Album) -> None:
    """Draw a real cluster of this machine's cores."""
    with house() as place:
        up = place.up()
        draw_empty(album, place)
        work = RealWork(up)
        album.draw_views(up.url, "real-idle", ("now", "maps", "failures", "functions", "hosts"))
        work.begin()
        album.tab.open(f"{up.url}/ui#maps")
        job = album.tab.until("jetmap.world.maps.find(m => m.kind === 'job' && m.done > 0)?.id")
        views = ("now", "maps", f"map/{job}", "functions/price_option", "hosts")
        album.draw_views(up.url, "real-busy", views)
        work.fail()
        album.tab.go("failures")
        album.tab.until("jetmap.world.failures.length >= 2")
        album.draw_views(up.url, "real-failing", ("now", "maps", "failures", "hosts"))
        draw_login(album, place)
        up.child("nats-server").suspend()
        album.tab.open(f"{up.url}/ui#now")
        album.tab.until("document.querySelector('#link').textContent === 'Broker away'")
        album.draw_views(up.url, "real-away", ("now", "maps"))
        up.child("nats-server").resume()
        album.tab.until("document.querySelector('#link').textContent !== 'Broker away'")

        up.stop()
        album.tab.says("The gateway is away since")
        theme = "document.documentElement.dataset.theme"
        button = "document.querySelector('[data-act=theme]').click()"
        for view in ("now", "maps"):
            album.tab.go(view)
            album.draw(
                f"{view}-real-gateway-away",
                lambda wanted: album.tab.do(f"{theme} === '{wanted}' || {button}"),
            )


def draw_empty(album: Album, place: House) -> None:
    """Draw a pool without workers, beside the one that has some."""
    running = place.running()
    process = place.start(
        *("api", "--port", "0", "--nats", running.url, "--nats-user", running.user),
        *("--pool", "night"),
        JETMAP_NATS_PASSWORD=running.password,
    )
    album.draw_views(address(process), "real-empty", ("now", "maps", "failures", "hosts"))


def address(process: subprocess.Popen[str]) -> str:
    """Return the address of a gateway that starts."""
    assert process.stdout is not None
    return process.stdout.readline().strip().removesuffix("/docs")


def draw_login(album: Album, place: House) -> None:
    secret = place.directory / "token"
    secret.write_text(TOKEN)
    secret.chmod(0o600)
    url = address(place.start("api", "--port", "0", "--token-file", str(secret)))
    album.draw("login", lambda theme: album.tab.open(f"{url}/login"))
    album.tab.do("document.querySelector('#token').value = 'wrong'")
    album.tab.click("button[type=submit]")
    album.tab.says("not the gateway's token")
    album.draw("login-wrong", lambda theme: None)


@contextmanager
def house() -> Iterator[House]:
    with tempfile.TemporaryDirectory() as directory:
        place = House(Path(directory))
        place.tasks.write_text(TASKS)
        try:
            yield place
        finally:
            place.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pictures", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to save them")
    parser.add_argument("--real", action="store_true", help="draw a real `jetmap up` instead")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(need_tool(*CHROMIUM), Path(profile))
        try:
            album = Album(browser, chosen.folder)
            if chosen.real:
                draw_real(album)
            else:
                draw_made_up(album, browser)
            album.draw_sheets()
        finally:
            browser.close()


if __name__ == "__main__":
    main()
