"""The dashboard's modules without a browser, in node: cells, changes, filters, forms, advice."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import jetmap_api
from tools import need_tool

UI = Path(jetmap_api.__file__).parent / "static" / "ui"


def run_modules(place: Path, script: str, *modules: str) -> str:
    """Run a script beside these modules of the page, without a browser; return what it prints."""
    node = need_tool("node")
    (place / "package.json").write_text('{"type": "module"}')
    for name in modules:
        shutil.copy(UI / name, place)
    (place / "test.js").write_text(script)
    done = subprocess.run([node, "test.js"], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\u00a0", " ")


def test_the_light_theme_is_the_same_before_a_script_has_chosen_it() -> None:
    style = (UI / "ui.css").read_text(encoding="utf-8")
    chosen = re.search(r"^\[data-theme=light\] \{\n(.*?)^\}", style, re.MULTILINE | re.DOTALL)
    before = re.search(
        r":root:not\(\[data-theme\]\) \{\n(.*?)^\} \}", style, re.MULTILINE | re.DOTALL
    )
    assert chosen is not None and before is not None and chosen[1] == before[1]


def test_every_module_is_asked_for_at_once() -> None:
    page = (UI / "ui.html").read_text(encoding="utf-8")
    asked = re.findall(r'(?:modulepreload" href|module" src)="\$root/assets/ui/(\w+\.js)"', page)
    modules = {path.name for path in UI.glob("*.js")} - {"start.js"}  # A script of its own.
    assert sorted(asked) == sorted(modules)


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


FEED = """
import assert from 'node:assert'
import { Feed } from './feed.js'
let clock = 0, slept = 0, count = 0
const timers = new Map(), sources = [], told = []
const set = every => (what, ms) => {
  timers.set(++count, { what, at: clock + ms, every })
  return count
}
Object.assign(globalThis, { setTimeout: set(false), setInterval: set(true) })
globalThis.clearTimeout = globalThis.clearInterval = id => timers.delete(id)
Date.now = () => clock + slept
AbortSignal.timeout = ms => {
  const ends = new AbortController()
  setTimeout(() => ends.abort(new Error('too late')), ms)
  return ends.signal
}
let session = 0   // The status of its answers; 0: none.
globalThis.EventSource = class {
  static OPEN = 1
  constructor() { this.heard = {}; this.readyState = 0; sources.push(this) }
  addEventListener(name, what) { this.heard[name] = what }
  close() { this.isClosed = true }
  send(name) { this.readyState = 1; this.heard[name]({ data: '{}' }) }
}
globalThis.fetch = (address, { signal }) => new Promise((answer, fail) => {
  if (session) answer(new Response(null, { status: session }))
  signal.addEventListener('abort', () => fail(signal.reason))
})
const pass = async (seconds, each = () => {}) => {
  for (let i = 0; i < seconds; i++) {
    clock += 1000
    for (const [id, timer] of [...timers]) {
      if (!timers.has(id) || timer.at > clock) continue
      if (timer.every) timer.at += 1000; else timers.delete(id)
      timer.what()
    }
    for (let turn = 0; turn < 20; turn++) await null
    each()
  }
}
const kinds = () => told.splice(0).map(m => Object.keys(m)[0]).filter(k => k !== 'change')
const feed = new Feed('', message => told.push(message))
feed.open()
const [first] = sources
first.send('snapshot')
await pass(60, () => first.send('change'))
await pass(9)
first.send('change')
slept = 3600e3   // The machine sleeps for an hour, and its timers with it.
await pass(9)
assert.deepEqual(kinds(), ['snapshot'])
"""


def test_silence_of_a_gateway_is_a_loss_and_sleep_is_none(tmp_path: Path) -> None:
    """The gateway hangs; it is asked until it answers again."""
    script = """
await pass(2)
const [lost] = told.splice(0)
assert(first.isClosed && lost.lost >= 10 && lost.lost < 13, JSON.stringify(lost))
await pass(120)
assert(sources.length >= 5, sources.length)
assert.deepEqual([...new Set(kinds())], ['lost'])
while (sources.at(-1).isClosed) await pass(1)
kinds()
sources.at(-1).send('snapshot')
const opened = sources.length
await pass(30, () => sources.at(-1).send('change'))
assert.deepEqual(kinds(), ['snapshot'])
assert.equal(sources.length, opened)

// A stream alone that hangs is opened again, and nobody notices.
session = 204
await pass(10)
assert.deepEqual([kinds(), sources.length], [[], opened + 1])
// What comes slowly may take its time.
sources.at(-1).readyState = 1
await pass(29)
assert.deepEqual([kinds(), sources.length], [[], opened + 1])
await pass(1)
assert.deepEqual([kinds(), sources.at(-1).isClosed], [['lost'], true])

// Nothing is opened for a page that is hidden meanwhile, or opened twice.
await pass(6)
session = 0
await pass(11)
feed.close()
const before = sources.length
await pass(60)
assert.equal(sources.length, before)
session = 401
feed.open()
sources.at(-1).onerror()
await pass(10)
assert.deepEqual([kinds().at(-1), sources.length], ['login', before + 1])
"""
    run_modules(tmp_path, FEED + script, "feed.js")


def test_a_filter_is_words_and_labels(tmp_path: Path) -> None:
    script = r"""
import assert from 'node:assert'
import { hasWords, labelWord, labelsOf, wordsOf } from './filter.js'
const cases = {
  '': [], '  ': [], 'price web-2': ['price', 'web-2'], '"two words"': ['two words'], '"" x': ['x'],
  'region:"new york" x': ['region:new york', 'x'], 'a:"still typ': ['a:still typ'],
  'a:"say \\"hi\\""': ['a:say "hi"'], 'c:\\temp': ['c:\\temp'],
}
for (const [text, words] of Object.entries(cases)) assert.deepEqual(wordsOf(text), words, text)
for (const value of ['7', 'new york', 'say "hi"', 'c:\\my files', 'x"y', 'x\\'])
  assert.deepEqual(wordsOf(labelWord('a', value)), [`a:${value}`])
const asked = wordsOf('price customer:7 region:"new york" url:http://x team: b@d:1 list:1,2')
assert.deepEqual(labelsOf(asked), ['customer=7', 'region=new york', 'url=http://x'])
const m = { function: 'price', id: 'M1', owner: 'api on web-1:80', kind: 'job', state: 'ok',
  labels: { region: 'New York', customer: '70' } }
const has = text => hasWords(m, wordsOf(text))
for (const text of ['', 'PRICE', 'region:"new york"', '"new york"', 'customer:70 web-1:80 m1'])
  assert(has(text), text)
for (const text of ['region:new', 'customer:7', 'price x', 'region:"new york" x'])
  assert(!has(text), text)
"""
    run_modules(tmp_path, script, "filter.js")


def test_a_form_is_read_as_json_that_keeps_every_digit(tmp_path: Path) -> None:
    script = r"""
import assert from 'node:assert'
globalThis.document = { createElement: () => ({}) }
const { formOf, pretty, read } = await import('./form.js')
const field = (name, type, value, more = {}) => ({ name, dataset: { type }, value, ...more })
const big = '9007199254740993'
const numbers = { [big]: big, '-7': '-7', '007': '7', '1e3': '1000', '2.50': '2.5', '-0': '0' }
for (const [typed, sent] of Object.entries(numbers))
  assert.equal(read([field('item', 'number', typed)], 'null').item, sent)
const filled = read([
  field('item.n', 'number', big), field('item.list', 'json', `[${big}, 1.0]`),
  field('item.b', 'string', ''), field('item.c', 'string', '', { required: true }),
  field('kwargs.deep', 'boolean', 'on', { checked: false }), field('kwargs.a"b', 'string', 'x'),
  field('', 'string', 'a button'),
], '{}')
assert.equal(filled.item, `{"n":${big},"list":[${big}, 1.0],"c":""}`)
assert.equal(filled.kwargs, '{"deep":false,"a\\"b":"x"}')
assert.throws(() => read([field('item', 'json', '[1')], 'null'), SyntaxError)

const blank = item => /data-blank="(.*?)"/.exec(formOf({ item }).text)[1]
const properties = { a: { type: 'integer' } }, object = { type: 'object', properties }
assert.equal(blank(object), '{}')
assert.equal(read([field('item.a', 'number', '')], '{}').item, '{}')
assert.equal(blank({ anyOf: [object, { type: 'null' }] }), 'null')
assert.equal(blank(properties.a), 'null')
const shown = (type, value) => formOf({ item: { type: 'object',
  properties: { a: { type, default: value } } } }).text
assert.match(shown('integer', 2 ** 53 - 1), /value="9007199254740991"/)
assert.match(shown('integer', 2 ** 60), /value="" placeholder="its default"/)
assert.match(shown('array', [2 ** 63]), /placeholder="its default"><\/textarea>/)
assert.match(shown('number', 0.1234567890123456), /value="0.1234567890123456"/)

const nested = `{"a":[1,{}],"b":{"n":${big},"f":1.0},"c":[]}`
assert.equal(pretty(nested).replace(/\n */g, ' '),
  `{ "a": [ 1, {} ], "b": { "n": ${big}, "f": 1.0 }, "c": [] }`)
assert.equal(pretty('{"a":[1,2]}'), JSON.stringify({ a: [1, 2] }, null, 2))
assert.equal(pretty(String.raw`"a\"[,]: x"`), String.raw`"a\"[,]: x"`)
assert.equal(pretty(`[ "${'long '.repeat(1e6)}" ]`).length, 5e6 + 8)
"""
    run_modules(tmp_path, script, "form.js", "dom.js")


ADVICE = """
import assert from 'node:assert'
import { readFileSync } from 'node:fs'
const nothing = { createElement: () => nothing }
globalThis.document = nothing
const { World } = await import('./world.js')
const { see, advice } = await import('./views.js')
for (const { maps, jobs, details, hosts, core } of JSON.parse(readFileSync('cases.json'))) {
  const world = new World()
  const cells = Object.fromEntries(Object.keys(hosts).map(id => [id, core.repeat(4)]))
  world.read({ maps, hosts, cells, paused: false, epoch: 1000, now: 200, away: null, functions: {
    f: { name: 'f', slot: 0, bins: {}, items: 0, failed: 0, versions: [], limit: 2, in: 740 },
  } })
  world.keep(jobs)
  see(world, { root: '', lost: null, busy: new Map(), open: new Map() })
  console.log(advice(world.find('m1'), details).text.replace(/<[^>]*>/g, ''))
}
"""
MAP: dict[str, Any] = {
    "id": "m1", "function": "f", "kind": "map", "owner": "me", "labels": {}, "state": "running",
    "total": 100, "done": 40, "failed": 0, "rate": 2.0, "left": 30, "cores": 2, "fair": 4,
    "weight": 1, "limit": None, "waits": "cores", "started": 100, "ended": None, "seconds": 0,
}  # fmt: skip
DETAILS: dict[str, Any] = {
    "wait": 5, "way": 1, "compute": 95, "again": 0, "tail": 0, "bins": {"50": 40}, "slow": [],
    "parallel": [], "failures": [],
}  # fmt: skip
BUSY = chr(0x100)  # A core that computes the first function.
RIVAL = {**MAP, "id": "m2", "function": "g", "cores": 3}
KILLED = {"host": "h", "state": "up", "crashes": {}, "kills": 3}
STORED = {
    "id": "m1", "function": "f", "state": "failed", "total": 9, "done": 5, "failed": 5,
    "created": "1970-01-01T00:10:00.000Z", "started": "1970-01-01T00:10:00.000Z",
    "finished": "1970-01-01T00:11:30.000Z", "run": 2, "reason": "over max_failed", "labels": {},
}  # fmt: skip


# A map, its details, the rest of the pool, and what is said of the map.
ADVISED: list[tuple[dict[str, Any] | None, dict[str, Any], dict[str, Any], str]] = [
    ({}, {}, {}, "95 % of the time of its chunks is computing. Twice the cores would nearly"),
    ({"waits": "workers"}, {}, {}, "No worker that is up has f."),
    ({"waits": "a pause of the pool"}, {}, {}, "The whole pool is paused"),
    ({"waits": "a pause of its function"}, {}, {}, "f is paused: nothing new"),
    ({"waits": "a limit of its function"}, {}, {}, "together may use 2 cores"),
    ({"state": "paused", "waits": "a pause"}, {}, {}, "once its 2 chunks under way end"),
    ({}, {"again": 25}, {}, "lost in it: 20 % of the time of its chunks was computed again."),
    ({}, {"again": 25}, {"hosts": {"h": KILLED}}, "The kernel has killed 3 workers"),
    ({}, {"tail": 40}, {}, "for 40 s now only the last ones run"),
    ({"waits": "a limit", "limit": 2}, {}, {}, "would need about 15 s rather than 30 s"),
    ({"waits": "its reader"}, {}, {}, "slower than the cores"),
    ({"waits": "its input"}, {}, {}, "more slowly than it is computed"),
    ({}, {"wait": 95}, {"maps": {"m2": RIVAL}}, "during 50 % of the time"),
    ({}, {"wait": 95}, {"maps": {"m2": RIVAL}}, "others hold 3 of 4 cores, g alone 3, and"),
    ({"fair": 1}, {}, {"maps": {"m2": RIVAL}}, "g alone 3; its fair share is 1. Twice the"),
    ({}, {"wait": 95}, {}, "though 4 of 4 cores are idle"),
    ({}, {"wait": 95}, {"core": BUSY}, "it has nearly all that are up, and its chunks wait"),
    ({}, {"wait": 95, "way": 57}, {}, "At least 30 % of the time of its chunks passes on the"),
    ({}, {"wait": 95, "way": 57}, {}, "and brings 740 B"),
    ({}, {"compute": 0, "wait": 0}, {}, "Too little of it is done"),
    ({"ended": 150, "state": "ok"}, {}, {}, "It took 50 s. Of the time of its chunks, 95 %"),
    (None, {}, {"jobs": [STORED]}, "It took 2 min, in its run 2. Over max_failed. Where"),
]  # fmt: skip


@pytest.fixture(scope="module")
def advised(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Run the page once; return its sentence on each case."""
    place = tmp_path_factory.mktemp("advice")
    cases = []
    for map, details, more, _ in ADVISED:
        case = {"jobs": [], "core": ".", "hosts": {"a": {**KILLED, "kills": 0}}, **more}
        case["maps"] = ({} if map is None else {"m1": MAP | map}) | more.get("maps", {})
        cases.append({**case, "details": DETAILS | details})
    (place / "cases.json").write_text(json.dumps(cases))
    return run_modules(place, ADVICE, *(path.name for path in UI.glob("*.js"))).splitlines()


@pytest.mark.parametrize(("number", "said"), [*enumerate(case[-1] for case in ADVISED)])
def test_advice_is_computed_from_the_maps_own_figures(
    advised: list[str], number: int, said: str
) -> None:
    assert len(advised) == len(ADVISED) and said in advised[number]
