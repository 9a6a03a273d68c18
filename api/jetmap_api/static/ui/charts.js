// Small charts on canvas, and the grid of cores.
import { edge, quantile } from './dom.js'

export const OTHER = 8, IDLE = 32, STARTING = 33, FAILED = 34, DRAINING = 35, UNKNOWN = 36, STATES = 40
export const colours = {}
let words = []   // One 32-bit pixel a state, for the small cells.
export function readColours() {
  const css = getComputedStyle(document.documentElement)
  for (const k of ['ground', 'panel', 'line', 'edge', 'text', 'quiet', 'fill', 'bad', 'info', 'idle']) colours[k] = css.getPropertyValue(`--${k}`).trim()
  colours.f = Array.from({ length: 9 }, (_, i) => css.getPropertyValue(`--f${i}`).trim())
  colours.on = Array.from({ length: 9 }, (_, i) => css.getPropertyValue(`--o${i}`).trim())
  const word = hex => { const v = parseInt(hex.slice(1), 16); return (0xff << 24 | (v & 255) << 16 | (v >> 8 & 255) << 8 | v >> 16) >>> 0 }
  words = new Array(STATES).fill(word(colours.idle))
  colours.f.forEach((f, i) => { words[i] = word(f) })
  words[STARTING] = words[DRAINING] = word(colours.info); words[FAILED] = word(colours.bad); words[UNKNOWN] = word(colours.line)
}
function begin(canvas) {
  const r = devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight
  if (canvas.width !== Math.round(w * r) || canvas.height !== Math.round(h * r)) { canvas.width = Math.round(w * r); canvas.height = Math.round(h * r) }
  const c = canvas.getContext('2d')
  c.setTransform(r, 0, 0, r, 0, 0); c.clearRect(0, 0, w, h)
  c.font = '12px Inter, system-ui, sans-serif'; c.lineJoin = 'round'
  return [c, w, h]
}
// Points that were not measured leave a gap.
function line(c, list, x, y) { let pen = false; c.beginPath(); list.forEach((v, i) => { if (v == null) pen = false; else { if (pen) c.lineTo(x(i), y(v)); else c.moveTo(x(i), y(v)); pen = true } }) }
const last = list => { for (let i = list.length - 1; i >= 0; i--) if (list[i] != null) return [i, list[i]]; return null }

export function spark(canvas, list, { bad } = {}) {
  const [c, w, h] = begin(canvas), top = Math.max(...list.map(v => v ?? 0), 1e-9) * 1.05, count = Math.max(2, list.length)
  const x = i => 1 + i / (count - 1) * (w - 6), y = v => h - 2 - v / top * (h - 6)
  line(c, list, x, y); c.strokeStyle = bad ? colours.bad : colours.quiet; c.lineWidth = 1.25; c.stroke()
  const end = last(list)
  if (end) { c.beginPath(); c.arc(x(end[0]), y(end[1]), 2.5, 0, 7); c.fillStyle = bad ? colours.bad : colours.fill; c.fill() }
}
export function bars(canvas, list, colour) {
  const [c, w, h] = begin(canvas), top = Math.max(...list, 1), step = w / list.length
  c.fillStyle = colours.line; c.fillRect(0, h - 1, w, 1); c.fillStyle = colour
  list.forEach((v, i) => { const b = v ? Math.max(2, v / top * (h - 2)) : 0; c.fillRect(i * step, h - b, Math.max(1, step - 1), b) })
}
const round = v => { const p = 10 ** Math.floor(Math.log10(v || 1)); return [1, 2, 4, 5, 10].find(k => k * p >= v) * p }
export function area(canvas, list, { second, names, level, unit, least = 1e-9, x: ends, most = list.length }) {
  const known = [...list, ...second ?? []].filter(v => v != null)
  const [c, w, h] = begin(canvas), top = round(Math.max(...known, level ?? 0, least) * 1.02), foot = h - 20
  const left = Math.max(c.measureText(unit(top)).width, c.measureText(unit(top / 2)).width) + 8, right = w - (second ? c.measureText(`${names[0]} 00.0 ms`).width + 8 : 0)
  // A curve that began a moment ago ends at the right edge, as a full one does.
  const skip = Math.max(0, most - list.length), x = i => left + (i + skip) / Math.max(1, most - 1) * (right - left), y = v => foot - v / top * (foot - 8), end = last(list)
  c.lineWidth = 1
  for (const v of [0, top / 2, top]) { c.fillStyle = colours.line; c.fillRect(left, Math.round(y(v)), right - left, 1); c.fillStyle = colours.quiet; c.textAlign = 'right'; if (v) c.fillText(unit(v), left - 8, y(v) + 4) }
  line(c, list, x, y)
  c.strokeStyle = colours.fill; c.lineWidth = 1.5; c.stroke()
  if (!second && list.length > 1) { c.lineTo(x(list.length - 1), foot); c.lineTo(x(0), foot); c.globalAlpha = 0.16; c.fillStyle = colours.fill; c.fill(); c.globalAlpha = 1 }
  if (second) { line(c, second, x, y); c.strokeStyle = colours.text; c.stroke() }
  if (level != null) { c.setLineDash([4, 4]); c.strokeStyle = colours.quiet; c.beginPath(); c.moveTo(left, y(level)); c.lineTo(right, y(level)); c.stroke(); c.setLineDash([]) }
  c.fillStyle = colours.quiet; c.textAlign = 'left'; c.fillText(ends[0], left, h - 4); c.textAlign = 'right'; c.fillText(ends[1], right, h - 4)
  if (second && end) { const low = last(second), at = Math.min(foot, y(low[1]) + 4); c.textAlign = 'left'; c.fillStyle = colours.text; c.fillText(`${names[0]} ${unit(end[1])}`, right + 8, Math.min(at - 16, y(end[1]) + 4)); c.fillText(`${names[1]} ${unit(low[1])}`, right + 8, at) }
  canvas.hover = px => { const i = Math.round((px - left) / (right - left) * (most - 1)) - skip, v = list[i]; return v == null ? '' : second ? `${names[0]} ${unit(v)}\n${names[1]} ${unit(second[i])}` : unit(v) }
}
export function histogram(canvas, bins, secs) {
  const keys = Object.keys(bins).map(Number), first = Math.min(...keys), end = Math.max(...keys), n = Math.max(24, end - first + 5), low = first - Math.floor((n - (end - first + 1)) / 2)
  const [c, w, h] = begin(canvas), top = Math.max(...Object.values(bins)), step = w / n, foot = h - 20
  // The square root keeps a tail of a few items visible beside thousands.
  for (const k of keys) { const b = Math.max(1, Math.sqrt(bins[k] / top) * (foot - 28)); c.fillStyle = colours.edge; c.fillRect((k - low) * step, foot - b, Math.max(1, step - 1), b) }
  c.fillStyle = colours.line; c.fillRect(0, foot, w, 1)
  const at = s => (Math.log10(s) * 10 + 60 - low) * step
  c.fillStyle = colours.quiet; c.textAlign = 'center'
  for (let d = Math.ceil((low - 60) / 10); at(10 ** d) < w - 20; d++) if (at(10 ** d) > 20) { c.fillRect(Math.round(at(10 ** d)), foot, 1, 4); c.fillText(secs(10 ** d), at(10 ** d), h - 3) }
  let free = 0
  for (const [name, part] of [['p50', 0.5], ['p95', 0.95], ['p99', 0.99]]) {
    const s = quantile(bins, part), px = Math.round(at(s)), t = `${name} ${secs(s)}`, b = c.measureText(t).width, wish = Math.min(w - b, px - 12), left = Math.max(free, wish), below = left + b > w
    c.fillStyle = colours.fill; c.fillRect(px, 16, 1.5, foot - 16)
    c.textAlign = 'left'; c.fillStyle = colours.text; c.fillText(t, below ? Math.min(w - b, px + 6) : left, below ? 28 : 11); if (!below) free = left + b + 10
  }
  canvas.hover = px => { const k = low + Math.floor(px / step); return bins[k] ? `${secs(edge(k))} to ${secs(edge(k + 1))}: ${bins[k]} item${bins[k] === 1 ? '' : 's'}` : '' }
}

// ---- the grid of cores: the largest cell that still shows every host -------------------------------
export function layoutCells(canvas, world) {
  const w = canvas.clientWidth, hosts = world.hosts.length, per = world.perHost, most = w < 500 ? 1200 : Math.max(440, innerHeight - 330)
  let best = null
  for (const cols of [2, 4, 8, 16, 32]) {
    if (cols > per && cols > 2) continue
    for (let cell = w < 500 ? 36 : 56; cell > 1; cell--) {
      const tiny = cell < 12, gap = tiny ? 0 : 4, title = tiny ? 0 : 24, pad = tiny ? (cell > 5 ? 6 : cell + 1) : 24, rows = Math.ceil(per / cols)
      const bw = Math.max(tiny ? 0 : 132, cols * (cell + gap) - gap), bh = rows * (cell + gap) - gap + title, perRow = Math.min(hosts, Math.floor((w + pad) / (bw + pad)))
      if (perRow < 1) continue
      const height = Math.ceil(hosts / perRow) * (bh + pad) - pad + 4
      if (height > most && cell > (w < 500 ? 2 : 3)) continue
      if (!best || cell > best.cell || (cell === best.cell && height < best.height)) best = { cols, cell, gap, title, pad, bw, bh, perRow, height, tiny, width: w }
      break
    }
  }
  if (best) best.corner = i => [(i % best.perRow) * (best.bw + best.pad) + 2, Math.floor(i / best.perRow) * (best.bh + best.pad) + 2]
  if (best && canvas.style.height !== best.height + 'px') canvas.style.height = best.height + 'px'
  return best
}
export function hitCell(at, x, y, world) {
  if (!at) return null
  const bx = Math.floor((x - 2) / (at.bw + at.pad)), by = Math.floor((y - 2) / (at.bh + at.pad)), host = by * at.perRow + bx
  if (bx < 0 || by < 0 || bx >= at.perRow || host >= world.hosts.length) return null
  const pitch = at.cell + at.gap, cx = Math.floor((x - 2 - bx * (at.bw + at.pad)) / pitch), cy = Math.floor((y - 2 - by * (at.bh + at.pad) - at.title) / pitch), k = cy * at.cols + cx
  return cx < 0 || cy < 0 || cx >= at.cols || k >= world.hosts[host].cores ? null : { host, core: k }
}
const trouble = { failed: 'bad', gone: 'bad', draining: 'info', starting: 'info' }
export function paintCells(canvas, world, at, ui) {
  if (at) (at.tiny ? paintTiny : paintLarge)(canvas, world, at, ui)
}
function paintTiny(canvas, world, at, ui) {
  const r = devicePixelRatio || 1, W = Math.round(at.width * r), H = Math.round(at.height * r)
  if (canvas.width !== W || canvas.height !== H || !canvas.pixels) { canvas.width = W; canvas.height = H; canvas.image = new ImageData(W, H); canvas.pixels = new Uint32Array(canvas.image.data.buffer) }
  const px = canvas.pixels, pitch = Math.round(at.cell * r), size = at.cell > 5 ? pitch - Math.max(1, Math.round(r)) : pitch, count = new Uint16Array(STATES), spot = ui.spot
  px.fill(0)
  for (let i = 0; i < world.hosts.length; i++) {
    const host = world.hosts[i], [x, y] = at.corner(i), x0 = Math.round(x * r), y0 = Math.round(y * r)
    count.fill(0)
    for (let k = host.first, end = k + host.cores; k < end; k++) count[world.cells[k]]++
    // One line of pixels for each row of cells, then its copies: tens of thousands of cells in a few milliseconds.
    const line = k => (y0 + Math.floor(k / at.cols) * pitch) * W + x0
    let k = 0
    for (let n = spot < 0 ? 0 : -1; n < STATES; n++) {
      const s = n < 0 ? spot : n
      if (n === spot && n >= 0) continue
      const pixel = spot < 0 || spot === s ? words[s] : words[IDLE], most = size === pitch ? at.cols : 1
      for (let left = count[s], some; left > 0; left -= some, k += some) {
        some = Math.min(left, most, at.cols - k % at.cols)
        const from = line(k) + (k % at.cols) * pitch
        px.fill(pixel, from, from + (some - 1) * pitch + size)
      }
    }
    const width = at.cols * pitch
    for (k = 0; k < host.cores; k += at.cols) for (let row = 1, from = line(k); row < size; row++) px.copyWithin(from + row * W, from, from + width)
  }
  const c = canvas.getContext('2d')
  c.setTransform(1, 0, 0, 1, 0, 0); c.putImageData(canvas.image, 0, 0); c.setTransform(r, 0, 0, r, 0, 0)
  world.hosts.forEach((host, i) => { if (trouble[host.state] || i === ui.host) ring(c, at, i, i === ui.host ? colours.text : colours[trouble[host.state]], 1.5) })
}
function ring(c, at, i, colour, width) { const [x, y] = at.corner(i); c.strokeStyle = colour; c.lineWidth = width; c.strokeRect(x - 2, y - 2, at.bw + 3, at.bh + 3) }
export const MARKS = { [STARTING]: '◌', [DRAINING]: '↓', [FAILED]: '✕', [UNKNOWN]: '?' }
function paintLarge(canvas, world, at, ui) {
  const [c] = begin(canvas)
  canvas.pixels = null
  world.hosts.forEach((host, i) => {
    const [x, y] = at.corner(i)
    let busy = 0
    for (let k = 0; k < host.cores; k++) {
      const s = world.cells[host.first + k], cx = x + (k % at.cols) * (at.cell + at.gap), cy = y + at.title + Math.floor(k / at.cols) * (at.cell + at.gap), dim = ui.spot >= 0 && ui.spot !== s
      if (s < 32) busy++
      c.globalAlpha = dim ? 0.16 : 1
      c.beginPath(); c.roundRect(cx + 0.5, cy + 0.5, at.cell - 1, at.cell - 1, Math.min(5, at.cell / 6)); c.fillStyle = s < 32 ? colours.f[s] : colours.idle; c.fill()
      let mark = '', ink = colours.on[s]
      if (s < 32) mark = world.markAt(host, k)
      else if (s !== IDLE) { mark = MARKS[s]; ink = s === FAILED || s === UNKNOWN ? colours.bad : colours.info; c.strokeStyle = ink; c.lineWidth = 1.5; if (s === STARTING) c.setLineDash([3, 3]); c.stroke(); c.setLineDash([]) }
      if (mark && at.cell >= 16) { c.fillStyle = ink; c.font = `600 ${Math.round(at.cell * 0.4)}px ui-monospace, Menlo, monospace`; c.textAlign = 'center'; c.textBaseline = 'middle'; c.fillText(mark, cx + at.cell / 2, cy + at.cell / 2 + 1) }
    }
    c.globalAlpha = 1; c.textBaseline = 'alphabetic'; c.textAlign = 'left'
    c.font = '600 13px Inter, system-ui, sans-serif'; c.fillStyle = trouble[host.state] === 'bad' ? colours.bad : colours.text
    const note = host.state === 'up' ? `${busy} of ${host.cores} busy` : host.state === 'gone' ? 'silent' : host.state
    let name = host.name
    c.font = '12px Inter, system-ui, sans-serif'; const room = at.bw - c.measureText(note).width - 12
    c.font = '600 13px Inter, system-ui, sans-serif'
    while (name.length > 4 && c.measureText(name).width > room) name = name.slice(0, -2) + '…'
    c.fillText(name, x, y + 13)
    const wide = c.measureText(name).width; c.font = '12px Inter, system-ui, sans-serif'; if (host.state === 'up') c.fillStyle = colours.quiet
    c.fillText(note, x + wide + 8, y + 13)
    if (i === ui.host && document.activeElement === canvas) { c.strokeStyle = colours.text; c.lineWidth = 1.5; c.strokeRect(x - 1.5, y - 1.5, at.bw + 3, at.bh + 3) }
  })
}
