// HTML from templates, patched into the page; and numbers as people read them.

class Html { constructor(text) { this.text = text } }
const flat = v => v == null || v === false ? '' : v instanceof Html ? v.text : Array.isArray(v) ? v.map(flat).join('') : String(v).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`)

// Everything is escaped unless this tag made it.
export const h = (t, ...v) => new Html(t.reduce((all, s, i) => all + flat(v[i - 1]) + s))

// Make `from` hold what the template holds, touching only what differs: focus, selection and scroll stay.
const holder = document.createElement('template')
export function draw(from, html) { holder.innerHTML = flat(html); morph(from, holder.content) }

function morph(from, to) {
  const keyed = new Map(), wanted = new Set()
  for (const c of from.children) if (c.dataset.key) keyed.set(c.dataset.key, c)
  for (const c of to.children) if (c.dataset.key) wanted.add(c.dataset.key)
  let at = from.firstChild
  for (const want of [...to.childNodes]) {
    const key = want.nodeType === 1 ? want.dataset.key : undefined
    const have = key ? keyed.get(key) : at
    if (have && have.nodeName === want.nodeName && (key || have.nodeType !== 1 || !have.dataset.key)) {
      if (have !== at) at = clear(from, at, have, wanted)
      if (have !== at) bring(from, at, have)
      if (have.nodeType === 3) { if (have.data !== want.data) have.data = want.data } else if (!have.isEqualNode(want)) adopt(have, want)
      at = have.nextSibling
    } else from.insertBefore(want, at)
    if (key) { wanted.delete(key); keyed.delete(key) }
  }
  while (at) { const next = at.nextSibling; at.remove(); at = next }
}
// Remove what stands before an element and is not wanted any more. Return what then stands first.
function clear(from, at, have, wanted) {
  while (at && at !== have && !wanted.has(at.dataset?.key)) { const next = at.nextSibling; at.remove(); at = next }
  return at
}
// Put an element before another. What is moved loses its focus, and what is selected in it: then the others move around it.
function bring(from, at, have) {
  const others = []
  for (let e = at; e !== have; e = e.nextSibling) others.push(e)
  if (rank(have) <= Math.max(...others.map(rank))) return move(from, have, at)
  const after = have.nextSibling
  for (const e of others) move(from, e, after)
}
function rank(node) {
  if (node.contains(document.activeElement)) return 2
  const chosen = getSelection()
  return !chosen.isCollapsed && chosen.containsNode(node, true) ? 1 : 0
}
// It would lose its place of scrolling, too.
function move(from, node, at) {
  const places = node.nodeType === 1 ? [...node.querySelectorAll('pre')].filter(e => e.scrollTop).map(e => [e, e.scrollTop]) : []
  from.insertBefore(node, at)
  for (const [e, y] of places) e.scrollTop = y
}
function adopt(have, want) {
  const isCanvas = have.nodeName === 'CANVAS'
  for (const { name, value } of [...want.attributes]) if (have.getAttribute(name) !== value) have.setAttribute(name, value)
  for (const { name } of [...have.attributes]) if (!want.hasAttribute(name) && !(isCanvas && /^(width|height|style)$/.test(name)) && name !== 'open') have.removeAttribute(name)
  if (!isCanvas && !/^(INPUT|TEXTAREA)$/.test(have.nodeName)) morph(have, want)
}

const n0 = new Intl.NumberFormat('en', { maximumFractionDigits: 0 })
const n3 = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 })
export const three = x => n3.format(x)
// A space that does not break keeps a number and its unit on one line.
export const num = x => x == null ? '–' : x < 1e6 ? (x < 10 && x % 1 ? n3.format(Math.round(x * 10) / 10) : n0.format(x)) : x < 1e9 ? n3.format(x / 1e6) + '\u00a0M' : n3.format(x / 1e9) + '\u00a0G'
export const secs = s => s == null ? '–' : s < 0.001 ? n3.format(s * 1e6) + '\u00a0µs' : s < 1 ? n3.format(s * 1e3) + '\u00a0ms' : s < 60 ? n3.format(s) + '\u00a0s'
  : s < 3600 ? `${Math.floor(s / 60)}\u00a0min ${Math.floor(s % 60)}\u00a0s` : s < 86400 ? `${Math.floor(s / 3600)}\u00a0h ${Math.floor(s % 3600 / 60)}\u00a0min` : `${n3.format(s / 86400)}\u00a0days`
export const about = s => s == null ? '–' : s < 10 ? `${n3.format(Math.round(s * 10) / 10)}\u00a0s` : s < 60 ? `${Math.round(s)}\u00a0s` : s < 3600 ? `${Math.round(s / 60)}\u00a0min` : s < 172800 ? `${s < 36e3 ? (s / 3600).toFixed(1) : Math.round(s / 3600)}\u00a0h` : `${Math.round(s / 86400)}\u00a0days`
export const bytes = b => b < 1e3 ? `${n0.format(b)}\u00a0B` : b < 1e6 ? `${n3.format(b / 1e3)}\u00a0kB` : b < 1e9 ? `${n3.format(b / 1e6)}\u00a0MB` : `${n3.format(b / 1e9)}\u00a0GB`
export const pct = x => x > 0 && x < 0.01 ? (x < 1e-4 ? '< 0.01' : (x * 100).toFixed(2)) + '\u00a0%' : `${Math.round(x * 100)}\u00a0%`
export const plural = (k, one, many = one + 's') => `${num(k)} ${k === 1 ? one : many}`

// The second below which a part of binned counts lies; ten bins a decade, bin 60 begins at 1 s.
export const edge = bin => 10 ** ((bin - 60) / 10)
export function quantile(bins, part) {
  const list = Object.entries(bins).map(([k, v]) => [Number(k), v]).sort((a, b) => a[0] - b[0]), all = list.reduce((a, [, v]) => a + v, 0)
  let below = 0
  for (const [bin, v] of list) { if (below + v >= part * all) return edge(bin + (part * all - below) / v); below += v }
  return null
}
