"""The dashboard in a browser, on a real `jetmap up`: what it shows, what it does, and its keys."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from browser import Browser, Tab
from house import House, Up
from waiting import PATIENCE, wait_until_sync

VIEWS = ("now", "maps", "failures", "functions", "hosts")


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
    request.thread.join(PATIENCE)
    assert not request.thread.is_alive()


def cancel(tab: Tab) -> None:
    tab.go("maps")
    tab.click("tr[data-id] [data-ask^='cancel:']")
    tab.says("went out already")
    tab.click("[data-act=yes]")


def test_every_view_is_drawn_and_nothing_is_refused(shared_up: Up, tab: Tab) -> None:
    for view in VIEWS:
        tab.go(view)
        assert tab.do("document.title").endswith("· jetmap")
    tab.go("hosts")
    tab.says("JETMAP_WORK_default")
    tab.check_quiet(shared_up.url)
    assert tab.do("document.querySelectorAll('[style]').length") <= 3, "only of the canvas and tip"


def test_a_map_is_paused_limited_resumed_and_cancelled_with_the_pointer(
    shared_up: Up, tab: Tab, long_map: Request
) -> None:
    tab.go("maps")
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
    tab.go("now")
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
    tab.go("functions/double")
    tab.until("document.querySelector('form[data-run=double] [name=item]') !== null")
    tab.do("document.querySelector('[name=item]').value = '21'")
    tab.do("document.querySelector('[name=\"kwargs.plus\"]').value = '8'")
    tab.click("form[data-run=double] button")
    tab.until("document.querySelector('[aria-label=\"Its value\"]')?.textContent === '50'")
    tab.do("document.querySelector('[name=item]').value = '9007199254740993'")
    tab.click("form[data-run=double] button")
    tab.until(
        "document.querySelector('[aria-label=\"Its value\"]').textContent === '18014398509481994'"
    )


def test_failures_gather_by_cause(shared_up: Up, tab: Tab) -> None:
    for _ in range(3):
        assert shared_up.get("/map/double", "[1, 13]")[0] == 500
    tab.go("failures")
    tab.says("unlucky")
    tab.click("[data-act=open]")
    tab.says("--debug")
    tab.go("now")
    tab.says("Latest failures")


@pytest.mark.slow
def test_failed_items_of_a_job_run_again_from_both_of_their_places(shared_up: Up, tab: Tab) -> None:
    status, job = shared_up.get("/jobs/double", "[1, 13]")
    assert status == 202
    address = f"/jobs/{job['id']}"

    def has_failed(run: int) -> bool:
        found = shared_up.get(address)[1]
        return (found["run"], found["state"]) == (run, "failed")

    wait_until_sync(lambda: has_failed(1), "it has failed")
    tab.go("maps")
    tab.click(f"[data-ask='retry:{job['id']}']")
    tab.says("All others keep their outcomes")
    tab.click("[data-act=yes]")
    wait_until_sync(lambda: has_failed(2), "its second run has failed, too")
    tab.go("failures")
    tab.until("document.querySelector('[data-act=open]') !== null")
    tab.do(
        "document.querySelectorAll('[data-act=open][aria-expanded=false]').forEach(b => b.click())"
    )
    tab.click(f"[data-ask='retry:{job['id']}']")
    tab.click("[data-act=yes]")
    wait_until_sync(lambda: has_failed(3), "so has its third")
    assert shared_up.get(address)[1]["done"] == 2


@pytest.mark.slow
def test_a_function_and_the_pool_are_paused_limited_and_resumed(
    shared_up: Up, tab: Tab, long_map: Request
) -> None:
    tab.go("functions/slow")
    tab.click("[data-ask='limitfn:slow']")
    tab.do("document.querySelector('[data-field=limit]').value = '1'")
    tab.click("[data-act=yes]")
    tab.says("at most 1 core")
    tab.click("[data-ask='pausefn:slow']")
    tab.says("for all its callers?")
    tab.click("[data-act=yes]")
    tab.until("document.querySelector('[data-act=fnresume]') !== null")
    tab.go("maps")
    tab.says("its function to be resumed")
    tab.go("now")
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
    tab.go("functions/slow")
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


def post(up: Up, path: str) -> int:
    """Post nothing, as somebody else than the page does; return the status."""
    request = urllib.request.Request(up.url + path, b"", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def at_once(*calls: Callable[[], int]) -> list[int]:
    """Make these calls at the same time; return their answers, sorted."""
    begin = threading.Barrier(len(calls))

    def call(each: Callable[[], int]) -> int:
        begin.wait(PATIENCE)
        return each()

    with ThreadPoolExecutor(len(calls)) as pool:
        return sorted(pool.map(call, calls))


def test_two_people_who_click_at_once_both_see_how_it_ended(
    shared_up: Up, tab: Tab, long_map: Request
) -> None:
    tab.go("maps")
    tab.click("tr[data-id] [data-ask^='cancel:']")
    tab.says("went out already")
    [row] = shared_up.get("/maps")[1]
    cancelling = partial(post, shared_up, f"/maps/{row['id']}/cancel")
    assert at_once(cancelling, cancelling) == [204, 409], "one of them was faster"
    tab.until("document.querySelector('.ask') === null")
    its_row = f"document.querySelector('tr[data-id=\"{row['id']}\"]')?.innerText"
    tab.until(f"({its_row} ?? 'withdrawn').includes('withdrawn')")  # A short one is not kept.

    limit = "/functions/slow/limit?max_parallel="
    assert at_once(*(partial(post, shared_up, f"{limit}{n}") for n in (1, 2))) == [200, 200]
    [function] = shared_up.get("/pool")[1]["functions"]
    tab.go("functions/slow")
    tab.says(f"at most {function['max_parallel']} core")
    assert post(shared_up, "/functions/slow/limit") == 200

    job = shared_up.get("/jobs/double", "[1, 13]")[1]
    address = f"/jobs/{job['id']}"
    wait_until_sync(lambda: shared_up.get(address)[1]["state"] == "failed", "it has failed")
    answers = at_once(*[partial(post, shared_up, f"{address}/retry")] * 4)
    assert set(answers) <= {202, 409} and 202 in answers
    wait_until_sync(lambda: shared_up.get(address)[1]["state"] == "failed", "it has failed again")
    assert shared_up.get(address)[1]["run"] == 1 + answers.count(202), "each run was asked for"


@pytest.mark.slow
def test_a_job_that_is_deleted_while_it_is_looked_at_is_gone(shared_up: Up, tab: Tab) -> None:
    job = shared_up.get("/jobs/slow", json.dumps([0.2] * 2_000))[1]
    tab.go(f"map/{job['id']}")
    tab.says("Where the time of its chunks goes")
    request = urllib.request.Request(f"{shared_up.url}/jobs/{job['id']}", method="DELETE")
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.status == 204
    tab.until("/withdrawn|This map is gone/.test(document.body.innerText)")
    wait_until_sync(lambda: shared_up.busy == 0, "its cores are free")
    tab.go("maps")
    tab.click("[data-act=state][data-s=running]")
    tab.until("/No map matches|No map of more/.test(document.body.innerText)")
    tab.click("[data-act=state][data-s=all]")


@pytest.mark.slow
def test_the_page_goes_on_with_another_gateway_which_finds_old_jobs_in_the_store(
    tmp_path: Path, browser: Browser
) -> None:
    house = House(tmp_path)
    try:
        up = house.up()
        job = up.get("/jobs/double?labels=customer=7", "[1, 13, 2, 13]")[1]["id"]
        wait_until_sync(lambda: up.get(f"/jobs/{job}")[1]["state"] == "failed", "it has failed")
        tab = Tab(browser)
        tab.size(1280)
        tab.open(f"{up.url}/ui")
        tab.says("of 2")
        tab.do("jetmap.world.document.isOfTheFirst = true")
        up.child("api").kill()
        # Away is shown after a second, within which another one may have started.
        tab.until("!jetmap.world.document.isOfTheFirst")
        tab.until("!document.body.innerText.includes('The gateway is away since')")
        tab.says("live")
        tab.go("maps")
        tab.until(f"document.querySelector('tr[data-id=\"{job}\"]') !== null")
        tab.click("[data-act=state][data-s=ended]")
        tab.click(f"tr[data-id='{job}'] .label")
        tab.click(f"tr[data-id='{job}'] a[data-row]")
        tab.says("in the store")
        tab.until(
            "document.querySelector('[data-key=its-failures]')?.innerText.includes('unlucky')"
        )
        tab.says("items 1, 3")
        tab.click(f"[data-ask='retry:{job}']")
        tab.click("[data-act=yes]")
        wait_until_sync(lambda: up.get(f"/jobs/{job}")[1]["run"] == 2, "its next run")
        tab.go("map/0QK3ZM2T8V0000")
        tab.says("This map is gone")
        assert up.stop() == 0
    finally:
        house.close()


@pytest.mark.slow
def test_a_broker_that_is_away_is_named_and_nothing_can_be_done(
    tmp_path: Path, browser: Browser
) -> None:
    house = House(tmp_path)
    try:
        up = house.up()
        tab = Tab(browser)
        tab.open(f"{up.url}/ui")
        tab.says("of 2")
        up.child("nats-server").suspend()
        tab.until("document.querySelector('#link').textContent === 'Broker away'")
        tab.says("Below is the last that was known")
        tab.go("maps")
        assert tab.do("document.querySelectorAll('.acts button:not([disabled])').length") == 0
        up.child("nats-server").resume()
        tab.until("document.querySelector('#link').textContent !== 'Broker away'")
        assert up.stop() == 0
    finally:
        house.close()
