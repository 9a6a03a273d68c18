// Acting: ask first where it matters, post, show '… ing' until an announcement confirms it. The focus stays where the buttons were.
import { plural } from './dom.js'
import { post } from './gateway.js'
import { $, main, render, say, ui, world } from './page.js'
import { away, isOpen, isPaused } from './views.js'

const PATIENCE = 8000   // Milliseconds for the announcement; a later one is believed as any other.
export function settle(now) {
  for (const [key, b] of ui.busy) if (b.posted && (b.is() || now > b.until)) ui.busy.delete(key)
}
async function act(id, word, path, body, text, is) {
  const busy = { word, is, posted: false, until: 0 }
  ui.busy.set(id, busy); ui.ask = ''; render()
  try {
    const { ok, found } = await post(path, body && JSON.stringify(body))
    say(ok ? text : found?.detail ?? found?.title ?? 'It could not be done.')
    if (ok && found?.id === id) world.keep([found])   // A job: it may be one that nobody announces yet.
    if (ok) Object.assign(busy, { posted: true, until: performance.now() + PATIENCE }); else ui.busy.delete(id)
  } catch { say('The gateway does not answer. It is not known whether anything was changed.'); ui.busy.delete(id) }
  render()
}
const openMap = id => { const m = world.find(id); return m && isOpen(m) ? m : null }
export function yes(key, box) {
  const at = key.indexOf(':'), what = key.slice(0, at), id = key.slice(at + 1), m = world.find(id), path = pathOf(m, id)
  // A field without a number reads as empty, which ends the limit.
  if ($('[data-field=limit]', box)?.reportValidity() === false) return
  if (what === 'pausepool') return steerPool(true)
  if (what === 'pausefn') return steer(id, 'pause')
  if (what === 'limitfn') return steer(id, 'limit', cores(box))
  if (what === 'retry') act(id, 'Starting', `/jobs/${encodeURIComponent(id)}/retry`, undefined, `The failed items of ${id.slice(-6)} run again.`, () => { const now = world.find(id); return now && (isOpen(now) || now.ended !== m?.ended) })
  if (what === 'cancel') act(id, 'Cancelling', `${path}/cancel`, undefined, `Cancelled ${id.slice(-6)}. Its cores are free.`, () => !openMap(id))
  if (what === 'limit') { const v = cores(box); act(id, 'Setting', m?.kind === 'job' ? `${path}/limit${v ? `?max_parallel=${v}` : ''}` : `${path}/limit`, m?.kind === 'job' ? undefined : { cores: v }, v ? `${id.slice(-6)} takes at most ${plural(v, 'core')}.` : `${id.slice(-6)} has no limit of its own.`, () => { const now = openMap(id); return !now || (now.limit ?? null) === (v || null) }) }
}
const cores = box => Number($('[data-field=limit]', box).value)
export function steer(name, what, v) {
  const [word, said] = { pause: ['Pausing', `Paused ${name}. Items that are being computed end.`], resume: ['Resuming', `Resumed ${name}.`], limit: ['Setting', v ? `${name} takes at most ${plural(v, 'core')}.` : `${name} has no limit of its own.`] }[what]
  const is = () => { const f = world.byName.get(name); return !f || (what === 'limit' ? f.limit === (v || f.declared) : f.paused === (what === 'pause')) }
  act(`fn:${name}`, word, `/ui/functions/${encodeURIComponent(name)}/${what}`, what === 'limit' ? { cores: v } : undefined, said, is)
}
export function steerPool(on) { act('pool', on ? 'Pausing' : 'Resuming', `/ui/pool/${on ? 'pause' : 'resume'}`, undefined, on ? 'Paused the pool. Items that are being computed end.' : 'Resumed the pool.', () => world.document.paused === on) }
function pathOf(m, id) { return `${m?.kind === 'job' ? '/jobs' : '/ui/maps'}/${encodeURIComponent(id)}` }
export function setPause(id, on) {
  const m = openMap(id)
  if (m && !away() && !ui.busy.has(id)) act(id, on ? 'Pausing' : 'Resuming', `${pathOf(m, id)}/${on ? 'pause' : 'resume'}`, undefined, on ? `Paused ${id.slice(-6)}. Chunks under way finish.` : `Resumed ${id.slice(-6)}.`, () => { const now = openMap(id); return !now || isPaused(now) === on })
}

// ---- questions and the focus -------------------------------------------------------------------------
const inDetail = e => e?.closest('[data-key=detail]') != null
const rowLink = id => `tr[data-key="${CSS.escape(id)}"] [data-row]`
let began = ''   // The button, by its key, that had the focus last.
let back = ''    // What has the focus again once a question is dropped: the button that asked, or the row of a key press.
// by: the button that asks, or whatever had the focus as a key was pressed.
export function startAsk(key, by = document.activeElement) {
  const row = by?.closest('tr[data-key]')?.dataset.key
  // A wide page shows a map's buttons twice; the question is where it was asked.
  ui.asker = row ? 'list' : 'detail'
  back = row && by.dataset.ask !== key ? rowLink(row) : `${inDetail(by) ? '[data-key=detail] ' : ''}[data-ask="${CSS.escape(key)}"]`
  ui.ask = key; render()
  ;($('.ask input', main) ?? $('.ask [data-act=no]', main))?.focus()
}
export function dropAsk() {
  ui.ask = ''; render()
  $(back, main)?.focus()
}
// Draw; if that takes away what has the focus in a box of buttons, the focus goes to what stands there now: the word of an
// action under way, the safe answer, the button that replaced the first one; else to its row, else to the page's main part.
export function keepFocus(drawing) {
  const at = document.activeElement, box = at?.closest('[data-of]'), row = at?.closest('tr[data-key], li[data-key]')?.dataset.key, side = inDetail(at)
  if (box && at.nodeName === 'BUTTON' && at.dataset.key) began = at.dataset.key
  drawing()
  if (!box || at.isConnected && !at.disabled) return
  const boxes = [...main.querySelectorAll(`[data-of="${CSS.escape(box.dataset.of)}"]`)], now = boxes.find(e => inDetail(e) === side) ?? boxes[0]
  const next = now && ($('[data-busy]', now) ?? $('.ask input', now) ?? $('.ask [data-act=no]', now) ?? $(`[data-key="${began}"]:enabled`, now) ?? $('button:enabled', now))
  ;(next ?? (row && $(`[data-key="${CSS.escape(row)}"] [data-row]`, main)) ?? main).focus({ preventScroll: true })
}
