"""Every action of the dashboard with the keyboard alone, on a real `jetmap up`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from browser import Browser, Tab
from house import Up
from waiting import PATIENCE, wait_until_sync

MOST_TABS = 150  # Elements of a page that the Tab key may pass before the one that is wanted.
# The page has been told of the end of each map, so that the next test finds its own.
NONE_IS_OPEN = "jetmap.world.maps.every(map => map.ended != null)"


class Keyboard:
    """A page that is used without a pointer."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.tab = Tab(browser)
        self.tab.size(1280)
        self.tab.open(f"{url}/ui")
        self.tab.says("of 2")

    def reach(self, selector: str) -> None:
        """Press Tab until this element has the focus, and that is seen."""
        self.tab.until(f"document.querySelector({selector!r}) !== null")
        for _ in range(MOST_TABS):
            if self.tab.do(f"document.activeElement.matches({selector!r})"):
                break
            self.tab.press("Tab")
        else:
            raise AssertionError(f"{selector} is not reached")
        # A field has the browser's own ring or ours.
        outline = self.tab.do("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", selector

    def press(self, selector: str) -> None:
        """Reach a button or link, and press Enter on it."""
        self.reach(selector)
        self.tab.press("Enter")

    def type(self, selector: str, text: str) -> None:
        self.reach(selector)
        self.tab.do("document.activeElement.select()")
        self.tab.press(*text)

    def go(self, *keys: str) -> None:
        """Go to a view by its keys."""
        self.tab.press("Escape", *keys)


@pytest.fixture
def keys(browser: Browser, shared_up: Up) -> Keyboard:
    return Keyboard(browser, shared_up.url)


@pytest.fixture
def long_map(shared_up: Up) -> Iterator[list[int]]:
    """A map that takes minutes; its status once it has ended."""
    ended: list[int] = []
    thread = threading.Thread(
        target=lambda: ended.append(shared_up.get("/map/slow", json.dumps([0.2] * 2_000))[0])
    )
    thread.start()
    yield ended
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_map_is_steered_and_cancelled(keys: Keyboard, long_map: list[int]) -> None:
    tab = keys.tab
    keys.go("g", "m")
    keys.press("tr[data-id] [data-act=pause]")
    tab.says("to be resumed")
    keys.press("tr[data-id] [data-ask^='limit:']")
    keys.type("[data-field=limit]", "1")
    keys.press(".ask [data-act=yes]")
    tab.says("at most 1")
    keys.press("tr[data-id] [data-act=resume]")
    tab.says("its own limit")
    keys.press("tr[data-id] a[data-row]")
    tab.says("Where the time of its chunks goes")
    keys.press("[data-key=head] [data-ask^='cancel:']")
    tab.until("document.activeElement.dataset.act === 'no'")
    keys.press(".ask [data-act=yes]")
    wait_until_sync(lambda: long_map == [409], "it is cancelled")
    tab.press("Escape")
    tab.until("location.hash === '#maps'")
    tab.until(NONE_IS_OPEN)


def test_maps_are_filtered(keys: Keyboard, long_map: list[int]) -> None:
    tab = keys.tab
    tab.press("/")
    tab.until("document.activeElement.id === 'find'")
    tab.until("document.querySelector('tr[data-id]') !== null")
    tab.press(*"nothing")
    tab.says("No map matches")
    keys.press("[data-act=clear]")
    tab.until("document.querySelector('tr[data-id]') !== null")
    keys.press("[data-act=state][data-s=paused]")
    tab.says("No map matches")
    keys.press("[data-act=state][data-s=all]")
    keys.press("tr[data-id] [data-ask^='cancel:']")
    keys.press(".ask [data-act=yes]")
    wait_until_sync(lambda: long_map == [409], "it is cancelled")
    tab.until(NONE_IS_OPEN)


def test_failures_are_opened_and_run_again(keys: Keyboard, shared_up: Up) -> None:
    tab = keys.tab
    job = shared_up.get("/jobs/double", "[1, 13]")[1]["id"]
    wait_until_sync(lambda: shared_up.get(f"/jobs/{job}")[1]["state"] == "failed", "it has failed")
    keys.go("g", "f")
    keys.press("[data-act=open]")
    tab.says("--debug")
    keys.press(f"[data-ask='retry:{job}']")
    keys.press(".ask [data-act=yes]")
    wait_until_sync(lambda: shared_up.get(f"/jobs/{job}")[1]["run"] == 2, "its next run")


def test_a_function_and_the_pool_are_steered_and_an_item_runs(
    keys: Keyboard, shared_up: Up
) -> None:
    tab = keys.tab
    keys.go("g", "u")
    keys.press("a[data-row][href='#functions/double']")
    keys.press("[data-ask='limitfn:double']")
    keys.type("[data-field=limit]", "1")
    keys.press(".ask [data-act=yes]")
    tab.says("at most 1 core")
    keys.press("[data-ask='pausefn:double']")
    keys.press(".ask [data-act=yes]")
    keys.press("[data-act=fnresume]")
    keys.press("[data-ask='limitfn:double']")
    tab.until("document.querySelector('[data-field=limit]')?.value === '1'")
    keys.reach("[data-field=limit]")
    tab.do("document.activeElement.select()")
    tab.press("Backspace")
    keys.press(".ask [data-act=yes]")
    wait_until_sync(lambda: shared_up.get("/pool")[1]["functions"] == [], "nothing holds it")
    keys.type("[name=item]", "21")
    keys.press("form[data-run=double] button")
    tab.until("document.querySelector('[aria-label=\"Its value\"]')?.textContent === '42'")
    keys.press("[data-act=hosts]")
    tab.until("document.querySelectorAll('[data-key=hosts] tbody tr').length === 1")

    keys.go("g", "n")
    keys.press("[data-ask='pausepool:']")
    keys.press(".ask [data-act=yes]")
    tab.says("The pool is paused.")
    keys.press("[data-act=pool]")
    tab.until("document.querySelector(\"[data-ask='pausepool:']\") !== null")
    keys.press("[data-act=spot]")
    tab.until("document.querySelector('[data-act=spot][aria-pressed=true]') !== null")
    tab.press("Escape")
    tab.until("document.querySelector('[data-act=spot][aria-pressed=true]') === null")
    keys.reach("canvas[data-cells]")
    tab.press("ArrowRight", "Enter")
    tab.until("location.hash === '#hosts'")


def test_a_question_that_is_dropped_gives_the_focus_back(
    keys: Keyboard, long_map: list[int], shared_up: Up
) -> None:
    """To the button that asked, in its own row, or to the row on which a key was pressed."""
    second: list[int] = []
    thread = threading.Thread(
        target=lambda: second.append(shared_up.get("/map/slow", json.dumps([0.2] * 2_000))[0])
    )
    thread.start()
    tab = keys.tab
    keys.go("g", "m")
    tab.until("document.querySelectorAll('tr[data-id] [data-key=cancel]').length === 2")
    row = "tr:has([data-key=cancel]) a[data-row]"
    second_row = "tr[data-id]:nth-of-type(2) [data-key=cancel]"
    asked = tab.do(f"document.querySelector({second_row!r}).dataset.ask")
    keys.press(f"[data-ask='{asked}']")  # Which row is the second may change.
    tab.until("document.activeElement.dataset.act === 'no'")
    tab.press("Escape")
    tab.until(f"document.activeElement.dataset.ask === {asked!r}")
    keys.reach(row)
    wanted = tab.do("document.activeElement.hash")
    tab.press("c")
    tab.until("document.activeElement.dataset.act === 'no'")
    tab.press("Escape")
    tab.until(f"document.activeElement.hash === {wanted!r}")
    for ended in (1, 2):
        keys.press("tr[data-id] [data-key=cancel]")
        keys.press(".ask [data-act=yes]")
        wait_until_sync(lambda: len(long_map) + len(second) == ended, "it is cancelled")  # noqa: B023
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert long_map + second == [409, 409]
    tab.until(NONE_IS_OPEN)


def test_a_question_stays_while_the_address_comes_to_name_the_same(keys: Keyboard) -> None:
    """A link is followed later than the key after it is read; other addresses drop the question."""
    tab = keys.tab
    keys.go("g", "u")
    keys.reach("a[data-row][href='#functions/double']")
    follow = """new Promise(resolve => {
  addEventListener('hashchange', () => resolve(), { once: true })
  document.querySelector("a[data-row][href='#functions/%s']").click()
  document.querySelector("[data-ask='limitfn:double']").click()
})"""
    tab.do(follow % "double")
    assert tab.do("document.activeElement.dataset.field") == "limit"
    tab.press("Escape")
    tab.do(follow % "slow")
    tab.until("document.querySelector('[data-ask=\"limitfn:slow\"]') !== null")
    assert tab.do("document.querySelector('.ask')") is None


# A page is drawn thrice; what has the focus is in both, at another place among others.
DRAWINGS = {
    "a banner that goes": (
        "<p data-key=banner>Away</p><div data-key=view><button id=b>B</button></div>",
        "<div data-key=view><button id=b>B</button></div>",
    ),
    "a word that goes": (
        "<h2>Name</h2><span>paused</span><div data-key=acts><button id=b>B</button></div>",
        "<h2>Name</h2><div data-key=acts><button id=b>B</button></div>",
    ),
    "rows in another order": (
        "<p data-key=1>1</p><p data-key=2>2</p><p data-key=3><button id=b>B</button></p>"
        "<p data-key=4>4</p>",
        "<p data-key=5>5</p><p data-key=3><button id=b>B</button></p><p data-key=4>4</p>"
        "<p data-key=2>2</p><p data-key=1>1</p>",
    ),
    "buttons before it": (
        "<button data-key=cancel id=b>Cancel</button>",
        "<button data-key=steer>Pause</button><button data-key=limit>Limit</button>"
        "<button data-key=cancel id=b>Cancel</button>",
    ),
}


@pytest.mark.parametrize("before, after", DRAWINGS.values(), ids=list(DRAWINGS))
def test_what_is_drawn_anew_keeps_the_focus(keys: Keyboard, before: str, after: str) -> None:
    script = """(async () => {
  const { draw, h } = await import(document.documentElement.dataset.root + '/assets/ui/dom.js')
  const place = document.body.appendChild(document.createElement('div')), seen = []
  for (const html of [%s]) {
    const fresh = Object.assign(document.createElement('div'), { innerHTML: html })
    draw(place, Object.assign(h``, { text: html }))
    if (!seen.length) place.querySelector('#b').focus()
    seen.push([place.isEqualNode(fresh), document.activeElement.id])
  }
  place.remove()
  return seen
})()"""
    seen = keys.tab.do(script % ", ".join(json.dumps(html) for html in (before, after, before)))
    assert seen == [[True, "b"]] * 3


def test_themes_help_and_the_content_are_reached(keys: Keyboard) -> None:
    tab = keys.tab
    keys.press(".skip")
    theme = tab.do("document.documentElement.dataset.theme")
    keys.press("[data-act=theme]")
    tab.until(f"document.documentElement.dataset.theme !== '{theme}'")
    keys.press("[data-act=help]")
    tab.until("document.querySelector('#help').open")
    keys.press("#help button")
    tab.until("!document.querySelector('#help').open")
    keys.press("[data-act=theme]")
    for name in ("maps", "failures", "functions", "hosts", "now"):
        keys.press(f"nav a[href='#{name}']")
        tab.until(f"document.querySelector('[data-key=view-{name}]') !== null")
