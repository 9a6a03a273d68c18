// Running one item from its form.
import { about } from './dom.js'
import { post } from './gateway.js'
import { render, ui } from './page.js'

function valueOf(input) {
  const text = input.value
  if (input.dataset.type === 'boolean') return input.checked
  if (text === '' && !input.required) return undefined
  if (input.dataset.type === 'number') return Number(text)
  return input.dataset.type === 'json' ? JSON.parse(text) : text
}
document.addEventListener('submit', async e => {
  const name = e.target.dataset.run
  if (!name) return
  e.preventDefault()
  let item, kwargs = {}
  try {
    for (const input of e.target.elements) {
      if (!input.name) continue
      const value = valueOf(input), dot = input.name.indexOf('.')
      if (value === undefined) continue
      if (dot < 0) item = value
      else if (input.name.startsWith('item.')) (item ??= {})[input.name.slice(5)] = value
      else kwargs[input.name.slice(7)] = value
    }
  } catch { ui.result = { fn: name, value: 'A field is not JSON.', note: 'Arrays and objects are written as JSON.', bad: true }; return render() }
  const query = Object.keys(kwargs).length ? `?kwargs=${encodeURIComponent(JSON.stringify(kwargs))}` : ''
  ui.result = { fn: name, value: '…', note: 'Waiting for a core' }; render()
  const began = performance.now()
  try {
    const { ok, found } = await post(`/map/${encodeURIComponent(name)}${query}`, JSON.stringify([item === undefined ? null : item]), null)
    const took = `In ${about((performance.now() - began) / 1000)}, the way to the gateway included.`
    ui.result = ok ? { fn: name, value: JSON.stringify(found[0], null, 2), note: took } : { fn: name, value: found?.detail ?? found?.title ?? 'It failed.', note: took, bad: true }
  } catch { ui.result = { fn: name, value: 'The gateway does not answer.', note: 'Nothing is known of the item.', bad: true } }
  render()
})
