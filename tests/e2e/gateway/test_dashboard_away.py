"""The dashboard where a gateway hangs, a broker is away, a login ends, or a request fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from browser import Browser, Tab
from dashboard import FOCUS, FORM, ITEM, POSTS, Dashboard

# A second of the page's patience is 200 ms, in a stream of its own.
QUICK = """
globalThis.SharedWorker = undefined
const timeout = AbortSignal.timeout.bind(AbortSignal)
for (const name of ['setInterval', 'setTimeout']) {
  const set = globalThis[name]
  globalThis[name] = (what, ms) => set(what, ms / 5)
}
AbortSignal.timeout = ms => timeout(ms / 5)
"""
PAUSE = "tr[data-id='0QK3ZM2T8V0001'] [data-act=pause]"


@pytest.fixture
def quick(browser: Browser, dashboard: Dashboard) -> Iterator[Dashboard]:
    """A page that loses its patience five times as fast."""
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source=QUICK)
    dashboard.watch.step_seconds = 0.1
    yield dashboard
    dashboard.watch.step_seconds = 0.2
    browser.call("Page.removeScriptToEvaluateOnNewDocument", **script)


def click_enabled(tab: Tab, selector: str) -> None:
    """Click a button, which is off while a busy machine's stream seems to be silent."""
    tab.until(f'(b => b && !b.disabled && (b.click(), true))(document.querySelector("{selector}"))')


def test_a_gateway_that_hangs_is_away_until_it_goes_on(
    quick: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab, goes_on, step = quick.open("maps"), threading.Event(), quick.watch.step

    def wait() -> dict[str, object]:
        goes_on.wait()
        return step()

    monkeypatch.setattr(quick.watch, "step", wait)
    try:
        tab.says("The gateway is away since")
        assert tab.do("document.querySelectorAll('.acts button:not([disabled])').length") == 0
    finally:
        goes_on.set()
    tab.until("document.querySelector('.banner') === null")
    quick.pass_time()


def test_an_action_that_is_not_answered_is_given_up(quick: Dashboard) -> None:
    tab = quick.open("maps")
    tab.do(POSTS)
    click_enabled(tab, PAUSE)
    tab.says("It is not known whether anything was changed")
    tab.until(f'document.querySelector("{PAUSE}") !== null')
    assert tab.do("posts.length") == 1


def test_a_login_that_ends_leaves_what_is_typed(quick: Dashboard) -> None:
    """The page goes on once somebody has logged in elsewhere; without anything typed it leaves."""
    tab = quick.open("functions/parse_invoice")
    tab.until(f"{FORM} !== null")
    tab.do("""
window.login = 401
window.real = fetch
window.fetch = (address, options) => /session|map/.test(address)
  ? Promise.resolve(new Response(login === 200 ? '[1]' : '{}', { status: login }))
  : real(address, options)
""")
    tab.do(f"{ITEM}.value = '[1, 2]'")
    click_enabled(tab, "form .go")
    tab.says("Your login session is over")
    login = tab.do("document.querySelector('.banner a').getAttribute('href')")
    assert login == "/login?next=%2Fui%23functions%2Fparse_invoice"
    assert tab.do(f"[{ITEM}.value, {FORM}.querySelector('.go').disabled]") == ["[1, 2]", True]
    tab.do("window.login = 200")
    tab.until("document.querySelector('.banner') === null")
    click_enabled(tab, "form .go")
    tab.until("document.querySelector('[aria-label=\"Its value\"]').textContent === '1'")
    tab.do("window.login = 401; location.hash = '#map/0QK3ZM2T8V0000'")
    tab.until("window.real === undefined")  # A gateway without a token leads back at once.


def test_a_traceback_that_cannot_be_had_is_asked_for_again(dashboard: Dashboard) -> None:
    dashboard.watch.made_up.state = "failing"
    tab = dashboard.open("failures")
    tab.until("document.querySelector('[data-act=open]') !== null")
    tab.do("window.real = fetch; window.fetch = () => Promise.reject(new TypeError('away'))")
    tab.click("[data-act=open]")
    tab.says("The gateway did not answer")
    tab.do("window.fetch = real")
    tab.click("[data-act=open]")
    tab.click("[data-act=open]")
    tab.says("--debug")


def test_what_cannot_be_done_now_is_not_offered_and_is_said_once(dashboard: Dashboard) -> None:
    tab = dashboard.open("maps")
    tab.click("[data-key=cancel]")
    tab.until(f"{FOCUS}.dataset.act === 'no'")
    dashboard.watch.made_up.state = "away"
    tab.says("The broker is away since")
    assert tab.do("document.querySelector('.ask [data-act=yes]').disabled")
    script = """const all = { subtree: true, characterData: true, childList: true }
window.changes = { status: 0, quiet: 0 }
for (const place of ['[role=status]', '.quiet']) new MutationObserver(list => {
  changes[place === '.quiet' ? 'quiet' : 'status'] += list.length
}).observe(document.querySelector(`.banner ${place}`), all)"""
    tab.do(script)
    tab.until("changes.quiet > 4")
    assert tab.do("changes.status") == 0


def test_a_text_is_copied_without_the_browsers_clipboard(dashboard: Dashboard) -> None:
    tab = dashboard.open("now")
    tab.do("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    script = """(async () => {
  const from = name => import(`${document.documentElement.dataset.root}/assets/ui/${name}.js`)
  const { draw, h } = await from('dom'), text = 'jetmap worker'
  const place = document.body.appendChild(document.createElement('div'))
  draw(place, h`<pre>${text}</pre><button data-act="copy" data-text="${text}">Copy</button>`)
  place.querySelector('button').click()
})()"""
    tab.do(script)
    tab.until("/Copied|The text is selected/.test(document.querySelector('#said').textContent)")
    assert tab.do("String(getSelection())") == "jetmap worker"


@contextmanager
def without(dashboard: Dashboard, name: str) -> Iterator[None]:
    """Open the page while this file of it does not come."""
    call = dashboard.browser.call
    call("Network.enable")
    call("Network.setBlockedURLs", urls=[f"*{name}"])
    try:
        dashboard.tab.open(f"{dashboard.url}/ui#maps")
        yield
    finally:
        call("Network.setBlockedURLs", urls=[])


@pytest.mark.parametrize("name", ["world.js", "ui.css"])
def test_a_page_whose_files_do_not_all_come_is_loaded_again(
    dashboard: Dashboard, name: str
) -> None:
    """A browser gives up what it loads when this machine's network changes."""
    tab = dashboard.tab
    tab.open(f"{dashboard.url}/commands")  # Of the same origin.
    tab.do("sessionStorage.clear()")
    with without(dashboard, name):
        tab.until("Number(sessionStorage.getItem('jetmap loads')) >= 1")
    tab.until("document.querySelector('[data-key=view-maps]') !== null")
    tab.until("[...document.styleSheets].some(sheet => sheet.href.endsWith('ui.css'))")
    tab.until("sessionStorage.getItem('jetmap loads') === null")


def test_a_page_whose_files_never_come_says_so(dashboard: Dashboard) -> None:
    tab = dashboard.tab
    tab.open(f"{dashboard.url}/commands")
    tab.do("sessionStorage.setItem('jetmap loads', '5')")
    with without(dashboard, "world.js"):
        tab.says("did not come: load the page again")
    tab.do("sessionStorage.clear(); window.refused = []")
