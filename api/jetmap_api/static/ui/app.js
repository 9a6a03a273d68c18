// The dashboard: keeps what is known up to date, draws the view, asks and acts.
import { Feed, apply } from './feed.js'
import { World } from './world.js'
import { draw, h, num, about, plural } from './dom.js'
import { readColours, colours, layoutCells, paintCells, hitCell, IDLE, STARTING, FAILED, DRAINING, UNKNOWN } from './charts.js'
import { views, titles, charts, see, away, clock, recent, isOpen, isPaused, lacksFailures, hostText } from './views.js'

const page = document.documentElement, root = page.dataset.root
const $ = (s, e = document) => e.querySelector(s)
const main = $('#main'), tip = $('#tip'), said = $('#said')
const world = new World()
const JOBS_AT_ONCE = 60, MOST_JOBS = 1000
const ui = {
  root, nats: page.dataset.nats, view: 'now', id: '', find: '', state: 'all', fn: '', ask: '', busy: new Map(), open: new Set(), spot: -1, host: -1,
  result: null, details: new Map(), kept: new Map(), failed: [], traces: new Map(), schemas: new Map(), picked: '', fnShown: '', lost: null, gone: '', older: JOBS_AT_ONCE,
}
const still = matchMedia('(prefers-reduced-motion: reduce)').matches
let cellsAt = null, tick = 0
export const frames = []
globalThis.jetmap = { frames, world }   // For measuring only.

// ---- drawing ---------------------------------------------------------------------------------------
function render() {
  if (!world.document) {
    if (ui.lost != null) draw(main, h`<p class="banner" role="status" data-key="away"><b>The gateway says nothing of the pool yet.</b> This page asks again by itself.</p>`)
    return
  }
  const begun = performance.now()
  see(world, ui)
  settle(begun)
  const banner = ui.lost != null ? h`<p class="banner" role="status" data-key="away"><b>The gateway is away since ${clock(ui.lost)}.</b> Below is the last that was known. The page goes on by itself when one answers at this address.</p>`
    : world.away != null && h`<p class="banner" role="status" data-key="away"><b>The broker is away since ${clock(world.away)}</b> (${about(world.now - world.away)}). Below is the last that was known. Maps go on when it is back.</p>`
  draw(main, h`${banner}<div class="stack live" data-key="view-${ui.view}">${views[ui.view]()}</div>`)
  page.classList.toggle('away', away())
  for (const canvas of main.querySelectorAll('canvas[data-chart]')) charts.get(canvas.dataset.chart)?.(canvas)
  const cells = $('canvas[data-cells]', main)
  if (cells) { cellsAt = layoutCells(cells, world); paintCells(cells, world, cellsAt, ui) }
  const ghost = $('canvas[data-ghost]', main)
  if (ghost) paintGhost(ghost)
  const failed = world.failures.reduce((a, g) => a + recent(g), 0), counts = { maps: world.maps.filter(isOpen).length, failures: failed }
  for (const a of $('#nav').children) {
    const name = a.hash.slice(1), k = counts[name], text = k ? num(k) : ''
    if (name === ui.view || (name === 'maps' && ui.view === 'map')) a.setAttribute('aria-current', 'page'); else a.removeAttribute('aria-current')
    let badge = a.querySelector('.count')
    if (text && !badge) a.append(badge = Object.assign(document.createElement('span'), { className: name === 'failures' ? 'count bad' : 'count' }))
    if (badge && badge.textContent !== text) badge.textContent = text
  }
  const state = $('#link')
  state.classList.toggle('off', away())
  state.textContent = ui.lost != null ? 'Gateway away' : world.away != null ? 'Broker away' : innerWidth <= 860 ? 'Live' : `Pool ${world.document.pool} · live, ${clock(world.now)}`
  frames.push(performance.now() - begun)
  if (frames.length > 300) frames.shift()
  look()
}
let due = 0
function soon() { if (!due && !document.hidden) due = requestAnimationFrame(() => { due = 0; render() }) }
function paintGhost(canvas) {
  const w = canvas.clientWidth, c = canvas.getContext('2d'), r = devicePixelRatio || 1
  canvas.width = w * r; canvas.height = 96 * r; c.scale(r, r)
  for (let x = 0; x < w; x += 20) for (let y = 0; y < 5; y++) { c.fillStyle = colours.idle; c.globalAlpha = 0.9 - y * 0.16; c.fillRect(x, y * 20, 16, 16) }
  c.globalAlpha = 1; c.fillStyle = colours.fill; c.fillRect(still ? 0 : tick % Math.max(1, Math.floor(w / 20)) * 20, 0, 16, 16)
}
function say(text) { said.textContent = text; clearTimeout(say.timer); say.timer = setTimeout(() => { said.textContent = '' }, 5000) }

// ---- what the gateway is asked while somebody looks --------------------------------------------------
async function get(path) {
  const answer = await fetch(root + path, { headers: { accept: 'application/json' } })
  if (answer.status === 401) login()
  return answer.ok ? answer.json() : { problem: await answer.json().catch(() => ({ detail: answer.statusText })) }
}
const asked = new Map()
function once(key, seconds, what) {
  if (away() || performance.now() - (asked.get(key) ?? -1e9) < seconds * 1000) return
  asked.set(key, performance.now())
  what().catch(() => {})
}
function look() {
  if ((ui.view === 'map' || ui.view === 'maps') && ui.picked) {
    const id = ui.picked, m = world.find(id)
    if (m?.failed && lacksFailures(m)) once(`failures ${id} ${m.run} ${isOpen(m) || m.failed}`, isOpen(m) ? 15 : 300, () => storedFailures(id))
    if (m && !m.stored) once(`map ${id}`, m && isOpen(m) ? 2 : 30, async () => { const d = await get(`/ui/maps/${encodeURIComponent(id)}`); if (!d.problem) { ui.details.set(id, d); soon() } })
    if (ui.details.size > 20) ui.details.delete(ui.details.keys().next().value)
  }
  // What nobody announces may be a job: one that ended long ago, or whose process has ended.
  const shown = ui.view === 'map' ? world.find(ui.id) : null
  if (ui.view === 'map' && ui.id && (!shown || shown.stored)) {
    const id = ui.id
    once(`job ${id}`, 5, async () => {
      const job = await get(`/jobs/${encodeURIComponent(id)}`)
      if (job.problem) { world.kept.delete(id); world.store(); ui.gone = id } else { world.keep([job]); ui.gone = '' }
      soon()
    })
  }
  if ((ui.view === 'maps' || ui.view === 'map' && innerWidth >= 1900) && (ui.state === 'all' || ui.state === 'ended')) {
    const labels = ui.find.split(/\s+/).map(w => w.split(':')).filter(p => p.length === 2 && p[0] && p[1]).map(p => p.join('='))
    const query = new URLSearchParams({ state: 'succeeded,failed,cancelled', limit: ui.older, ...ui.fn && { function: ui.fn }, ...labels.length && { labels: labels.join(',') } })
    once(`jobs ${query}`, 15, async () => {
      const found = await get(`/jobs?${query}`)
      if (!found.problem) { world.keep(found.jobs, true, ui.id); world.older = found.next != null && ui.older < MOST_JOBS; soon() }
    })
  }
  if (ui.view === 'failures') once('jobs that failed', 15, async () => { const found = await get('/jobs?state=failed&limit=20'); if (!found.problem) { ui.failed = found.jobs; soon() } })
  if (ui.view === 'functions' && ui.fnShown) {
    const name = ui.fnShown
    once(`schema ${name} ${world.byName.get(name)?.versions.map(v => v[0])}`, 60, async () => { const d = await get(`/functions/${encodeURIComponent(name)}`); if (!d.problem) { ui.schemas.set(name, d); soon() } })
  }
}
// A job's failures as the store has them: whoever ran it may be gone. Their ages are the broker's; here they become times.
async function storedFailures(id) {
  const found = await get(`/ui/jobs/${encodeURIComponent(id)}/failures`)
  if (found.problem) return
  const causes = found.causes.map(({ cause, traceback, note }) => ({ ...cause, key: `${id} ${cause.key}`, first: world.now - cause.first, last: world.now - cause.last, trace: { traceback, note } }))
  ui.kept.set(id, { causes, more: found.more })
  if (ui.kept.size > 20) ui.kept.delete(ui.kept.keys().next().value)
  soon()
}
async function trace(key) {
  const d = await get(`/ui/failures/${key}`)
  ui.traces.set(key, d.problem ? { note: d.problem.detail } : d)
  soon()
}
function login() { location.assign(`${root}/login?next=${encodeURIComponent(location.pathname + location.hash)}`) }

// ---- acting: post, show '… ing' until an announcement confirms it --------------------------------------
const PATIENCE = 8000   // Milliseconds for the announcement; a later one is believed as any other.
function settle(now) {
  for (const [key, b] of ui.busy) if (b.posted && (b.is() || now > b.until)) ui.busy.delete(key)
}
async function post(path, body) {
  const answer = await fetch(root + path, { method: 'POST', headers: { accept: 'application/json', 'content-type': 'application/json' }, body: body === undefined ? undefined : JSON.stringify(body) })
  if (answer.status === 401) login()
  const text = await answer.text()
  let found = null
  try { found = JSON.parse(text) } catch { /* no body */ }
  return { ok: answer.ok, status: answer.status, found }
}
async function act(id, word, path, body, text, is) {
  const busy = { word, is, posted: false, until: 0 }
  ui.busy.set(id, busy); ui.ask = ''; render()
  try {
    const { ok, found } = await post(path, body)
    say(ok ? text : found?.detail ?? found?.title ?? 'It could not be done.')
    if (ok && found?.id === id) world.keep([found])   // A job: it may be one that nobody announces yet.
    if (ok) Object.assign(busy, { posted: true, until: performance.now() + PATIENCE }); else ui.busy.delete(id)
  } catch { say('The gateway does not answer. It is not known whether anything was changed.'); ui.busy.delete(id) }
  render()
}
const openMap = id => { const m = world.find(id); return m && isOpen(m) ? m : null }
function yes(key, box) {
  const at = key.indexOf(':'), what = key.slice(0, at), id = key.slice(at + 1), m = world.find(id), path = pathOf(m, id)
  if (what === 'pausepool') return steerPool(true)
  if (what === 'pausefn') return steer(id, 'pause')
  if (what === 'limitfn') return steer(id, 'limit', cores(box))
  if (what === 'retry') act(id, 'Starting', `/jobs/${encodeURIComponent(id)}/retry`, undefined, `The failed items of ${id.slice(-6)} run again.`, () => { const now = world.find(id); return now && (isOpen(now) || now.ended !== m?.ended) })
  if (what === 'cancel') act(id, 'Cancelling', `${path}/cancel`, undefined, `Cancelled ${id.slice(-6)}. Its cores are free.`, () => !openMap(id))
  if (what === 'limit') { const v = cores(box); act(id, 'Setting', m?.kind === 'job' ? `${path}/limit${v ? `?max_parallel=${v}` : ''}` : `${path}/limit`, m?.kind === 'job' ? undefined : { cores: v }, v ? `${id.slice(-6)} takes at most ${plural(v, 'core')}.` : `${id.slice(-6)} has no limit of its own.`, () => { const now = openMap(id); return !now || (now.limit ?? null) === (v || null) }) }
}
const cores = box => Math.max(0, Math.floor(Number($('[data-field=limit]', box).value) || 0))
function steer(name, what, v) {
  const [word, said] = { pause: ['Pausing', `Paused ${name}. Items that are being computed end.`], resume: ['Resuming', `Resumed ${name}.`], limit: ['Setting', v ? `${name} takes at most ${plural(v, 'core')}.` : `${name} has no limit of its own.`] }[what]
  const is = () => { const f = world.byName.get(name); return !f || (what === 'limit' ? f.limit === (v || f.declared) : f.paused === (what === 'pause')) }
  act(`fn:${name}`, word, `/ui/functions/${encodeURIComponent(name)}/${what}`, what === 'limit' ? { cores: v } : undefined, said, is)
}
function steerPool(on) { act('pool', on ? 'Pausing' : 'Resuming', `/ui/pool/${on ? 'pause' : 'resume'}`, undefined, on ? 'Paused the pool. Items that are being computed end.' : 'Resumed the pool.', () => world.document.paused === on) }
function pathOf(m, id) { return `${m?.kind === 'job' ? '/jobs' : '/ui/maps'}/${encodeURIComponent(id)}` }
function setPause(id, on) {
  const m = openMap(id)
  if (m && !away()) act(id, on ? 'Pausing' : 'Resuming', `${pathOf(m, id)}/${on ? 'pause' : 'resume'}`, undefined, on ? `Paused ${id.slice(-6)}. Chunks under way finish.` : `Resumed ${id.slice(-6)}.`, () => { const now = openMap(id); return !now || isPaused(now) === on })
}
let back = ''   // What has the focus again once a question is dropped: the button that asked, or the row of a key press.
function startAsk(key) {
  const at = document.activeElement, row = at?.closest('tr[data-key]')?.dataset.key
  back = row && at.dataset.ask !== key ? `tr[data-key="${CSS.escape(row)}"] [data-row]` : `[data-ask="${CSS.escape(key)}"]`
  ui.ask = key; render()
  ;($('.ask input', main) ?? $('.ask [data-act=no]', main))?.focus()
}
function dropAsk() {
  ui.ask = ''; render()
  $(back, main)?.focus()
}
const acts = {
  theme: () => setTheme(page.dataset.theme === 'dark' ? 'light' : 'dark', true),
  help: () => $('#help').showModal(),
  spot: b => { ui.spot = ui.spot === +b.dataset.i ? -1 : +b.dataset.i },
  state: b => { ui.state = b.dataset.s }, clear: () => Object.assign(ui, { find: '', state: 'all', fn: '' }),
  find: b => { ui.find = b.dataset.text; ui.carries = ui.view !== 'maps'; location.hash = '#maps' },
  hosts: b => { ui.find = b.dataset.text; ui.carries = true; location.hash = '#hosts' },
  older: () => { ui.older = Math.min(MOST_JOBS, ui.older + JOBS_AT_ONCE) },
  pause: b => setPause(b.dataset.id, true), resume: b => setPause(b.dataset.id, false),
  pool: b => steerPool(b.dataset.do === 'pause'), fnresume: b => steer(b.dataset.id, 'resume'),
  ask: b => startAsk(b.dataset.ask), no: dropAsk, yes: b => yes(b.dataset.ask, b.parentNode),
  open: b => { const k = b.dataset.id; if (ui.open.has(k)) ui.open.delete(k); else { ui.open.add(k); if (!k.includes(' ') && !ui.traces.get(k)?.traceback) trace(k).catch(() => {}) } },
  copy: b => { navigator.clipboard?.writeText(b.dataset.text).then(() => say('Copied')).catch(() => say('The browser does not let this page copy.')) },
}
document.addEventListener('click', e => {
  const b = e.target.closest?.('button[data-act]')
  if (!b || b.disabled) return
  acts[b.dataset.act]?.(b)
  if (!['ask', 'no', 'yes', 'theme', 'help', 'copy'].includes(b.dataset.act)) render()
  const input = $('#find'); if (input && input.value !== ui.find) input.value = ui.find
})
document.addEventListener('input', e => { if (e.target.id === 'find') { ui.find = e.target.value; render() } })
document.addEventListener('change', e => { if (e.target.dataset.act === 'fn') { ui.fn = e.target.value; render() } })

function valueOf(input) {
  const text = input.value
  if (input.dataset.type === 'boolean') return input.checked
  if (text === '' && !input.required) return undefined
  if (input.dataset.type === 'number') return Number(text)
  return input.dataset.type === 'json' ? JSON.parse(text) : text
}
document.addEventListener('submit', async e => {
  const name = e.target.dataset.run
  if (!name) return
  e.preventDefault()
  let item, kwargs = {}
  try {
    for (const input of e.target.elements) {
      if (!input.name) continue
      const value = valueOf(input), dot = input.name.indexOf('.')
      if (value === undefined) continue
      if (dot < 0) item = value
      else if (input.name.startsWith('item.')) (item ??= {})[input.name.slice(5)] = value
      else kwargs[input.name.slice(7)] = value
    }
  } catch { ui.result = { fn: name, value: 'A field is not JSON.', note: 'Arrays and objects are written as JSON.', bad: true }; return render() }
  const query = Object.keys(kwargs).length ? `?kwargs=${encodeURIComponent(JSON.stringify(kwargs))}` : ''
  ui.result = { fn: name, value: '…', note: 'Waiting for a core' }; render()
  const began = performance.now()
  try {
    const { ok, found } = await post(`/map/${encodeURIComponent(name)}${query}`, [item === undefined ? null : item])
    const took = `In ${about((performance.now() - began) / 1000)}, the way to the gateway included.`
    ui.result = ok ? { fn: name, value: JSON.stringify(found[0], null, 2), note: took } : { fn: name, value: found?.detail ?? found?.title ?? 'It failed.', note: took, bad: true }
  } catch { ui.result = { fn: name, value: 'The gateway does not answer.', note: 'Nothing is known of the item.', bad: true } }
  render()
})

// ---- keys ------------------------------------------------------------------------------------------
let go = false
document.addEventListener('keydown', e => {
  if (e.key === 'Escape') {
    if (ui.ask) return dropAsk()
    if (document.activeElement?.id === 'find') { ui.find = ''; document.activeElement.value = ''; document.activeElement.blur(); return render() }
    if (ui.spot >= 0) { ui.spot = -1; return render() }
    if (ui.view === 'map') location.hash = '#maps'
    return
  }
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches?.('input, textarea, select') || $('#help').open || !world.document) return
  if (go) { go = false; const to = { n: 'now', m: 'maps', f: 'failures', u: 'functions', h: 'hosts' }[e.key]; if (to) { location.hash = to; e.preventDefault() } return }
  const row = document.activeElement?.closest('tr[data-id]')?.dataset.id ?? (ui.view === 'map' ? ui.id : null), m = row && world.find(row)
  if (e.key === 'g') { go = true; setTimeout(() => { go = false }, 1200) }
  else if (e.key === '/') { e.preventDefault(); if (!$('#find')) location.hash = 'maps'; setTimeout(() => $('#find')?.focus(), 50) }
  else if (e.key === '?') acts.help()
  else if (e.key === 't') acts.theme()
  else if (e.key === 'j' || e.key === 'k') { const all = [...main.querySelectorAll('[data-row]')], i = all.indexOf(document.activeElement); all[Math.min(all.length - 1, Math.max(0, i + (e.key === 'j' ? 1 : -1)))]?.focus() }
  else if (e.key === 'p' && m) setPause(row, !isPaused(m))
  else if (e.key === 'c' && m && isOpen(m) && !away()) startAsk(`cancel:${row}`)
  else if (/^[1-8]$/.test(e.key) && ui.view === 'now') { acts.spot({ dataset: { i: e.key - 1 } }); render() }
  else if (e.key.startsWith('Arrow') && document.activeElement?.matches('[data-cells]') && cellsAt) {
    e.preventDefault()
    const d = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: cellsAt.perRow, ArrowUp: -cellsAt.perRow }[e.key]
    ui.host = Math.min(world.hosts.length - 1, Math.max(0, ui.host + d)); render()
    const r = document.activeElement.getBoundingClientRect(), [x, y] = cellsAt.corner(ui.host)
    showTip(hostText(ui.host), r.left + x, r.top + y)
  } else if (e.key === 'Enter' && document.activeElement?.matches('[data-cells]') && ui.host >= 0) toHost(ui.host)
})
function toHost(i) { ui.find = world.hosts[i].name; ui.carries = true; location.hash = 'hosts' }

// ---- what the pointer is on --------------------------------------------------------------------------
function showTip(text, x, y) {
  tip.textContent = text; tip.style.visibility = 'visible'
  const b = tip.getBoundingClientRect()
  tip.style.transform = `translate(${Math.round(Math.max(8, Math.min(innerWidth - b.width - 8, x + 12)))}px, ${Math.round(Math.max(8, y - b.height - 8))}px)`
}
document.addEventListener('pointermove', e => {
  const canvas = e.target
  if (canvas.nodeName !== 'CANVAS' || !world.document) { tip.style.visibility = 'hidden'; return }
  const r = canvas.getBoundingClientRect(), x = e.clientX - r.left, y = e.clientY - r.top
  if (canvas.dataset.cells != null) {
    const at = hitCell(cellsAt, x, y, world)
    if (!at) { tip.style.visibility = 'hidden'; return }
    const host = world.hosts[at.host], s = world.cells[host.first + at.core], word = s < 32 ? world.functionAt(host, at.core)?.name : { [IDLE]: 'idle', [STARTING]: 'starting', [FAILED]: 'failed, a new worker starts', [DRAINING]: 'draining', [UNKNOWN]: 'silent' }[s]
    showTip(cellsAt.tiny ? hostText(at.host) : `${host.name}, worker ${at.core}\n${word}`, e.clientX, e.clientY)
  } else { const text = canvas.hover?.(x); if (text) showTip(text, e.clientX, r.top + 8); else tip.style.visibility = 'hidden' }
})
document.addEventListener('click', e => { if (e.target.dataset?.cells != null) { const at = hitCell(cellsAt, e.offsetX, e.offsetY, world); if (at) toHost(at.host) } })

// ---- themes and addresses ----------------------------------------------------------------------------
const light = matchMedia('(prefers-color-scheme: light)')
function setTheme(theme, keep) {
  page.dataset.theme = theme
  if (keep) try { localStorage.setItem('jetmap theme', theme) } catch { /* a private window */ }
  readColours(); render()
}
function kept() { try { return localStorage.getItem('jetmap theme') } catch { return null } }
light.addEventListener('change', () => { if (!kept()) setTheme(light.matches ? 'light' : 'dark') })
function route() {
  const [view, id] = location.hash.slice(1).split('/'), old = ui.view
  let name = ''
  try { name = decodeURIComponent(id ?? '') } catch { /* not an address of ours */ }
  Object.assign(ui, { view: Object.hasOwn(views, view) ? view : 'now', id: name })
  // A link that was followed is heard of late: what was asked meanwhile of the thing that it names stays.
  if (!name || !ui.ask.endsWith(`:${name}`)) ui.ask = ''
  // A filter belongs to its view; some links bring one along.
  const isBack = (ui.view === 'maps' && old === 'map') || (ui.view === 'map' && old === 'maps')
  if (old !== ui.view && !ui.carries && !isBack) ui.find = ''
  ui.carries = false
  document.title = `${titles[ui.view]} · jetmap`
  tip.style.visibility = 'hidden'
  render()
  if (old !== ui.view) { scrollTo(0, 0); main.focus({ preventScroll: true }) }
}
addEventListener('hashchange', route)
addEventListener('resize', soon)

// ---- the stream of changes ---------------------------------------------------------------------------
function tell(message) {
  if (message.login) return login()
  // On the gateway's clock, like all other times: this machine's may be wrong.
  if (message.lost != null) ui.lost ??= world.document ? world.now - message.lost : 0
  if (message.snapshot) { ui.lost = null; world.read(structuredClone(message.snapshot)) }
  if (message.change && world.document) { ui.lost = null; apply(world.document, message.change); world.read(world.document) }
  tick++
  soon()
}
function connect() {
  if (globalThis.SharedWorker) {
    const worker = new SharedWorker(`${root}/assets/ui/feed.js`, { type: 'module', name: `jetmap ${root}` })
    worker.port.onmessage = e => tell(e.data)
    worker.port.start()
    // Where the worker cannot be loaded, the page holds a stream of its own.
    worker.onerror = () => { feed = own(); showing() }
    return { show: () => worker.port.postMessage('show'), hide: () => worker.port.postMessage('hide') }
  }
  return own()
}
function own() { const feed = new Feed(root, tell); return { show: () => feed.open(), hide: () => feed.close() } }
setTheme(kept() ?? (light.matches ? 'light' : 'dark'))
let feed = connect()
const showing = () => { if (document.hidden) feed.hide(); else { feed.show(); soon() } }
document.addEventListener('visibilitychange', showing)
addEventListener('pagehide', () => feed.hide())
addEventListener('pageshow', showing)
// While the gateway is away nothing comes, and the ages on the page go on.
setInterval(() => { if (ui.lost != null || world.away != null) soon() }, 1000)
showing()
route()
