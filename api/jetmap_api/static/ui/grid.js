// The grid of cores under the pointer and the arrow keys, and the tip beside either.
import { layoutCells, paintCells, hitCell, IDLE, STARTING, FAILED, DRAINING, UNKNOWN } from './charts.js'
import { $, main, render, ui, world } from './page.js'
import { hostText } from './views.js'

const tip = $('#tip'), spoken = $('#spoken')
let cellsAt = null, chosen = '', isByKeys = false   // chosen: the host on which the arrow keys are; the tip shows it, if it is by keys.
export function drawCells() {
  const canvas = $('canvas[data-cells]', main)
  if (!canvas) return
  ui.host = world.hosts.findIndex(x => x.id === chosen)
  cellsAt = layoutCells(canvas, world); paintCells(canvas, world, cellsAt, ui)
  if (isByKeys) showHost(canvas)
}
// Go from host to host.
export function onArrow(key) {
  if (!cellsAt) return
  const d = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: cellsAt.perRow, ArrowUp: -cellsAt.perRow }[key]
  const next = Math.min(world.hosts.length - 1, Math.max(0, ui.host + d))
  if (next < 0) return
  chosen = world.hosts[next].id; isByKeys = true; render()
  spoken.textContent = hostText(next).replaceAll('\n', ', ')
}
function showHost(canvas) {
  if (ui.host < 0) return hideTip()   // It has left.
  const r = canvas.getBoundingClientRect(), [x, y] = cellsAt.corner(ui.host)
  showTip(hostText(ui.host), r.left + x, r.top + y)
}
// Return whether there was one by keys.
export function hideTip() {
  const was = isByKeys
  isByKeys = false
  tip.style.visibility = 'hidden'
  return was
}
document.addEventListener('focusout', e => { if (e.target.dataset.cells != null) hideTip() })
function showTip(text, x, y) {
  tip.textContent = text; tip.style.visibility = 'visible'
  const b = tip.getBoundingClientRect()
  tip.style.transform = `translate(${Math.round(Math.max(8, Math.min(innerWidth - b.width - 8, x + 12)))}px, ${Math.round(Math.max(8, y - b.height - 8))}px)`
}
document.addEventListener('pointermove', e => {
  isByKeys = false
  const canvas = e.target
  if (canvas.nodeName !== 'CANVAS' || !world.document) return hideTip()
  const r = canvas.getBoundingClientRect(), x = e.clientX - r.left, y = e.clientY - r.top
  if (canvas.dataset.cells != null) {
    const at = hitCell(cellsAt, x, y, world)
    if (!at) return hideTip()
    const host = world.hosts[at.host], s = world.cells[host.first + at.core], word = s < 32 ? world.functionAt(host, at.core)?.name : { [IDLE]: 'idle', [STARTING]: 'starting', [FAILED]: 'failed, a new worker starts', [DRAINING]: 'draining', [UNKNOWN]: 'silent' }[s]
    showTip(cellsAt.tiny ? hostText(at.host) : `${host.name}, worker ${at.core}\n${word}`, e.clientX, e.clientY)
  } else { const text = canvas.hover?.(x); if (text) showTip(text, e.clientX, r.top + 8); else hideTip() }
})
export function onCells(open) { document.addEventListener('click', e => { if (e.target.dataset?.cells != null) { const at = hitCell(cellsAt, e.offsetX, e.offsetY, world); if (at) open(at.host) } }) }
