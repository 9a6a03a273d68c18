// The form that runs one item, made of its function's schema.
import { h } from './dom.js'

const resolve = (s, defs) => { for (let i = 0; s?.$ref && i < 8; i++) s = defs[s.$ref.split('/').pop()] ?? {}; return s ?? {} }
function typed(s, defs) {
  s = resolve(s, defs)
  const options = s.anyOf ?? s.oneOf
  if (options) { const rest = options.map(o => resolve(o, defs)).filter(o => o.type !== 'null'); if (rest.length === 1) return { ...rest[0], default: s.default, description: s.description ?? rest[0].description, nullable: true } }
  return s
}
function field(path, name, raw, defs, required) {
  const s = typed(raw, defs), id = path, note = s.description && h` <span class="quiet">${s.description}</span>`, type = Array.isArray(s.type) ? s.type.find(t => t !== 'null') : s.type
  if (type === 'boolean') return h`<label class="tick"><input type="checkbox" name="${id}" data-type="boolean"${s.default && h` checked`}><span>${name}${note}</span></label>`
  const title = h`<span>${name}${required && h` <span class="quiet">required.</span>`}${note}</span>`
  if (s.enum) return h`<label>${title}<select name="${id}" data-type="json">${!required && h`<option value=""></option>`}${s.enum.map(e => h`<option value="${JSON.stringify(e)}"${e === s.default && h` selected`}>${String(e)}</option>`)}</select></label>`
  if (type === 'integer' || type === 'number') return h`<label>${title}<input type="number" name="${id}" data-type="number" value="${s.default ?? ''}"${s.minimum != null && h` min="${s.minimum}"`}${s.maximum != null && h` max="${s.maximum}"`} step="${type === 'integer' ? 1 : 'any'}"${required && h` required`}></label>`
  if (type === 'string' && !s.format?.includes('binary')) return h`<label>${title}<input name="${id}" data-type="string" value="${s.default ?? ''}"${required && h` required`}></label>`
  return h`<label>${title}<textarea name="${id}" data-type="json" rows="2" placeholder="${type === 'array' ? '[…]' : type === 'object' ? '{…}' : 'JSON'}"${required && h` required`}>${s.default === undefined ? '' : JSON.stringify(s.default)}</textarea></label>`
}
export function formOf(info) {
  const item = typed(info.item, info.item.$defs ?? {}), defs = { ...info.item.$defs }, keyword = info.kwargs ?? {}, names = Object.entries(keyword.properties ?? {})
  const fields = item.type === 'object' && item.properties ? Object.entries(item.properties).map(([k, s]) => field(`item.${k}`, k, s, defs, item.required?.includes(k))) : field('item', item.title ?? 'item', item, defs, true)
  return h`<div class="fields">${fields}${names.length > 0 && h`<fieldset><legend>Keyword-only</legend>${names.map(([k, s]) => field(`kwargs.${k}`, k, s, keyword.$defs ?? {}, keyword.required?.includes(k)))}</fieldset>`}</div>`
}
