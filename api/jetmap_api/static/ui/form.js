// The form that runs one item: made of its function's schema, and read as JSON that keeps every digit.
import { h } from './dom.js'

const resolve = (s, defs) => { for (let i = 0; s?.$ref && i < 8; i++) s = defs[s.$ref.split('/').pop()] ?? {}; return s ?? {} }
function typed(s, defs) {
  s = resolve(s, defs)
  const options = s.anyOf ?? s.oneOf
  if (options) { const rest = options.map(o => resolve(o, defs)).filter(o => o.type !== 'null'); if (rest.length === 1) return { ...rest[0], default: s.default, description: s.description ?? rest[0].description, nullable: true } }
  return s
}
// JavaScript has read the schema, and has rounded whole numbers beyond 2 ** 53. Such a default is left to the function.
const isSure = v => typeof v === 'number' ? !Number.isInteger(v) || Number.isSafeInteger(v) : v == null || typeof v !== 'object' || Object.values(v).every(isSure)
// A field of another type, in a new version of the function, is another field.
function field(path, name, raw, defs, required) {
  const s = typed(raw, defs), type = Array.isArray(s.type) ? s.type.find(t => t !== 'null') : s.type, is = JSON.stringify
  const key = h` data-key="${path} ${type}"`, note = s.description && h` <span class="quiet">${s.description}</span>`, must = required && h` required`
  const title = h`<span>${name}${required && h` <span class="quiet">required.</span>`}${note}</span>`
  const value = s.default == null || !isSure(s.default) ? null : s.default, hint = s.default != null && value == null ? 'its default' : null
  if (type === 'boolean') return h`<label class="tick"${key}><input type="checkbox" name="${path}" data-type="boolean"${s.default && h` checked`}><span>${name}${note}</span></label>`
  if (s.enum) return h`<label${key}>${title}<select name="${path}" data-type="json">${!required && h`<option value="" data-key="none"></option>`}${s.enum.map(e => h`<option value="${is(e)}" data-key="${is(e)}"${e === s.default && h` selected`}>${String(e)}</option>`)}</select></label>`
  if (type === 'integer' || type === 'number') return h`<label${key}>${title}<input type="number" name="${path}" data-type="number" value="${value}"${hint && h` placeholder="${hint}"`}${s.minimum != null && h` min="${s.minimum}"`}${s.maximum != null && h` max="${s.maximum}"`} step="${type === 'integer' ? 1 : 'any'}"${must}></label>`
  if (type === 'string' && !s.format?.includes('binary')) return h`<label${key}>${title}<input name="${path}" data-type="string" value="${s.default ?? ''}"${must}></label>`
  return h`<label${key}>${title}<textarea name="${path}" data-type="json" rows="2" placeholder="${hint ?? (type === 'array' ? '[…]' : type === 'object' ? '{…}' : 'JSON')}"${must}>${s.default === undefined || hint ? '' : is(s.default)}</textarea></label>`
}
export function formOf(info) {
  const item = typed(info.item, info.item.$defs ?? {}), defs = { ...info.item.$defs }, keyword = info.kwargs ?? {}, names = Object.entries(keyword.properties ?? {}), isObject = item.type === 'object' && item.properties
  const fields = isObject ? Object.entries(item.properties).map(([k, s]) => field(`item.${k}`, k, s, defs, item.required?.includes(k))) : field('item', item.title ?? 'item', item, defs, !item.nullable)
  return h`<div class="fields" data-blank="${isObject && !item.nullable ? '{}' : 'null'}">${fields}${names.length > 0 && h`<fieldset data-key="kwargs"><legend>Keyword-only</legend>${names.map(([k, s]) => field(`kwargs.${k}`, k, s, keyword.$defs ?? {}, keyword.required?.includes(k)))}</fieldset>`}</div>`
}

// A field's value as JSON; undefined: it is blank. Raises SyntaxError.
function jsonOf(input) {
  const text = input.value, type = input.dataset.type
  if (type === 'boolean') return String(input.checked)
  if (text === '' && !input.required) return undefined
  if (type === 'string') return JSON.stringify(text)
  if (type === 'number') return /^-?\d+$/.test(text) ? String(BigInt(text)) : JSON.stringify(Number(text))
  JSON.parse(text)
  return text
}
// The item and the keyword arguments as JSON. blank: the item without any field of its own filled in. Raises SyntaxError.
export function read(inputs, blank) {
  let item
  const fields = [], kwargs = []
  for (const input of inputs) {
    const json = input.name ? jsonOf(input) : undefined
    if (json === undefined) continue
    if (input.name === 'item') item = json
    else { const dot = input.name.indexOf('.'); (input.name.startsWith('item.') ? fields : kwargs).push(`${JSON.stringify(input.name.slice(dot + 1))}:${json}`) }
  }
  return { item: item ?? (fields.length ? `{${fields}}` : blank), kwargs: kwargs.length ? `{${kwargs}}` : '' }
}
// JSON on lines, its numbers as they are.
export function pretty(text) {
  let out = '', depth = 0, isFirst = true
  const line = () => depth ? `\n${'  '.repeat(depth)}` : '\n'
  for (const token of text.match(/"[^"\\]*(?:\\.[^"\\]*)*"|[[\]{},:]|[^\s[\]{},:"]+/g) ?? []) {
    const isEnd = token === ']' || token === '}'
    if (isEnd) { depth--; out += isFirst ? token : line() + token; isFirst = false; continue }
    if (token === ',') { out += ',' + line(); continue }
    if (token === ':') { out += ': '; continue }
    if (isFirst && depth) out += line()
    out += token
    isFirst = token === '[' || token === '{'
    if (isFirst) depth++
  }
  return out
}
