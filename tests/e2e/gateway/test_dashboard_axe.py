"""axe finds no violation: views in each state, theme and width, questions, the login page."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench.page import VIEWS, gateway, show

from browser import Browser, Tab
from house import House, Up
from made_up_pool import MadeUpPool, PlayedWatch, State
from tools import need_tool

THEMES = ("light", "dark")
WIDTHS = (390, 1280, 2560)
STATES: tuple[State, ...] = ("empty", "idle", "busy", "failing", "away")
FOUND = "axe.run().then(r => r.violations.map(v => v.id + ' ' + v.nodes[0].html))"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe."""
    npm, place = need_tool("npm"), tmp_path_factory.mktemp("axe")
    command = [npm, "install", "--silent", "--no-fund", "axe-core@4"]
    subprocess.run(command, cwd=place, check=True, capture_output=True, timeout=150)
    return (place / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


class Checked:
    """A page that axe looks at."""

    def __init__(self, browser: Browser, axe: str) -> None:
        self.tab = Tab(browser)
        self._axe = axe
        self.looks = 0

    def check(self, *where: object) -> None:
        if not self.tab.do("typeof axe === 'object'"):
            self.tab.do(f"{self._axe}; 0")
        found = self.tab.do(FOUND)
        assert found == [], (*where, found)
        self.looks += 1


@pytest.fixture
def page(browser: Browser, axe: str) -> Iterator[Checked]:
    checked = Checked(browser, axe)
    yield checked
    checked.tab.size(1280)
    checked.tab.open("about:blank")


@contextmanager
def made_up(state: State) -> Iterator[str]:
    with gateway(PlayedWatch(MadeUpPool(state=state))) as url:
        yield url


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("state", STATES)
def test_every_view(page: Checked, state: State, theme: str) -> None:
    with made_up(state) as url:
        for width in WIDTHS:
            page.tab.size(width)
            show(page.tab, url, "now", theme)
            for view in VIEWS:
                page.tab.go(view)
                page.check(view, state, theme, width)
    assert page.looks == len(VIEWS) * len(WIDTHS)


@pytest.mark.parametrize("theme", THEMES)
def test_questions_and_what_opens(page: Checked, theme: str) -> None:
    with made_up("failing") as url:
        for width in WIDTHS:
            page.tab.size(width)
            show(page.tab, url, "maps", theme)
            for question in ("cancel", "limit"):
                page.tab.until(f"document.querySelector('[data-ask^={question}]') !== null")
                page.tab.click(f"[data-ask^={question}]")
                page.check(question, theme, width)
                page.tab.press("Escape")
            page.tab.go("failures")
            page.tab.click("[data-act=open]")
            page.tab.says("--debug")
            page.check("traceback", theme, width)
            page.tab.click("[data-act=open][data-id=cause1]")  # Of a job.
            page.tab.click("[data-ask^=retry]")
            page.check("retry", theme, width)
            page.tab.press("Escape")
            page.tab.click("[data-act=help]")
            page.check("help", theme, width)


@pytest.mark.parametrize("theme", THEMES)
def test_a_gateway_that_is_away(page: Checked, theme: str) -> None:
    with made_up("busy") as url:
        show(page.tab, url, "now", theme)
        page.check("there", theme)
    page.tab.says("The gateway is away since")
    for view in ("now", "maps", "hosts"):
        page.tab.go(view)
        page.check("gateway away", view, theme)


@pytest.mark.parametrize("theme", THEMES)
def test_the_login_page(
    page: Checked, browser: Browser, shared_up: Up, tmp_path: Path, theme: str
) -> None:
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.call("Emulation.setEmulatedMedia", features=features)
    secret = tmp_path / "token"
    secret.write_text("a-token-of-twenty-characters", encoding="utf-8")
    secret.chmod(0o600)
    process = shared_up.house.start("api", "--port", "0", "--token-file", str(secret))
    assert process.stdout is not None
    url = process.stdout.readline().strip().removesuffix("/docs")
    page.tab.open(f"{url}/login")
    page.check("login", theme)
    page.tab.do("document.querySelector('#token').value = 'wrong'")
    page.tab.click("button[type=submit]")
    page.tab.says("not the gateway's token")
    page.check("wrong token", theme)
    browser.call("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize("theme", THEMES)
def test_a_real_cluster(page: Checked, house: House, theme: str) -> None:
    up = house.up()
    up.get("/map/double", "[13]")
    assert up.get("/jobs/slow", "[0.2, 0.2]")[0] == 202
    for width in WIDTHS:
        page.tab.size(width)
        show(page.tab, up.url, "now", theme)
        for view in ("now", "maps", "failures", "functions", "hosts"):
            page.tab.go(view)
            page.check(view, theme, width)
