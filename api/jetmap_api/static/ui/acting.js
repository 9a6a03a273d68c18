// Acting: ask first where it matters, post, show '… ing' until an announcement confirms it.
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
  if (what === 'pausepool') return steerPool(true)
  if (what === 'pausefn') return steer(id, 'pause')
  if (what === 'limitfn') return steer(id, 'limit', cores(box))
  if (what === 'retry') act(id, 'Starting', `/jobs/${encodeURIComponent(id)}/retry`, undefined, `The failed items of ${id.slice(-6)} run again.`, () => { const now = world.find(id); return now && (isOpen(now) || now.ended !== m?.ended) })
  if (what === 'cancel') act(id, 'Cancelling', `${path}/cancel`, undefined, `Cancelled ${id.slice(-6)}. Its cores are free.`, () => !openMap(id))
  if (what === 'limit') { const v = cores(box); act(id, 'Setting', m?.kind === 'job' ? `${path}/limit${v ? `?max_parallel=${v}` : ''}` : `${path}/limit`, m?.kind === 'job' ? undefined : { cores: v }, v ? `${id.slice(-6)} takes at most ${plural(v, 'core')}.` : `${id.slice(-6)} has no limit of its own.`, () => { const now = openMap(id); return !now || (now.limit ?? null) === (v || null) }) }
}
const cores = box => Math.max(0, Math.floor(Number($('[data-field=limit]', box).value) || 0))
export function steer(name, what, v) {
  const [word, said] = { pause: ['Pausing', `Paused ${name}. Items that are being computed end.`], resume: ['Resuming', `Resumed ${name}.`], limit: ['Setting', v ? `${name} takes at most ${plural(v, 'core')}.` : `${name} has no limit of its own.`] }[what]
  const is = () => { const f = world.byName.get(name); return !f || (what === 'limit' ? f.limit === (v || f.declared) : f.paused === (what === 'pause')) }
  act(`fn:${name}`, word, `/ui/functions/${encodeURIComponent(name)}/${what}`, what === 'limit' ? { cores: v } : undefined, said, is)
}
export function steerPool(on) { act('pool', on ? 'Pausing' : 'Resuming', `/ui/pool/${on ? 'pause' : 'resume'}`, undefined, on ? 'Paused the pool. Items that are being computed end.' : 'Resumed the pool.', () => world.document.paused === on) }
function pathOf(m, id) { return `${m?.kind === 'job' ? '/jobs' : '/ui/maps'}/${encodeURIComponent(id)}` }
export function setPause(id, on) {
  const m = openMap(id)
  if (m && !away()) act(id, on ? 'Pausing' : 'Resuming', `${pathOf(m, id)}/${on ? 'pause' : 'resume'}`, undefined, on ? `Paused ${id.slice(-6)}. Chunks under way finish.` : `Resumed ${id.slice(-6)}.`, () => { const now = openMap(id); return !now || isPaused(now) === on })
}
let back = ''   // What has the focus again once a question is dropped: the button that asked, or the row of a key press.
export function startAsk(key) {
  const at = document.activeElement, row = at?.closest('tr[data-key]')?.dataset.key
  back = row && at.dataset.ask !== key ? `tr[data-key="${CSS.escape(row)}"] [data-row]` : `[data-ask="${CSS.escape(key)}"]`
  ui.ask = key; render()
  ;($('.ask input', main) ?? $('.ask [data-act=no]', main))?.focus()
}
export function dropAsk() {
  ui.ask = ''; render()
  $(back, main)?.focus()
}
