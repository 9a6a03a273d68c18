// One stream of changes for all tabs of a browser. Runs as a shared worker; where there are none, in the page.
// Tabs that are hidden need none: when the last one hides, the connection ends.

// A change comes each second. A whole view, once it has begun to come, may take longer on a slow line.
const SILENCE = 10, SNAPSHOT = 30   // Seconds.

export class Feed {
  // second: milliseconds of a second.
  constructor(root, tell, second = 1000) { Object.assign(this, { root, tell, second, document: null, source: null, since: null, fine: false, wait: second, timer: 0, watch: 0, silent: 0, ends: 0 }) }
  open() {
    clearTimeout(this.timer)
    if (this.source) return
    const source = this.source = new EventSource(`${this.root}/ui/events`)
    source.addEventListener('snapshot', e => { this.silent = 0; this.wait = this.second; this.since = null; this.fine = true; this.document = JSON.parse(e.data); this.tell({ snapshot: this.document }) })
    source.addEventListener('change', e => { this.silent = 0; const change = JSON.parse(e.data); if (this.document) apply(this.document, change); this.tell({ change }) })
    source.onerror = () => this.lost(source)
    // A gateway or a network that hangs ends no connection. The seconds are counted, not measured: one that a machine slept
    // through, or for which the browser held the timer back, is no silence of the gateway.
    this.silent = 0
    this.watch = setInterval(() => { if (++this.silent >= (!this.document && source.readyState === EventSource.OPEN ? SNAPSHOT : SILENCE)) this.lost(source) }, this.second)
  }
  close() { clearTimeout(this.timer); clearInterval(this.watch); this.source?.close(); this.source = null; this.document = null; this.ends++ }
  async lost(source) {
    if (source !== this.source) return
    const began = Date.now() - this.silent * this.second, wasFine = this.fine
    this.close()
    this.fine = false
    const end = this.ends, isOver = () => this.source || this.ends !== end   // Somebody has opened or closed it meanwhile.
    const lost = () => { if (isOver()) return; this.since ??= began; this.tell({ lost: (Date.now() - this.since) / 1000 }) }, late = setTimeout(lost, this.second)
    try {
      // A stream ends now and then, so that the login session is asked for again.
      const answer = await fetch(`${this.root}/ui/session`, { headers: { accept: 'application/json' }, signal: AbortSignal.timeout(SILENCE * this.second) })
      if (isOver()) return
      if (answer.status === 401) return this.tell({ login: true })
      if (answer.ok && wasFine) return this.open()
    } catch { /* the gateway is away */ } finally { clearTimeout(late) }
    if (isOver()) return
    lost()
    this.timer = setTimeout(() => this.open(), this.wait)
    this.wait = Math.min(5 * this.second, this.wait * 1.5)
  }
}

const SECTIONS = new Set(['functions', 'hosts', 'cells', 'maps', 'failures', 'callers'])
export function apply(document, change) {
  for (const [key, value] of Object.entries(change)) {
    if (!SECTIONS.has(key)) { document[key] = value; continue }
    // Names are users': a function may be called __proto__.
    const rows = document[key] = Object.assign(Object.create(null), document[key])
    for (const [id, row] of Object.entries(value)) if (row === null) delete rows[id]; else rows[id] = row
  }
  if (change.totals || change.now) {
    const t = document.totals, history = document.history ??= []
    history.push([t.rate, t.p50, t.p99, t.refused])
    if (history.length > 120) history.shift()
  }
}

if (typeof SharedWorkerGlobalScope !== 'undefined' && self instanceof SharedWorkerGlobalScope) {
  const root = self.location.pathname.replace(/\/assets\/ui\/feed\.js$/, '')
  const shown = new Set()
  const feed = new Feed(root, message => { for (const port of shown) port.postMessage(message) })
  self.onconnect = ({ ports: [port] }) => {
    port.onmessage = ({ data }) => {
      if (data === 'show') { shown.add(port); if (feed.document) port.postMessage({ snapshot: feed.document }); feed.open() } else { shown.delete(port); if (!shown.size) feed.close() }
    }
    port.start()
  }
}
