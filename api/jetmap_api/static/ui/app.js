// The dashboard: draws the view, and keeps what is known up to date.
import { dropAsk, keepFocus, setPause, settle, startAsk, steer, steerPool, yes } from './acting.js'
import { look, trace } from './asking.js'
import { readColours, colours } from './charts.js'
import { draw, h, num, about } from './dom.js'
import { Feed, apply } from './feed.js'
import { isLoggedIn, login, loginAddress } from './gateway.js'
import { drawCells, hideTip, onCells } from './grid.js'
import { listen } from './keys.js'
import { $, JOBS_AT_ONCE, MOST_JOBS, help, main, page, paintWith, render, root, say, soon, ui, world } from './page.js'
import { leave } from './running.js'
import { views, titles, charts, see, away, clock, recent, isOpen, isWide } from './views.js'

const still = matchMedia('(prefers-reduced-motion: reduce)').matches
let tick = 0
const frames = []
globalThis.jetmap = { frames, world }   // For measuring only.

// ---- drawing ---------------------------------------------------------------------------------------
paintWith(() => {
  if (!world.document) {
    if (ui.lost != null) draw(main, h`<p class="banner" role="status" data-key="away"><b>The gateway says nothing of the pool yet.</b> This page asks again by itself.</p>`)
    return
  }
  const begun = performance.now()
  see(world, ui)
  settle(begun)
  keepFocus(() => draw(main, h`${banner()}<div class="stack live" data-key="view-${ui.view}">${views[ui.view]()}</div>`))
  if (ui.ask && !$('.ask', main)) ui.ask = ''   // It has become pointless.
  // Once somebody has typed or chosen, the browser heeds no attribute.
  for (const [field, value] of [[$('#find', main), ui.find], [$('select[data-act=fn]', main), ui.fn]]) if (field && field.value !== value) field.value = value
  page.classList.toggle('away', away())
  for (const canvas of main.querySelectorAll('canvas[data-chart]')) charts.get(canvas.dataset.chart)?.(canvas)
  drawCells()
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
})
// Its first part is read out as it changes; the time that goes on is not.
function banner() {
  const since = (who, t, what) => [h`<b>The ${who} is away since ${clock(t)}.</b> Below is the last that was known. ${what}`, h`For ${about(world.now - t)}.`]
  const [text, more] = ui.over ? [h`<b>Your login session is over.</b> What you have typed stays here. <a href="${loginAddress()}" target="_blank">Log in</a> in another tab, and this page goes on.`]
    : ui.lost != null ? since('gateway', ui.lost, 'The page goes on by itself when one answers at this address.') : world.away != null ? since('broker', world.away, 'Maps go on when it is back.') : []
  return text && h`<p class="banner" data-key="away"><span role="status">${text}</span> ${more && h`<span class="quiet">${more}</span>`}</p>`
}
function paintGhost(canvas) {
  const w = canvas.clientWidth, c = canvas.getContext('2d'), r = devicePixelRatio || 1
  canvas.width = w * r; canvas.height = 96 * r; c.scale(r, r)
  for (let x = 0; x < w; x += 20) for (let y = 0; y < 5; y++) { c.fillStyle = colours.idle; c.globalAlpha = 0.9 - y * 0.16; c.fillRect(x, y * 20, 16, 16) }
  c.globalAlpha = 1; c.fillStyle = colours.fill; c.fillRect(still ? 0 : tick % Math.max(1, Math.floor(w / 20)) * 20, 0, 16, 16)
}

// ---- what is clicked and typed -------------------------------------------------------------------------
const acts = {
  theme: () => setTheme(page.dataset.theme === 'dark' ? 'light' : 'dark', true),
  help: () => help.showModal(),
  spot: b => { ui.spot = ui.spot === +b.dataset.i ? -1 : +b.dataset.i },
  state: b => { ui.state = b.dataset.s }, clear: () => Object.assign(ui, { find: '', state: 'all', fn: '' }),
  find: b => { ui.find = b.dataset.text; ui.carries = ui.view !== 'maps'; visit('#maps') },
  hosts: b => { ui.find = b.dataset.text; ui.carries = true; visit('#hosts') },
  older: () => { ui.older = Math.min(MOST_JOBS, ui.older + JOBS_AT_ONCE) },
  pause: b => setPause(b.dataset.id, true), resume: b => setPause(b.dataset.id, false),
  pool: b => steerPool(b.dataset.do === 'pause'), fnresume: b => steer(b.dataset.id, 'resume'),
  leave: b => leave(b.dataset.id),
  ask: b => startAsk(b.dataset.ask, b), no: dropAsk, yes: b => yes(b.dataset.ask, b.parentNode),
  open: b => { const k = b.dataset.id; if (ui.open.has(k)) ui.open.delete(k); else { ui.open.add(k); if (!k.includes(' ') && !ui.traces.get(k)?.traceback) trace(k) } },
  copy: b => copy(b.dataset.text, $('pre', b.parentNode)),
}
document.addEventListener('click', e => {
  if (e.target.closest?.('.skip')) { e.preventDefault(); return main.focus() }   // Its address would be that of a view.
  const b = e.target.closest?.('button[data-act]')
  if (!b || b.disabled) return
  acts[b.dataset.act]?.(b)
  if (!['ask', 'no', 'yes', 'theme', 'help', 'copy'].includes(b.dataset.act)) render()
})
document.addEventListener('input', e => { if (e.target.id === 'find') { ui.find = e.target.value; render() } })
document.addEventListener('change', e => { if (e.target.dataset.act === 'fn') { ui.fn = e.target.value; render() } })
// Browsers give a page its clipboard over HTTPS and on this machine only.
async function copy(text, shown) {
  try { await navigator.clipboard.writeText(text) } catch {
    getSelection().selectAllChildren(shown)
    if (!document.execCommand('copy')) return say('The browser does not let this page copy. The text is selected.')
  }
  say('Copied')
}
function toHost(i) { ui.find = world.hosts[i].name; ui.carries = true; visit('#hosts') }
onCells(toHost)
listen(acts, visit, toHost)

// ---- themes and addresses ----------------------------------------------------------------------------
const light = matchMedia('(prefers-color-scheme: light)')
function setTheme(theme, keep) {
  page.dataset.theme = theme
  if (keep) try { localStorage.setItem('jetmap theme', theme) } catch { /* a private window */ }
  readColours(); render()
}
function kept() { try { return localStorage.getItem('jetmap theme') } catch { return null } }
light.addEventListener('change', () => { if (!kept()) setTheme(light.matches ? 'light' : 'dark') })
// Go to a view at once: the browser announces a new address behind keys that are pressed already.
function visit(hash) { location.hash = hash; route() }
history.scrollRestoration = 'manual'
let shown = null, left = 0   // The address that is shown; the place in the list where a map was opened.
function route() {
  if (location.hash === shown) return
  shown = location.hash
  const [view, id] = shown.slice(1).split('/'), old = ui.view, oldId = ui.id
  let name = ''
  try { name = decodeURIComponent(id ?? '') } catch { /* not an address of ours */ }
  Object.assign(ui, { view: Object.hasOwn(views, view) ? view : 'now', id: name })
  // A link is heard of late: what was asked meanwhile of what it names stays.
  if (!name || !ui.ask.endsWith(`:${name}`)) ui.ask = ''
  // A filter belongs to its view; some links bring one along.
  const isBack = ui.view === 'maps' && old === 'map', isFurther = ui.view === 'map' && old === 'maps'
  if (old !== ui.view && !ui.carries && !isBack && !isFurther) ui.find = ''
  ui.carries = false
  if (ui.view === 'map' && old !== 'map') left = isFurther ? scrollY : 0
  document.title = `${titles[ui.view]} · jetmap`
  hideTip()
  render()
  if (isBack || isFurther && isWide()) {
    if (!isWide()) scrollTo(0, left)
    ;($(`tr[data-id="${CSS.escape(oldId || ui.id)}"] [data-row]`, main) ?? main).focus()
  } else if (old !== ui.view) { scrollTo(0, 0); main.focus({ preventScroll: true }) }
  // On a narrow page it is above the list.
  else if (ui.view === 'functions' && oldId !== ui.id && innerWidth <= 1100) { scrollTo(0, 0); $('[data-key^="fd-"]', main)?.focus({ preventScroll: true }) }
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
setInterval(async () => { if (ui.over && !document.hidden && await isLoggedIn()) { ui.over = false; showing() } }, 3000)
showing()
route()
