// Running one item from its form: one at a time, until its answer comes or somebody waits no longer.
import { about } from './dom.js'
import { pretty, read } from './form.js'
import { post } from './gateway.js'
import { $, render, ui } from './page.js'

document.addEventListener('submit', e => {
  const form = e.target, name = form.dataset.run
  if (!name) return
  e.preventDefault()
  if (ui.running.has(name)) return
  try { run(name, read(form.elements, $('[data-blank]', form).dataset.blank)) } catch { show({ fn: name, value: 'A field is not JSON.', note: 'Arrays and objects are written as JSON.', bad: true }) }
})
function show(result) { ui.result = result; render() }
async function run(fn, { item, kwargs }) {
  const waiting = new AbortController(), began = performance.now()
  ui.running.set(fn, waiting)
  show({ fn, value: '…', note: 'Waiting for a core' })
  try {
    const { ok, found, text } = await post(`/map/${encodeURIComponent(fn)}${kwargs && `?kwargs=${encodeURIComponent(kwargs)}`}`, `[${item}]`, waiting.signal)
    const note = `In ${about((performance.now() - began) / 1000)}, the way to the gateway included.`
    ui.result = ok ? { fn, value: pretty(text.trim().slice(1, -1)), note } : { fn, value: found?.detail ?? found?.title ?? 'It failed.', note, bad: true }
  } catch {
    ui.result = waiting.signal.aborted ? { fn, value: 'Nobody waits for it any more.', note: 'The gateway cancels it.', bad: true } : { fn, value: 'The gateway does not answer.', note: 'Nothing is known of the item.', bad: true }
  }
  ui.running.delete(fn)
  render()
}
export function leave(fn) { ui.running.get(fn)?.abort() }
