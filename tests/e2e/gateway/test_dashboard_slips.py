"""The dashboard under hands that slip, hurry, or have only a keyboard."""

from __future__ import annotations

from dashboard import ASKED, FOCUS, FORM, ITEM, POSTS, ROWS, Dashboard
from jetmap import bounds
from jetmap.wire.controls import PoolControl
from waiting import wait_until_sync

# A key, with no time for the page to change before what it does is looked at.
KEY = "document.dispatchEvent(new KeyboardEvent('keydown', { key: '%s' }))"
IN_ROW = f"{FOCUS}.closest('tr')?.dataset.id"
# The store of jobs, whose answer on `shop:1` is held back.
STORE = """
window.real = fetch
window.held = new Map([['shop=1', []]])
window.fetch = (address, options) => {
  if (!String(address).includes('/jobs?')) return real(address, options)
  const wanted = new URL(address, location).searchParams.get('labels') ?? ''
  const made = [['A', { region: 'new york' }], ['B', { shop: '1' }], ['C', { shop: '12' }]]
  const has = labels => Object.entries(labels).some(p => ['', p.join('=')].includes(wanted))
  const jobs = made.filter(([, labels]) => has(labels))
    .map(([name, labels]) => ({ id: `JOB-${name}`, function: 'geocode', state: 'failed', total: 9,
      done: 9, failed: 1, created: '2026-02-02T00:00:00Z', started: '2026-02-02T00:00:00Z',
      finished: '2026-02-02T00:01:00Z', labels }))
  const answer = () => new Response(JSON.stringify({ jobs, next: null }))
  const waiting = held.get(wanted)
  return new Promise(done => waiting ? waiting.push(() => done(answer())) : done(answer()))
}
"""
JOBS = f"{ROWS}.filter(id => id.startsWith('JOB')).join()"


def test_a_limit_that_is_mistyped_changes_nothing(dashboard: Dashboard) -> None:
    tab, id = dashboard.open("maps"), "0QK3ZM2T8V0003"
    dashboard.focus(f"tr[data-id='{id}'] [data-key=limit]")
    tab.press("Enter")
    tab.until(f"{FOCUS}.dataset.field === 'limit'")
    assert tab.do(f"{FOCUS}.max") == str(bounds.PARALLEL.most)
    for typed in ("1e", "-5", "0.5", "2000000"):
        tab.do(f"{FOCUS}.select()")
        tab.press("Backspace", *typed, "Enter")
        assert tab.do(f"[{ASKED}, {FOCUS}.validity.valid]") == [1, False], typed
        tab.click(".ask [data-act=yes]")
        assert tab.do(ASKED) == 1, typed
    dashboard.focus("[data-field=limit]")
    tab.do(f"{FOCUS}.select()")
    tab.press("Backspace", "7", "Enter")
    wait_until_sync(dashboard.acts, "it is set")
    dashboard.pass_time()
    assert dashboard.acts() == [("limit", id, 7)]


def test_one_item_runs_once_until_it_is_answered_or_left(dashboard: Dashboard) -> None:
    tab = dashboard.open("functions/parse_invoice")
    tab.until(f"{FORM} !== null")
    tab.do(f"{POSTS}; {ITEM}.value = '[\"a\", 9007199254740993]'")
    tab.do(f"for (const _ of [1, 2, 3]) {FORM}.querySelector('.go').click()")
    dashboard.focus("form [name='kwargs.language']")
    tab.hold("Enter", 5)
    assert tab.do("posts.map(post => post[1])") == ['[["a", 9007199254740993]]']
    tab.do('posts[0][2](\'[{"sum": 9007199254740993, "of": []}]\')')
    tab.says('"sum": 9007199254740993,')
    tab.hold("Enter", 5)
    assert tab.do("posts.length") == 2, "the key that is held runs nothing"
    tab.click("[data-act=leave]")
    tab.says("Nobody waits for it any more")
    tab.press("Enter")
    assert tab.do("posts.length") == 3


def test_the_content_is_reached_in_the_view_that_is_shown(dashboard: Dashboard) -> None:
    tab = dashboard.open("maps")
    dashboard.focus(".skip")
    tab.press("Enter")
    assert tab.do(f"[location.hash, {FOCUS}.id]") == ["#maps", "main"]


def test_keys_after_the_one_for_the_filter_are_text(dashboard: Dashboard) -> None:
    tab = dashboard.open("map/0QK3ZM2T8V0001")
    tab.do(f"{FOCUS}.blur()")
    tab.press("/", *"page")
    assert tab.do(f"[location.hash, {FOCUS}.id, {FOCUS}.value]") == ["#maps", "find", "page"]
    tab.until(f"{ROWS}.length === 1")
    dashboard.pass_time()
    assert tab.do(f"[location.hash, {FOCUS}.value]") == ["#maps", "page"]
    assert dashboard.acts() == []


def test_the_focus_stays_where_the_buttons_were(dashboard: Dashboard) -> None:
    tab, id = dashboard.open("maps"), "0QK3ZM2T8V0001"
    busy = f"{FOCUS}.dataset.busy != null"
    dashboard.focus(f"tr[data-id='{id}'] [data-act=pause]")
    assert tab.do(f"{FOCUS}.click(); {busy} && {IN_ROW}") == id
    dashboard.watch.made_up.paused.add(id)
    tab.until(f"{FOCUS}.dataset.act === 'resume' && {IN_ROW} === '{id}'")

    tab.do(POSTS)
    dashboard.focus(f"tr[data-id='{id}'] [data-key=limit]")
    tab.press("Enter", "2")
    assert tab.do(f"{KEY % 'Enter'}; {busy}")
    tab.do("posts[0][2]('{}', 409); window.fetch = real")
    tab.until(f"{FOCUS}.dataset.key === 'limit' && {IN_ROW} === '{id}'")
    dashboard.focus(f"tr[data-id='{id}'] [data-row]")
    tab.press("c")
    dashboard.focus(".ask [data-act=yes]")
    dashboard.watch.made_up.removed = id
    tab.until(f"{FOCUS}.id === 'main'")

    dashboard.watch.made_up.removed = ""
    tab.go("now")
    dashboard.focus("[data-ask='pausepool:']")
    tab.press("Enter")
    dashboard.focus(".ask [data-act=yes]")
    assert tab.do(f"{FOCUS}.click(); {busy}")
    dashboard.watch.pool.control = PoolControl().steered(None, paused=True)
    tab.until(f"{FOCUS}.dataset.act === 'pool'")
    dashboard.watch.made_up.state = "away"
    tab.until(f"{FOCUS}.id === 'main'")


def test_a_wide_page_keeps_its_map_and_asks_where_it_was_asked(dashboard: Dashboard) -> None:
    tab, detail = dashboard.open("maps", 2560), "[data-key=detail]"
    shown = f"document.querySelector('{detail} [data-of]').dataset.of"
    id, first = tab.do(f"[{shown}, {ROWS}[0]]")
    assert id == first
    dashboard.watch.made_up.paused.add(id)
    tab.until(f"{ROWS}[0] !== '{id}'")
    assert tab.do(shown) == id

    for place in (detail, "tr[data-id]"):
        dashboard.focus(f"{place} [data-key=cancel]")
        tab.press("Enter")
        tab.until(f"{FOCUS}.dataset.act === 'no'")
        assert tab.do(f"[{ASKED}, {FOCUS}.closest({place!r}) !== null]") == [1, True]
        tab.press("Escape")
        assert tab.do(f"{FOCUS}.matches('{place} [data-key=cancel]')")

    tab.do("document.querySelectorAll('[data-row]')[5].focus()")
    tab.press("Enter")
    tab.until("location.hash.startsWith('#map/')")
    assert tab.do(f"{FOCUS}.hash === location.hash")
    tab.do("document.querySelector('[data-key=detail] a').focus()")
    row = f"{FOCUS}.closest('tr')?.previousElementSibling?.ariaSelected"
    assert tab.do(f"{KEY % 'j'}; {row}") == "true", "the row after the one that is shown"


def test_the_list_of_stored_jobs_is_that_of_the_filter(dashboard: Dashboard) -> None:
    tab = dashboard.open("now")
    tab.do(STORE)
    tab.go("maps")
    tab.until(f"{JOBS} === 'JOB-A,JOB-B,JOB-C'")
    dashboard.focus("#find")
    tab.press(*"shop:1")
    tab.until("held.get('shop=1').length === 1")
    tab.press("2")
    tab.until(f"{JOBS} === 'JOB-C'")
    tab.do("held.get('shop=1')[0]()")
    dashboard.pass_time()
    assert tab.do(JOBS) == "JOB-C", "a late answer to another question"
    tab.press("Escape")
    tab.until(f"{JOBS} === 'JOB-A,JOB-B,JOB-C'")
    tab.click("tr[data-id='JOB-A'] .label")
    tab.until("document.querySelector('#find').value === 'region:\"new york\"'")
    dashboard.pass_time()
    assert tab.do(ROWS) == ["JOB-A"]
    tab.click("[data-act=state][data-s=running]")
    tab.says("No map matches")
    tab.click("[data-act=clear]")
    tab.until(f"{JOBS} === 'JOB-A,JOB-B,JOB-C'")


def test_escape_closes_the_keys_alone(dashboard: Dashboard) -> None:
    tab = dashboard.open("now")
    tab.press("1")
    tab.until("document.querySelector('[data-act=spot][aria-pressed=true]') !== null")
    tab.go("map/0QK3ZM2T8V0000")
    tab.click("[data-ask^='cancel:']")
    tab.until(f"{FOCUS}.dataset.act === 'no'")
    tab.press("?")
    tab.until("document.querySelector('#help').open")
    tab.press("c", "Escape")
    tab.until("!document.querySelector('#help').open")
    assert tab.do(f"[{ASKED}, location.hash]") == [1, "#map/0QK3ZM2T8V0000"]
    tab.press("Escape", "Escape")
    assert tab.do(f"[{ASKED}, location.hash]") == [0, "#maps"], "the cores of Now wait there"


def test_the_list_of_functions_shows_the_one_that_is_chosen(dashboard: Dashboard) -> None:
    tab, chosen = dashboard.open("maps"), "document.querySelector('select[data-act=fn]').value"
    dashboard.focus("select[data-act=fn]")
    tab.press("o")  # Of several letters, the browser forgets those that came a second ago.
    tab.until(f"{chosen} === 'ocr_page' && {ROWS}.length === 1")
    dashboard.focus("#find")
    tab.press(*"nothing")
    tab.click("[data-act=clear]")
    tab.until(f"{ROWS}.length === 12")
    assert tab.do(f"[{chosen}, document.querySelector('#find').value]") == ["", ""]
    dashboard.focus("select[data-act=fn]")
    tab.press("g")
    tab.until(f"{ROWS}.length === 1")
    for name in ("price_option", "geocode"):
        dashboard.watch.made_up.gone.add(name)
        tab.until(f"!jetmap.world.byName.has('{name}')")
        dashboard.pass_time(1)
        assert tab.do(f"[{chosen}, {ROWS}.length]") == ["geocode", 1]


def test_a_function_that_is_tapped_on_a_phone_comes_into_sight(dashboard: Dashboard) -> None:
    tab = dashboard.open("functions", 390, 844)
    last = "document.querySelector('tr:nth-of-type(9) [data-row]')"
    tab.until(f"{last} !== null")
    tab.do(f"{last}.scrollIntoView()")
    assert tab.do("scrollY") > 844
    tab.do(f"{last}.click()")
    top = "document.querySelector('#t-f').getBoundingClientRect().top"
    tab.until(f"{FOCUS}.dataset.key?.startsWith('fd-') && {top} > 0 && {top} < innerHeight / 2")


def test_who_returns_from_a_map_finds_the_place_in_the_list(dashboard: Dashboard) -> None:
    tab, id = dashboard.open("maps", 1280, 400), "0QK3ZM2T8V0008"  # Ended, so it stays the last.
    for back in ("Escape", ""):
        dashboard.focus(f"tr[data-id='{id}'] [data-row]")
        y = tab.do("scrollY")
        assert y > 0
        tab.press("Enter")
        tab.until(
            f"document.querySelector('[data-key=view-map]') !== null && {FOCUS}.id === 'main'"
        )
        assert tab.do("scrollY") == 0
        tab.press(back) if back else tab.do("history.back()")
        tab.until(f"{IN_ROW} === '{id}'")
        assert abs(tab.do("scrollY") - y) < 2


def test_a_key_that_is_held_acts_once(dashboard: Dashboard) -> None:
    tab, id = dashboard.open("maps"), "0QK3ZM2T8V0007"
    dashboard.focus(f"tr[data-id='{id}'] [data-row]")
    tab.hold("p", 20)
    tab.press("p", "c")
    wait_until_sync(dashboard.acts, "it is paused")
    dashboard.watch.made_up.paused.add(id)
    tab.until(f"document.querySelector('tr[data-id=\"{id}\"] [data-act=resume]') !== null")
    dashboard.pass_time()
    assert dashboard.acts() == [("pause", id, 0)]
    assert tab.do(ASKED) == 0, "nothing is asked later"
    dashboard.focus("tr:nth-of-type(4) button")
    at = f"[...document.querySelectorAll('[data-row]')].indexOf({FOCUS})"
    for key, row in (("j", 4), ("k", 3), ("k", 2)):
        assert tab.do(f"{KEY % key}; {at}") == row


def test_a_form_stays_while_its_function_has_no_worker(dashboard: Dashboard) -> None:
    tab = dashboard.open("functions/parse_invoice")
    tab.until(f"{FORM} !== null")
    tab.do(f"{ITEM}.value = '[1, 2]'")
    dashboard.watch.made_up.gone.update(("parse_invoice", "resize_image"))
    tab.says("no worker has it now")
    tab.until("!jetmap.world.byName.has('parse_invoice')")
    dashboard.pass_time(1)
    run = f"[{ITEM}.value, {FORM}.querySelector('.go').disabled]"
    assert tab.do(run) == ["[1, 2]", True]
    dashboard.watch.made_up.gone.clear()
    tab.until("jetmap.world.byName.has('parse_invoice')")
    tab.until(f"!{FORM}.querySelector('.go').disabled")
    assert tab.do(run) == ["[1, 2]", False]


def test_the_grid_says_where_the_arrows_are_and_forgets_a_host_that_leaves(
    dashboard: Dashboard,
) -> None:
    tab, tip = dashboard.open("now"), "document.querySelector('#tip')"
    spoken, seen = "document.querySelector('#spoken').textContent", f"{tip}.style.visibility"
    dashboard.focus("canvas[data-cells]")
    tab.press("ArrowRight", "ArrowRight", "ArrowRight")
    assert tab.do(spoken).startswith("r00-n02, draining, ")
    assert tab.do(f"[{seen}, {tip}.innerText.split(',')[0]]") == ["visible", "r00-n02"]
    tab.press("Escape")
    assert tab.do(seen) == "hidden"
    tab.press("ArrowRight")
    assert tab.do(seen) == "visible"
    dashboard.watch.made_up.gone.add("agent-0002")
    tab.until(f"jetmap.world.hosts.length === 2 && {seen} === 'hidden'")
    tab.press("Enter")
    assert tab.do("location.hash") == "#now"
    tab.press("ArrowRight")
    assert tab.do(spoken).startswith("r00-n00, ")
    tab.press("Tab")
    assert tab.do(seen) == "hidden"


def test_a_new_version_of_a_function_leaves_typed_values_in_their_fields(
    dashboard: Dashboard,
) -> None:
    tab = dashboard.open("now")
    script = """(async () => {
  const from = name => import(`${document.documentElement.dataset.root}/assets/ui/${name}.js`)
  const { draw } = await from('dom'), { formOf } = await from('form'), type = 'integer'
  const place = document.body.appendChild(document.createElement('form'))
  const show = (item, kwargs) => draw(place, formOf({ item: { type: 'object', properties: item },
    kwargs: { properties: kwargs } }))
  const filled = { 'item.price': 100, 'item.count': 3, 'kwargs.size': '"m"', 'kwargs.rate': 7 }
  show({ price: { type }, count: { type } }, { size: { enum: ['s', 'm'] }, rate: { type } })
  for (const [name, value] of Object.entries(filled)) place.elements[name].value = value
  const named = () => [...place.elements].filter(e => e.name)
  const read = () => Object.fromEntries(named().map(e => [e.name, e.value]))
  show({ off: { type }, price: { type }, count: { type } },
    { size: { enum: ['xs', 's', 'm'] }, more: { type }, rate: { type } })
  const more = read()
  show({ price: { type } }, { rate: { type } })
  const less = read()
  show({ price: { type: 'array' } }, { rate: { type: 'string' } })
  const other = read()
  place.remove()
  return [more, less, other]
})()"""
    kept = {"item.price": "100", "item.count": "3", "kwargs.size": '"m"', "kwargs.rate": "7"}
    more, less, other = tab.do(script)
    assert more == kept | {"item.off": "", "kwargs.more": ""}
    assert less == {"item.price": "100", "kwargs.rate": "7"}
    assert other == {"item.price": "", "kwargs.rate": ""}


def test_a_row_that_moves_keeps_what_is_selected_and_its_place(dashboard: Dashboard) -> None:
    seen = dashboard.open("now").do("""(async () => {
  const { draw, h } = await import(`${document.documentElement.dataset.root}/assets/ui/dom.js`)
  const place = document.body.appendChild(document.createElement('div'))
  const lines = 'line\\n'.repeat(90)
  const row = k => h`<div data-key="${k}"><b>message ${k}</b>
    <details open><summary>Why</summary><pre tabindex="0">${lines}</pre></details></div>`
  const show = (...keys) => draw(place, keys.map(row)), seen = []
  const find = (k, part) => place.querySelector(`[data-key="${k}"] ${part}`)
  const look = () => seen.push([String(getSelection()), find(2, 'pre').scrollTop,
    document.activeElement === find(1, 'pre')])
  show(1, 2, 3)
  find(2, 'pre').scrollTop = 300
  getSelection().selectAllChildren(find(2, 'b'))
  show(2, 1, 3); look()
  show(3, 1, 2); look()
  find(1, 'pre').focus()
  show(2, 3, 1); look()
  place.remove()
  return seen
})()""")
    assert seen == [["message 2", 300, False]] * 2 + [[seen[2][0], 300, True]]
