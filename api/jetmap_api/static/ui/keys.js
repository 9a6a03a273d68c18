// The keyboard: to views and rows, on the row's map, in the grid of cores.
import { dropAsk, setPause, startAsk } from './acting.js'
import { onArrow } from './grid.js'
import { $, help, main, render, ui, world } from './page.js'
import { away, isOpen, isPaused } from './views.js'

const VIEWS = { n: 'now', m: 'maps', f: 'failures', u: 'functions', h: 'hosts' }
let go = false   // The next key names a view.
// acts: what buttons do. toHost: show one host of the grid.
export function listen(acts, toHost) {
  document.addEventListener('keydown', e => {
    if (e.key === 'Escape') return escape()
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches?.('input, textarea, select') || help.open || !world.document) return
    if (go) { go = false; const to = VIEWS[e.key]; if (to) { location.hash = to; e.preventDefault() } return }
    const at = document.activeElement, row = at?.closest('tr[data-id]')?.dataset.id ?? (ui.view === 'map' ? ui.id : null), m = row && world.find(row)
    if (e.key === 'g') { go = true; setTimeout(() => { go = false }, 1200) }
    else if (e.key === '/') { e.preventDefault(); if (!$('#find')) location.hash = 'maps'; setTimeout(() => $('#find')?.focus(), 50) }
    else if (e.key === '?') acts.help()
    else if (e.key === 't') acts.theme()
    else if (e.key === 'j' || e.key === 'k') { const all = [...main.querySelectorAll('[data-row]')], i = all.indexOf(at); all[Math.min(all.length - 1, Math.max(0, i + (e.key === 'j' ? 1 : -1)))]?.focus() }
    else if (e.key === 'p' && m) setPause(row, !isPaused(m))
    else if (e.key === 'c' && m && isOpen(m) && !away()) startAsk(`cancel:${row}`)
    else if (/^[1-8]$/.test(e.key) && ui.view === 'now') { acts.spot({ dataset: { i: e.key - 1 } }); render() }
    else if (at?.matches('[data-cells]')) {
      if (e.key.startsWith('Arrow')) { e.preventDefault(); onArrow(e.key) }
      else if (e.key === 'Enter' && ui.host >= 0) toHost(ui.host)
    }
  })
}
// Back by one step, or keep things as they are.
function escape() {
  const at = document.activeElement
  if (ui.ask) return dropAsk()
  if (at?.id === 'find') { ui.find = at.value = ''; at.blur(); return render() }
  if (ui.spot >= 0) { ui.spot = -1; return render() }
  if (ui.view === 'map') location.hash = '#maps'
}
