// The filter of maps and jobs: words, and labels such as customer:7 or region:"new york".

// Split what is typed into words. Between quotes, spaces are part of the word, and a backslash stands before a quote.
export const wordsOf = text => (text.match(/(?:[^\s"]|"(?:[^"\\]|\\.)*"?)+/gs) ?? []).map(word => word.replace(/"((?:[^"\\]|\\.)*)"?/gs, (_, inner) => inner.replace(/\\(.)/gs, '$1'))).filter(Boolean)

// A label as one word of the filter.
export const labelWord = (name, value) => `${name}:${/[\s"]/.test(value) ? `"${value.replace(/["\\]/g, '\\$&')}"` : value}`

export function hasWords(m, words) {
  const text = `${m.function} ${m.id} ${m.owner} ${m.kind} ${m.state}`.toLowerCase(), labels = Object.entries(m.labels).map(pair => pair.join(':').toLowerCase())
  return words.map(w => w.toLowerCase()).every(w => w.includes(':') ? labels.includes(w) || text.split(' ').includes(w) : text.includes(w) || labels.some(l => l.includes(w)))
}

// The labels among the words, as the list of jobs is asked for them; the others are no query.
export const labelsOf = words => words.map(w => /^([A-Za-z0-9_.-]{1,40}):([^,\p{Cc}]{1,100})$/u.exec(w)).filter(Boolean).slice(0, 8).map(([, name, value]) => `${name}=${value}`)
