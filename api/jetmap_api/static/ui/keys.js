// The keyboard: to views and rows, on the row's map, in the grid of cores.
import { dropAsk, setPause, startAsk } from './acting.js'
import { hideTip, onArrow } from './grid.js'
import { $, help, main, render, ui, world } from './page.js'
import { away, isOpen, isPaused } from './views.js'

const VIEWS = { n: 'now', m: 'maps', f: 'failures', u: 'functions', h: 'hosts' }
let go = false   // The next key names a view.
// acts: what buttons do. visit: goes to a view. toHost: shows one host of the grid.
export function listen(acts, visit, toHost) {
  document.addEventListener('keydown', e => {
    if (help.open) return   // Its keys are its own.
    const at = document.activeElement, isTyping = at?.matches('input, textarea, select') ?? false, isPlain = !e.ctrlKey && !e.metaKey && !e.altKey
    if (e.repeat && isPlain && !mayRepeat(e.key, at, isTyping)) return e.preventDefault()
    if (e.key === 'Escape') return escape(at, visit)
    if (e.key === 'Enter' && at?.dataset.field === 'limit') return $('[data-act=yes]', at.parentNode).click()
    if (!isPlain || isTyping || !world.document) return
    if (go) { go = false; const to = VIEWS[e.key]; if (to) { visit(`#${to}`); e.preventDefault() } return }
    const row = at?.closest('tr[data-id]')?.dataset.id ?? (ui.view === 'map' ? ui.id : null), m = row && world.find(row)
    if (e.key === 'g') go = true
    // The field is there at once: what is typed next is text.
    else if (e.key === '/') { e.preventDefault(); if (!$('#find')) visit('#maps'); $('#find')?.focus() }
    else if (e.key === '?') acts.help()
    else if (e.key === 't') acts.theme()
    else if (e.key === 'j' || e.key === 'k') toRow(at, e.key === 'j' ? 1 : -1)
    else if (e.key === 'p' && m) setPause(row, !isPaused(m))
    else if (e.key === 'c' && m && isOpen(m) && !away() && !ui.busy.has(row)) startAsk(`cancel:${row}`)
    else if (/^[1-8]$/.test(e.key) && ui.view === 'now') { acts.spot({ dataset: { i: e.key - 1 } }); render() }
    else if (at?.matches('[data-cells]')) {
      if (e.key.startsWith('Arrow')) { e.preventDefault(); onArrow(e.key) }
      else if (e.key === 'Enter' && ui.host >= 0) toHost(ui.host)
    }
  })
}
// Whether a key that is held goes on: not one that acts, and Enter only in a text of several lines.
function mayRepeat(key, at, isTyping) {
  if (key === 'Enter') return at?.nodeName === 'TEXTAREA'
  return isTyping || key.length > 1 || 'jk '.includes(key)
}
// To the next row, from the one that holds the focus or that is shown beside the list.
function toRow(at, step) {
  const all = [...main.querySelectorAll('[data-row]')], rowOf = link => link.closest('tr, li')
  const held = all.findIndex(link => rowOf(link).contains(at)), from = held < 0 ? all.findIndex(link => rowOf(link).ariaSelected === 'true') : held
  all[Math.min(all.length - 1, Math.max(0, from + step))]?.focus()
}
// Back by one step, or keep things as they are.
function escape(at, visit) {
  if (ui.ask) return dropAsk()
  if (at?.id === 'find') { ui.find = ''; at.blur(); return render() }
  if (hideTip()) return
  if (ui.spot >= 0 && ui.view === 'now') { ui.spot = -1; return render() }
  if (ui.view === 'map') visit('#maps')
}
