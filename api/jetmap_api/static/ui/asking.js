// What the gateway is asked while somebody looks: details of a map, jobs of the store, schemas, tracebacks.
import { labelsOf, wordsOf } from './filter.js'
import { get } from './gateway.js'
import { MOST_JOBS, soon, ui, world } from './page.js'
import { away, isOpen, isWide, lacksFailures } from './views.js'

const asked = new Map()   // When each thing was asked for last.
let sought = ''           // The list of jobs that is in view.
function once(key, seconds, what) {
  if (away() || performance.now() - (asked.get(key) ?? -1e9) < seconds * 1000) return
  asked.set(key, performance.now())
  what().catch(() => {})
}
export function look() {
  if ((ui.view === 'map' || ui.view === 'maps') && ui.picked) {
    const id = ui.picked, m = world.find(id)
    if (m?.failed && lacksFailures(m)) once(`failures ${id} ${m.run} ${isOpen(m) || m.failed}`, isOpen(m) ? 15 : 300, () => storedFailures(id))
    if (m && !m.stored) once(`map ${id}`, m && isOpen(m) ? 2 : 30, async () => { const d = await get(`/ui/maps/${encodeURIComponent(id)}`); if (!d.problem) { ui.details.set(id, d); soon() } })
    if (ui.details.size > 20) ui.details.delete(ui.details.keys().next().value)
  }
  // What nobody announces may be a job: one that ended long ago, or whose process has ended.
  const shown = ui.view === 'map' ? world.find(ui.id) : null
  if (ui.view === 'map' && ui.id && (!shown || shown.stored)) {
    const id = ui.id
    once(`job ${id}`, 5, async () => {
      const job = await get(`/jobs/${encodeURIComponent(id)}`)
      if (job.problem) { world.kept.delete(id); world.store(); ui.gone = id } else { world.keep([job]); ui.gone = '' }
      soon()
    })
  }
  if ((ui.view === 'maps' || ui.view === 'map' && isWide()) && (ui.state === 'all' || ui.state === 'ended')) {
    const labels = labelsOf(wordsOf(ui.find))
    const query = new URLSearchParams({ state: 'succeeded,failed,cancelled', limit: ui.older, ...ui.fn && { function: ui.fn }, ...labels.length && { labels: labels.join(',') } })
    // The list that was left had taken the place of this one.
    if (sought !== String(query)) { sought = String(query); asked.delete(`jobs ${query}`) }
    once(`jobs ${query}`, 15, async () => {
      const found = await get(`/jobs?${query}`)
      if (!found.problem && sought === String(query)) { world.keep(found.jobs, true, ui.id); world.older = found.next != null && ui.older < MOST_JOBS; soon() }
    })
  }
  if (ui.view === 'failures') once('jobs that failed', 15, async () => { const found = await get('/jobs?state=failed&limit=20'); if (!found.problem) { ui.failed = found.jobs; soon() } })
  if (ui.view === 'functions' && ui.fnShown) {
    const name = ui.fnShown
    once(`schema ${name} ${world.byName.get(name)?.versions.map(v => v[0])}`, 60, async () => { const d = await get(`/functions/${encodeURIComponent(name)}`); if (!d.problem) { ui.schemas.set(name, d); soon() } })
  }
}
// A job's failures as the store has them: whoever ran it may be gone. Their ages are the broker's; here they become times.
async function storedFailures(id) {
  const found = await get(`/ui/jobs/${encodeURIComponent(id)}/failures`)
  if (found.problem) return
  const causes = found.causes.map(({ cause, traceback, note }) => ({ ...cause, key: `${id} ${cause.key}`, first: world.now - cause.first, last: world.now - cause.last, trace: { traceback, note } }))
  ui.kept.set(id, { causes, more: found.more })
  if (ui.kept.size > 20) ui.kept.delete(ui.kept.keys().next().value)
  soon()
}
export async function trace(key) {
  const d = await get(`/ui/failures/${key}`).catch(() => ({ problem: { detail: 'The gateway did not answer. Hide this and show it again to ask once more.' } }))
  ui.traces.set(key, d.problem ? { note: d.problem.detail } : d)
  soon()
}
