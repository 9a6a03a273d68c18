// The pool as the views read it, made of the document that the gateway keeps up to date.
import { IDLE, STARTING, FAILED, DRAINING, UNKNOWN, OTHER, STATES } from './charts.js'

const FIRST_SLOT = 0x100
const SPECIAL = { '.': IDLE, '~': STARTING, '!': FAILED, '-': DRAINING, '?': UNKNOWN }

function mark(name, taken) {
  for (const c of name.toUpperCase()) if (/[A-Z0-9]/.test(c) && !taken.has(c)) { taken.add(c); return c }
  return name.toUpperCase().match(/[A-Z0-9]/)?.[0] ?? '#'
}

const JOB_STATES = { succeeded: 'ok', cancelled: 'withdrawn', queued: 'waiting', uploading: 'waiting' }
// A job as the store describes it, as a row like those that are announced. Times are the gateway's.
export function rowOf(job, epoch) {
  const at = text => text == null ? null : Date.parse(text) / 1000 - epoch, started = at(job.started ?? job.created), ended = at(job.finished)
  return {
    id: job.id, function: job.function, kind: 'job', owner: '', labels: job.labels ?? {}, state: job.paused && ended == null ? 'paused' : JOB_STATES[job.state] ?? job.state,
    total: job.total, done: job.done, failed: job.failed, rate: job.rate ?? 0, left: null, cores: 0, fair: null, weight: 1, limit: job.max_parallel ?? null,
    waits: ended != null ? '' : job.paused ? 'a pause' : job.waiting_for ?? '', oldest: null, started, ended, seconds: ended == null ? 0 : Math.max(0, ended - started), stored: true, run: job.run ?? 1, reason: job.reason ?? '',
  }
}

export class World {
  constructor() { this.document = null; this.received = 0; this.kept = new Map(); this.stored = []; this.older = false }

  read(document) {
    this.document = document
    this.received = performance.now()
    const d = document, functions = Object.values(d.functions ?? {}).sort((a, b) => a.slot - b.slot), taken = new Set()
    this.functions = functions.map(f => ({ ...f, mark: mark(f.name, taken), colour: Math.min(f.slot, OTHER), cores: 0, errors: f.items ? f.failed / f.items : 0 }))
    this.bySlot = new Map(this.functions.map(f => [f.slot, f]))
    this.byName = new Map(this.functions.map(f => [f.name, f]))
    this.hosts = []
    let first = 0
    for (const [id, row] of Object.entries(d.hosts ?? {})) { const raw = d.cells?.[id] ?? '', cores = raw.length; this.hosts.push({ ...row, id, name: row.host, cores, first, raw }); first += cores }
    this.hosts.sort((a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : a.first - b.first)
    this.cells = new Uint8Array(first)
    this.perHost = Math.max(1, ...this.hosts.map(x => x.cores))
    this.counts = new Uint32Array(STATES)
    first = 0
    for (const host of this.hosts) {
      host.first = first; host.busy = 0
      for (let k = 0; k < host.cores; k++) {
        const code = host.raw.charCodeAt(k), f = code >= FIRST_SLOT ? this.bySlot.get(code - FIRST_SLOT) : null
        const s = code >= FIRST_SLOT ? (f ? f.colour : OTHER) : SPECIAL[host.raw[k]] ?? IDLE
        if (f) f.cores++
        if (s < 32) host.busy++
        this.cells[first + k] = s; this.counts[s]++
      }
      first += host.cores
    }
    this.big = this.hosts.length * this.perHost > 2000
    this.busy = this.hosts.reduce((a, x) => a + x.busy, 0)
    this.maps = Object.values(d.maps ?? {})
    this.store()
    this.failures = Object.values(d.failures ?? {})
    this.totals = d.totals
    this.broker = d.broker?.streams ? d.broker : { server: '', streams: [] }
    this.history = d.history ?? []
    this.empty = !this.hosts.length && !this.maps.length
  }
  // Jobs that nobody announces any more, or not yet: the store has them. Of a whole list, others are forgotten but the one in view.
  keep(jobs, all = false, but = '') {
    if (all) for (const id of this.kept.keys()) if (id !== but) this.kept.delete(id)
    for (const job of jobs) this.kept.set(job.id, job)
    if (this.document) this.store()
  }
  store() {
    const announced = new Set(this.maps.map(m => m.id))
    this.stored = [...this.kept.values()].filter(job => !announced.has(job.id)).map(job => rowOf(job, this.document.epoch))
  }
  find(id) { return this.maps.find(m => m.id === id) ?? this.stored.find(m => m.id === id) }
  get now() { return this.document.now + (performance.now() - this.received) / 1000 }
  get away() { return this.document?.away }
  functionOf(name) { return this.byName.get(name) ?? { name, mark: mark(name, new Set()), colour: OTHER, slot: -1, bins: {}, cores: 0, items: 0 } }
  functionAt(host, k) { const code = host.raw.charCodeAt(k); return code >= FIRST_SLOT ? this.bySlot.get(code - FIRST_SLOT) : undefined }
  markAt(host, k) { return this.functionAt(host, k)?.mark ?? '#' }
  // A name's function by its cell: what a key 1 to 8 shows.
  curve(column) { return this.history.map(row => row[column]) }
}
