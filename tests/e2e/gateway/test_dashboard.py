"""The dashboard in a browser, on a real `jetmap up`: what it shows, what it does, and its keys."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.page import gateway

import jetmap_api
from browser import CHROMIUM, Browser, Tab
from house import House, Up
from made_up_pool import EPOCH, FIRST, MadeUpPool, PlayedWatch
from tools import need_tool
from waiting import wait_until_sync

UI = Path(jetmap_api.__file__).parent / "static" / "ui"
VIEWS = ("now", "maps", "failures", "functions", "hosts")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(need_tool(*CHROMIUM), tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def tab(browser: Browser, shared_up: Up) -> Tab:
    tab = Tab(browser)
    tab.size(1280)
    tab.open(f"{shared_up.url}/ui")
    tab.says("2 of 2" if shared_up.busy == 2 else "of 2")
    return tab


class Request:
    """A request in a thread of its own; ``status`` and ``answer`` once it has ended."""

    def __init__(self, up: Up, path: str, body: str) -> None:
        self.status = 0
        self.answer: Any = None

        def ask() -> None:
            self.status, self.answer = up.get(path, body)

        self.thread = threading.Thread(target=ask)
        self.thread.start()


@pytest.fixture
def long_map(shared_up: Up) -> Iterator[Request]:
    """A map that takes minutes, unless it is cancelled."""
    request = Request(shared_up, "/map/slow", json.dumps([0.2] * 2_000))
    yield request
    request.thread.join(30)
    assert not request.thread.is_alive()


def go(tab: Tab, view: str) -> None:
    tab.do(f"location.hash = '#{view}'")
    tab.until(f"document.querySelector('[data-key=\"view-{view.split('/')[0]}\"]') !== null")


def cancel(tab: Tab) -> None:
    go(tab, "maps")
    tab.click("tr[data-id] [data-ask^='cancel:']")
    tab.says("went out already")
    tab.click("[data-act=yes]")


def test_every_view_is_drawn_and_nothing_is_refused(shared_up: Up, tab: Tab) -> None:
    for view in VIEWS:
        go(tab, view)
        assert tab.do("document.title").endswith("· jetmap")
    go(tab, "hosts")
    tab.says("JETMAP_WORK_default")
    tab.check_quiet(shared_up.url)
    assert tab.do("document.querySelectorAll('[style]').length") <= 3, "only of the canvas and tip"


def test_a_map_is_paused_limited_resumed_and_cancelled_with_the_pointer(
    shared_up: Up, tab: Tab, long_map: Request
) -> None:
    go(tab, "maps")
    tab.click("tr[data-id] [data-act=pause]")
    tab.says("to be resumed")
    tab.click("tr[data-id] [data-ask^='limit:']")
    tab.do("document.querySelector('[data-field=limit]').value = '1'")
    tab.click("[data-act=yes]")
    tab.says("at most 1")
    tab.click("tr[data-id] [data-act=resume]")
    tab.says("its own limit")
    tab.click("tr[data-id] a[data-row]")
    tab.says("Where the time of its chunks goes")
    tab.says("holds it back")
    tab.says("Slowest items")
    cancel(tab)
    wait_until_sync(lambda: long_map.status != 0, "its caller has an answer")
    assert (long_map.status, long_map.answer["type"]) == (409, "urn:jetmap:map-cancelled")
    tab.says("withdrawn")
    wait_until_sync(lambda: shared_up.busy == 0, "its cores are free")


def test_a_map_is_cancelled_with_the_keyboard_alone(tab: Tab, long_map: Request) -> None:
    go(tab, "now")
    tab.do("document.activeElement?.blur()")
    tab.press("g", "m")
    tab.until("document.querySelectorAll('tr[data-id] [data-ask]').length > 0")
    tab.press("j", "c")
    tab.until("document.activeElement?.dataset.act === 'no'")
    tab.press("Escape")
    tab.until("document.querySelector('.ask') === null")
    assert long_map.status == 0, "the safe answer leaves it as it is"
    tab.press("c")
    tab.until("document.activeElement?.dataset.act === 'no'")
    tab.do("document.querySelector('[data-act=yes]').focus()")
    tab.press("Enter")
    wait_until_sync(lambda: long_map.status == 409, "it is cancelled")
    tab.press("?")
    tab.until("document.querySelector('#help').open")
    tab.press("Escape")


def test_one_item_runs_from_the_form_of_its_schema(tab: Tab) -> None:
    go(tab, "functions/double")
    tab.until("document.querySelector('form[data-run=double] [name=item]') !== null")
    tab.do("document.querySelector('[name=item]').value = '21'")
    tab.do("document.querySelector('[name=\"kwargs.plus\"]').value = '8'")
    tab.click("form[data-run=double] button")
    tab.until("document.querySelector('[aria-label=\"Its value\"]')?.textContent === '50'")


def test_failures_gather_by_cause(shared_up: Up, tab: Tab) -> None:
    for _ in range(3):
        assert shared_up.get("/map/double", "[1, 13]")[0] == 500
    go(tab, "failures")
    tab.says("unlucky")
    tab.click("[data-act=open]")
    tab.says("--debug")
    go(tab, "now")
    tab.says("Latest failures")


def test_failed_items_of_a_job_run_again_from_both_of_their_places(shared_up: Up, tab: Tab) -> None:
    status, job = shared_up.get("/jobs/double", "[1, 13]")
    assert status == 202
    address = f"/jobs/{job['id']}"

    def has_failed(run: int) -> bool:
        found = shared_up.get(address)[1]
        return (found["run"], found["state"]) == (run, "failed")

    wait_until_sync(lambda: has_failed(1), "it has failed")
    go(tab, "maps")
    tab.click(f"[data-ask='retry:{job['id']}']")
    tab.says("All others keep their outcomes")
    tab.click("[data-act=yes]")
    wait_until_sync(lambda: has_failed(2), "its second run has failed, too")
    go(tab, "failures")
    tab.until("document.querySelector('[data-act=open]') !== null")
    tab.do(
        "document.querySelectorAll('[data-act=open][aria-expanded=false]').forEach(b => b.click())"
    )
    tab.click(f"[data-ask='retry:{job['id']}']")
    tab.click("[data-act=yes]")
    wait_until_sync(lambda: has_failed(3), "so has its third")
    assert shared_up.get(address)[1]["done"] == 2


def test_a_function_and_the_pool_are_paused_limited_and_resumed(
    shared_up: Up, tab: Tab, long_map: Request
) -> None:
    go(tab, "functions/slow")
    tab.click("[data-ask='limitfn:slow']")
    tab.do("document.querySelector('[data-field=limit]').value = '1'")
    tab.click("[data-act=yes]")
    tab.says("at most 1 core")
    tab.click("[data-ask='pausefn:slow']")
    tab.says("for all its callers?")
    tab.click("[data-act=yes]")
    tab.until("document.querySelector('[data-act=fnresume]') !== null")
    go(tab, "maps")
    tab.says("its function to be resumed")
    go(tab, "now")
    tab.says("slow is paused: 1 map of it waits until its timeout")
    tab.click("[data-ask='pausepool:']")
    tab.click("[data-act=yes]")
    tab.says("The pool is paused.")
    wait_until_sync(lambda: shared_up.busy == 0, "what was out has ended")
    expected = {
        "name": "slow",
        "paused": True,
        "max_parallel": 1,
        "max_parallel_in_code": None,
    }
    pool = shared_up.get("/pool")[1]
    assert (pool["paused"], pool["functions"]) == (True, [expected])
    tab.click("[data-act=pool]")
    tab.until("document.querySelector(\"[data-ask='pausepool:']\") !== null")
    go(tab, "functions/slow")
    tab.click("[data-act=fnresume]")
    tab.click("[data-ask='limitfn:slow']")
    tab.do("document.querySelector('[data-field=limit]').value = ''")
    tab.click("[data-act=yes]")
    wait_until_sync(lambda: shared_up.busy == 2, "it goes on, on all cores")
    assert shared_up.get("/pool")[1]["functions"] == []
    cancel(tab)


def test_a_theme_is_kept_and_a_narrow_page_has_its_tabs_at_the_bottom(
    shared_up: Up, tab: Tab
) -> None:
    before = tab.do("document.documentElement.dataset.theme")
    tab.do("document.activeElement?.blur()")
    tab.press("t")
    tab.until(f"document.documentElement.dataset.theme !== '{before}'")
    tab.size(390, 844)
    tab.open(f"{shared_up.url}/ui#hosts")
    tab.says("JETMAP_WORK_default")
    assert tab.do("document.documentElement.dataset.theme") != before
    assert tab.do("document.documentElement.scrollWidth") <= 390
    assert tab.do("document.querySelector('nav').getBoundingClientRect().bottom") == 844
    tab.size(1280)
    tab.press("t")


def run_modules(place: Path, script: str, *modules: str) -> None:
    """Run a script beside these modules of the page, without a browser."""
    node = need_tool("node")
    (place / "package.json").write_text('{"type": "module"}')
    for name in modules:
        shutil.copy(UI / name, place)
    (place / "test.js").write_text(script)
    done = subprocess.run([node, "test.js"], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_each_core_of_a_large_pool_is_a_square_of_its_state(tmp_path: Path) -> None:
    """A host of 30 cores has a last line that is not full."""
    script = """
import assert from 'node:assert'
const names = []
const colour = name => {
  if (!names.includes(name)) names.push(name)
  return `#${100000 + names.indexOf(name)}`
}
const nothing = { createElement: () => nothing, querySelector: () => nothing }
Object.assign(globalThis, {
  innerHeight: 900, document: nothing,
  getComputedStyle: () => ({ getPropertyValue: colour }),
  ImageData: class { constructor(w, h) { this.data = new Uint8ClampedArray(w * h * 4) } },
})
const { readColours, layoutCells, paintCells, IDLE } = await import('./charts.js')
readColours()
globalThis.devicePixelRatio = 1
const getContext = () => new Proxy({}, { get: () => () => {}, set: () => true })
const sizes = [[1000, 64, 1200], [1000, 64, 390], [300, 30, 1200]]
for (const [hosts, cores, clientWidth] of sizes) for (const spot of [-1, 2]) {
  const states = [0, 2, 5, IDLE]
  const cells = Uint8Array.from({ length: hosts * cores }, (_, i) => states[i * 7919 % 4])
  const host = (_, i) => ({ first: i * cores, cores, state: 'up' })
  const world = { cells, perHost: cores, hosts: Array.from({ length: hosts }, host) }
  const canvas = { clientWidth, style: {}, getContext }
  const at = layoutCells(canvas, world)
  assert(at.tiny)
  paintCells(canvas, world, at, { spot, host: -1 })
  const found = new Map()
  for (const pixel of canvas.pixels) if (pixel) found.set(pixel, (found.get(pixel) ?? 0) + 1)
  const side = at.cell > 5 ? at.cell - 1 : at.cell
  const quarter = hosts * cores / 4 * side * side
  const expected = spot < 0 ? Array(4).fill(quarter) : [quarter, 3 * quarter]
  assert.deepEqual([...found.values()].sort((a, b) => a - b), expected, `${hosts}, ${spot}`)
}
"""
    run_modules(tmp_path, script, "charts.js", "dom.js")


def test_the_stream_is_applied_as_the_view_is_made(tmp_path: Path) -> None:
    """Names are users': a function may be called like a part of JavaScript's objects."""
    script = """
import { apply } from './feed.js'
import assert from 'node:assert'
const d = { maps: JSON.parse('{"constructor": {"done": 1}}'), totals: { rate: 1 }, history: [] }
apply(d, JSON.parse('{"maps": {"__proto__": {"done": 2}, "constructor": null}, "now": 5}'))
assert.deepEqual(Object.keys(d.maps), ['__proto__'])
assert.equal(Object.values(d.maps)[0].done, 2)
assert.equal(d.now, 5)
for (let i = 0; i < 200; i++) apply(d, { now: i, totals: { rate: i } })
assert.equal(d.history.length, 120)
assert.equal(d.history[119][0], 199)
"""
    run_modules(tmp_path, script, "feed.js")


def test_odd_names_are_text_and_a_job_may_go_while_it_is_looked_at(browser: Browser) -> None:
    """Times of day are those of the gateway, on a machine whose clock is wrong, too."""
    made_up = MadeUpPool(state="failing")
    made_up.owner = "<img src=x onerror=refused.push(1)> & 'sons'"
    watch = PlayedWatch(made_up)
    watch.step_seconds = 0.2
    job = "0QK3ZM2T8V0000"
    wrong = browser.call(
        "Page.addScriptToEvaluateOnNewDocument", source="Date.now = () => 86_400_000"
    )
    try:
        with gateway(watch) as url:
            tab = Tab(browser)
            tab.open(f"{url}/ui#map/{job}")
            tab.says(made_up.owner)
            tab.says(time.strftime("since %H:", time.localtime(EPOCH + FIRST)))
            tab.says("page 7 has no <table> of items")
            go(tab, "functions/constructor")
            tab.says("Make <b>one</b> & only one.")
            go(tab, f"map/{job}")
            tab.says("Where the time of its chunks goes")
            made_up.removed = job
            tab.says("This map is gone")
            assert tab.do("document.querySelectorAll('main img, main b b').length") == 0
            tab.check_quiet(url)
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", **wrong)


@pytest.mark.slow
def test_the_page_goes_on_with_another_gateway_at_its_address(
    tmp_path: Path, browser: Browser
) -> None:
    house = House(tmp_path)
    try:
        up = house.up()
        tab = Tab(browser)
        tab.open(f"{up.url}/ui")
        tab.says("of 2")
        up.child("api").kill()
        tab.says("The gateway is away since")
        tab.until("!document.body.innerText.includes('The gateway is away since')")
        tab.says("live")
        up.child("nats-server").suspend()
        tab.until("document.querySelector('#link').textContent === 'Broker away'")
        go(tab, "maps")
        assert tab.do("document.querySelectorAll('.acts button:not([disabled])').length") == 0
        up.child("nats-server").resume()
        tab.until("document.querySelector('#link').textContent !== 'Broker away'")
        assert up.stop() == 0
    finally:
        house.close()


@pytest.mark.slow
def test_axe_finds_no_violation_in_any_view(
    tmp_path: Path, shared_up: Up, tab: Tab, long_map: Request
) -> None:
    npm = need_tool("npm")
    subprocess.run(
        [npm, "install", "--silent", "--no-fund", "axe-core@4"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=50,
    )
    axe = (tmp_path / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")
    shared_up.get("/map/double", "[13]")
    tab.open(f"{shared_up.url}/ui")  # The last test has left the page at a gateway that is gone.
    tab.says("of 2")
    for width in (390, 1280, 2560):
        tab.size(width)
        tab.do("document.querySelector('[data-act=theme]').click()")
        for view in VIEWS:
            go(tab, view)
            tab.do(axe)
            found = tab.do("axe.run().then(r => r.violations.map(v => v.id + v.nodes[0].html))")
            assert found == [], (width, view, found)
    tab.size(1280)
    cancel(tab)
