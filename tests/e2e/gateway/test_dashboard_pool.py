"""The dashboard of a made-up pool in Chromium: what a real one of two cores cannot show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from bench.page import VIEWS, gateway

from browser import Browser, Tab
from made_up_pool import EPOCH, FIRST, MadeUpPool, PlayedWatch, State
from waiting import wait_until_sync

JOB = "0QK3ZM2T8V0000"
# What reaches over the right edge of its panel, or of the page.
WIDER = """[...document.querySelectorAll('main > *, .panel *')].filter(e => {
  const { right, width } = e.getBoundingClientRect(), of = e.closest('.panel') ?? document.body
  const most = of.getBoundingClientRect().right + 1
  return width > 1 && right > most && e.closest('thead, svg, [hidden]') === null
}).map(e => e.outerHTML.slice(0, 80))"""
ROWS = "[...document.querySelectorAll('tr[data-id]')].map(row => row.dataset.id)"


@contextmanager
def shown(
    browser: Browser, state: State = "busy", view: str = "now"
) -> Iterator[tuple[Tab, PlayedWatch]]:
    """Show a pool in this state, of five seconds in each second."""
    watch = PlayedWatch(MadeUpPool(state=state))
    watch.step_seconds = 0.2
    with gateway(watch) as url:
        tab = Tab(browser)
        tab.size(1280)
        tab.open(f"{url}/ui#{view}")
        tab.until("document.querySelector('[data-key^=view-]') !== null")
        yield tab, watch
        tab.check_quiet(url)
        tab.open("about:blank")


def test_odd_names_are_text_and_a_job_may_go_while_it_is_looked_at(browser: Browser) -> None:
    """Times of day are those of the gateway, on a machine whose clock is wrong, too."""
    wrong = browser.call(
        "Page.addScriptToEvaluateOnNewDocument", source="Date.now = () => 86_400_000"
    )
    owner = "<img src=x onerror=refused.push(1)> & 'sons'"
    try:
        with shown(browser, "failing") as (tab, watch):
            watch.made_up.owner = owner
            tab.go(f"map/{JOB}")
            tab.says(owner)
            tab.says(time.strftime("since %H:", time.localtime(EPOCH + FIRST)))
            tab.says("page 7 has no <table> of items")
            tab.go("functions/constructor")
            tab.says("Make <b>one</b> & only one.")
            tab.go(f"map/{JOB}")
            tab.says("Where the time of its chunks goes")
            watch.made_up.removed = JOB
            tab.says("This map is gone")
            tab.size(2560, 1400)
            tab.says("This map is gone")
            assert tab.do("document.querySelectorAll('main img, main b b').length") == 0
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", **wrong)


@pytest.mark.slow
def test_the_time_of_a_gateway_that_is_away_is_its_own(browser: Browser) -> None:
    """The machine that shows the page may have a wrong clock."""
    wrong = browser.call(
        "Page.addScriptToEvaluateOnNewDocument", source="Date.now = () => 86_400_000"
    )
    try:
        watch = PlayedWatch(MadeUpPool())
        tab = Tab(browser)
        with gateway(watch) as url:
            tab.open(f"{url}/ui")
            tab.until("globalThis.jetmap?.world.document != null")
        tab.says("The gateway is away since")
        hour = time.strftime("%H:", time.localtime(EPOCH + FIRST))
        tab.says(f"The gateway is away since {hour}")
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", **wrong)
        tab.open("about:blank")


def test_maps_are_found_by_state_function_owner_and_label(browser: Browser) -> None:
    with shown(browser, view="maps") as (tab, _):
        tab.until(f"{ROWS}.length === 12")
        tab.click("[data-act=state][data-s=paused]")
        tab.until(f"{ROWS}.length === 1")
        assert tab.do(ROWS) == ["0QK3ZM2T8V0002"]
        tab.click("[data-act=state][data-s=all]")
        tab.click("tr[data-id='0QK3ZM2T8V0001'] .label")
        tab.until("document.querySelector('#find').value === 'customer:1'")
        tab.until(f"{ROWS}.length === 2")
        assert sorted(tab.do(ROWS)) == ["0QK3ZM2T8V0001", "0QK3ZM2T8V0008"]
        tab.fill("#find", "", "input")
        tab.until(f"{ROWS}.length === 12")
        tab.fill("select[data-act=fn]", "resize_image", "change")
        tab.until(f"{ROWS}.length < 12")
        assert sorted(tab.do(ROWS)) == ["0QK3ZM2T8V0001", "0QK3ZM2T8V0011"]
        tab.do("document.querySelector('#find').focus()")
        tab.press(*"web-2")
        tab.until(f"{ROWS}.length === 1")
        tab.press("Escape")
        tab.until(f"{ROWS}.length === 2")


def test_hosts_say_what_differs_what_died_and_why_none_starts(browser: Browser) -> None:
    with shown(browser, "failing", "hosts") as (tab, _):
        for text in (
            "0.9.1 differs",
            "cannot start",
            "41 SIGSEGV",
            "draining",
            "JETMAP_OUTCOMES_default",
            "6.71 GB of 8 GB, 84 %",
            "3 copies",
            "nats-1",
        ):
            tab.says(text)
        tab.go("now")
        tab.says("Workers on r00-n01 cannot start: ModuleNotFoundError")
        tab.says("The store of jobs is 84 % full")
        tab.says("4 without a worker")
        tab.go("functions/price_option")
        tab.says("r00-n00, ")
        tab.click("[data-act=hosts]")
        tab.until("document.querySelector('#find')?.value === '71d0a4b9'")
        tab.until("document.querySelectorAll('[data-key=hosts] tbody tr').length === 3")


def test_an_empty_pool_invites(browser: Browser) -> None:
    with shown(browser, "empty") as (tab, _):
        tab.says("jetmap worker tasks.py --nats nats://broker:4222")
        tab.says("seq 1000 | jetmap map FUNCTION")


@pytest.mark.slow
def test_an_action_is_under_way_until_an_announcement_confirms_it(browser: Browser) -> None:
    """A question that has become pointless goes."""
    with shown(browser, view="maps") as (tab, watch):
        row = "tr[data-id='0QK3ZM2T8V0001']"
        tab.click(f"{row} [data-act=pause]")
        tab.says("Pausing …")
        version = tab.do("jetmap.world.document.version")
        tab.until(f"jetmap.world.document.version > {version + 12}")
        assert watch.asked[-1] == ("pause", "0QK3ZM2T8V0001", 0)
        assert tab.do(f'document.querySelector("{row} [data-act=pause]") === null')
        watch.made_up.paused.add("0QK3ZM2T8V0001")
        tab.until(f'document.querySelector("{row} [data-act=resume]") !== null')
        tab.click(f"{row} [data-ask^='cancel:']")
        tab.says("went out already")
        watch.made_up.removed = "0QK3ZM2T8V0001"  # Somebody else was faster.
        tab.until("document.querySelector('.ask') === null")


@pytest.mark.slow
def test_all_tabs_share_one_stream_and_hidden_ones_need_none(browser: Browser) -> None:
    """A closed laptop costs nothing."""
    with shown(browser) as (tab, watch):
        url = tab.do("location.origin")
        seen = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true})"
        tab.do(seen % "false")  # Both are looked at, side by side.
        with browser.second_tab():
            other = Tab(browser)
            other.open(f"{url}/ui#maps")
            other.until(f"{ROWS}.length === 12")
            assert (watch.streams, watch.most_streams) == (1, 1)
        version = tab.do("jetmap.world.document.version")
        tab.until(f"jetmap.world.document.version > {version + 3}")
        assert (watch.streams, watch.most_streams) == (1, 1)
        changed = "document.dispatchEvent(new Event('visibilitychange'))"
        tab.do(f"{seen % 'true'}; {changed}")
        wait_until_sync(lambda: watch.streams == 0, "nobody looks")
        tab.do(f"{seen % 'false'}; {changed}")
        version = tab.do("jetmap.world.document.version")
        tab.until(f"jetmap.world.document.version > {version + 3}")
        assert watch.streams == 1


def test_without_scripts_the_page_is_tables(browser: Browser) -> None:
    watch = PlayedWatch(MadeUpPool())
    with gateway(watch) as url:
        tab = Tab(browser)
        browser.call("Emulation.setScriptExecutionDisabled", value=True)
        try:
            tab.open(f"{url}/ui")
            tab.says("Without scripts this page does not go on by itself")
            tab.says("0QK3ZM2T8V0000")
            assert watch.streams == 0
            for theme in ("light", "dark"):
                features = [{"name": "prefers-color-scheme", "value": theme}]
                browser.call("Emulation.setEmulatedMedia", features=features)
                assert tab.do("getComputedStyle(document.documentElement).colorScheme") == theme
        finally:
            browser.call("Emulation.setEmulatedMedia", features=[])
            browser.call("Emulation.setScriptExecutionDisabled", value=False)
            tab.open("about:blank")


SLOW = [pytest.param(width, marks=pytest.mark.slow) for width in (320, 768, 1200)]


@pytest.mark.parametrize("width", [390, 1100, *SLOW])
def test_no_view_is_wider_than_its_page(browser: Browser, width: int) -> None:
    with shown(browser, "failing") as (tab, _):
        tab.size(width, 800)
        for view in VIEWS:
            tab.go(view)
            seen = tab.do("jetmap.world.document.version")
            tab.until(f"jetmap.world.document.version > {seen + 1}")
            assert tab.do(WIDER) == [], view
            assert tab.do("document.documentElement.scrollWidth") <= width, view
        tab.size(1280)
