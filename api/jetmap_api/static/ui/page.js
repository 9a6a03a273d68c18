// What the page's modules share: its elements, the pool, what is shown of it, and the drawing.
import { World } from './world.js'

export const page = document.documentElement, root = page.dataset.root
export const $ = (s, e = document) => e.querySelector(s)
export const main = $('#main'), help = $('#help')
const said = $('#said')
export const world = new World()
export const JOBS_AT_ONCE = 60, MOST_JOBS = 1000
// asker: where a question was asked, list or detail. running: requests of forms, by their function. over: the login session has ended.
export const ui = {
  root, nats: page.dataset.nats, view: 'now', id: '', find: '', state: 'all', fn: '', ask: '', asker: '', busy: new Map(), running: new Map(), open: new Set(), spot: -1, host: -1,
  result: null, details: new Map(), kept: new Map(), failed: [], traces: new Map(), schemas: new Map(), picked: '', fnShown: '', lastFn: null, lost: null, over: false, gone: '', older: JOBS_AT_ONCE,
}
let paint = () => {}, due = 0
export function paintWith(f) { paint = f }
export function render() { paint() }
export function soon() { if (!due && !document.hidden) due = requestAnimationFrame(() => { due = 0; render() }) }
export function say(text) { said.textContent = text; clearTimeout(say.timer); say.timer = setTimeout(() => { said.textContent = '' }, 5000) }
