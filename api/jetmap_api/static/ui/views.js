// The views: each is one function from what is known to HTML.
import { h, num, secs, about, bytes, pct, plural, three, quantile } from './dom.js'
import { hasWords, labelWord, wordsOf } from './filter.js'
import { formOf } from './form.js'
import { rowOf } from './world.js'
import { area, bars, histogram, spark, colours, IDLE, STARTING, FAILED, DRAINING, UNKNOWN, OTHER, MARKS } from './charts.js'

export const charts = new Map()
let world, ui
export function see(w, u) { world = w; ui = u; charts.clear() }

// ---- small parts -----------------------------------------------------------------------------------
const clocks = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })
// Times of day; of what is long ago, with the day.
export const when = t => world.now - t > 43200 ? day.format(new Date((t + world.document.epoch) * 1000)) : clock(t)
// Failures of the last hour; a cause that goes on for longer has more.
export const recent = g => g.counts.reduce((a, k) => a + k, 0)
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'long', hour: '2-digit', minute: '2-digit' })
export const clock = t => clocks.format(new Date((t + world.document.epoch) * 1000))
export const ago = t => { const s = Math.max(0, world.now - t); return s < 3 ? 'now' : `${about(s)} ago` }
const took = s => s < 1 ? secs(s) : about(s)
const since = s => s < 5 ? 'a few seconds' : about(s)
function chart(key, label, cls, paint) {
  charts.set(key, paint)
  return h`<canvas class="${cls}" data-key="${key}" data-chart="${key}" ${label ? h`role="img" aria-label="${label}"` : h`role="presentation"`}></canvas>`
}
const panel = (title, note, body, cls = '') => { const id = 't-' + title.replace(/\W/g, ''); return h`<section class="panel ${cls}" data-key="${id}" aria-labelledby="${id}"><header><h2 id="${id}">${title}</h2>${note && h`<span class="quiet">${note}</span>`}</header>${body}</section>` }
// A state for assistive technology; an absent one says nothing.
const bool = x => x ? 'true' : 'false'
const share = x => num(x < 10 ? Math.round(x * 10) / 10 : Math.round(x))
const fnOf = m => world.functionOf(m.function)
const chip = f => h`<span class="chip f${f.colour}" aria-hidden="true">${f.mark}</span>`
const fnName = (f, href) => href ? h`<a class="fn" href="${href}">${chip(f)}${f.name}</a>` : h`<span class="fn">${chip(f)}${f.name}</span>`
const link = (view, id) => `#${view}/${encodeURIComponent(id)}`
const bar = (parts, cls = 'bar') => { let x = 0; return h`<svg class="${cls}" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">${parts.map(([w, c]) => { const r = h`<rect x="${x.toFixed(2)}" width="${Math.max(0, w * 100).toFixed(2)}" height="6" fill="${c}"/>`; x += w * 100; return r })}</svg>` }
const stateMark = { running: '▶', waiting: '◷', paused: '‖', ok: '✓', withdrawn: '–', timeout: '✕', failed: '✕', up: '●', draining: '↓', starting: '◌', gone: '✕' }
const words = { ok: 'done', failed: 'ended with failures', timeout: 'timed out', withdrawn: 'withdrawn', gone: 'silent' }
const stateWord = (s, word = words[s] ?? s) => h`<span class="state ${s}"><span aria-hidden="true">${stateMark[s]}</span> ${word}</span>`
export const away = () => world.away != null || ui.lost != null
const off = () => away() || ui.over ? h` disabled title="Nothing can be changed ${ui.over ? 'until you log in' : 'while the connection is away'}"` : ''
const ask = (key, question, yes, field) => h`<div class="ask" data-key="ask" role="group" aria-label="${question}"><span>${question}</span>${field}<button class="${field ? 'go' : 'stop'}" data-act="yes" data-ask="${key}"${off()}>${yes}</button><button data-act="no">${field ? 'Leave it' : 'Keep as it is'}</button></div>`
const MOST_CORES = 1e6   // As the gateway has it.
const askLimit = (name, limit, none) => ask(ui.ask, name, 'Set', h`<input type="number" min="0" max="${MOST_CORES}" step="1" data-field="limit" value="${limit ?? ''}" placeholder="${none}" aria-label="${name}; 0 or nothing: ${none}">`)
const labels = m => Object.entries(m.labels).map(([k, v]) => h` <button class="label" data-act="find" data-text="${labelWord(k, v)}" aria-label="Filter by ${k}: ${v}">${k}: ${v}</button>`)
const waitText = { cores: 'cores', 'a limit': 'its own limit', 'a limit of its function': 'its function’s limit', 'a pause': 'to be resumed', 'a pause of its function': 'its function to be resumed', 'a pause of the pool': 'the pool to be resumed', 'its reader': 'its slow reader', 'its input': 'more of its input', workers: 'a worker for it', room: 'room in the store' }
const reasonText = { 'too-many-maps': 'over the limit of open maps', 'limit-exceeded': 'over a limit', 'unknown-function': 'for an unknown function', 'no-workers': 'without a worker', 'workers-cannot-start': 'because workers cannot start', 'broker-unreachable': 'without the broker', closed: 'while closing' }
const open = { running: 0, waiting: 1, paused: 2 }
export const isOpen = m => open[m.state] != null
// Whether the map itself is paused; its function or the pool may be, too.
export const isPaused = m => m.waits === 'a pause'
// How long a map's oldest chunk has been out, or a map has waited; short times say nothing.
const LONG = 5
const oldest = m => { const s = m.oldest == null ? 0 : world.now - m.oldest; return s > LONG && isOpen(m) && h`<small>${m.state === 'waiting' && !m.done ? 'for' : 'oldest chunk out for'} ${about(s)}</small>` }
const busy = key => h`<div class="acts" data-key="busy"><span class="quiet" role="status" tabindex="-1" data-busy>${ui.busy.get(key).word} …</span></div>`
const crashes = x => Object.values(x.crashes).reduce((a, b) => a + b, 0)

// ---- Now -------------------------------------------------------------------------------------------
function attention() {
  const list = [], versions = tallied(world.hosts.map(x => x.version)), usual = most(versions)
  if (world.document.paused) list.push([h`<b>The pool is paused.</b> Nothing new starts until somebody resumes it.`, '', h`<div class="right" data-of="pool">${poolActs()}</div>`])
  for (const f of world.functions) if (f.paused) { const k = world.maps.filter(m => isOpen(m) && m.function === f.name).length; list.push([h`<b>${f.name}</b> is paused${k > 0 && `: ${plural(k, 'map')} of it ${k === 1 ? 'waits' : 'wait'} until ${k === 1 ? 'its' : 'their'} timeout`}.`, link('functions', f.name), 'See the function']) }
  const ill = world.hosts.filter(x => x.state === 'failed'), gone = world.hosts.filter(x => x.state === 'gone'), killed = world.hosts.filter(x => x.kills && x.state !== 'gone')
  const why = x => (x.failure.trim().split('\n').pop() || 'no reason is known').slice(0, 160)
  if (ill.length) list.push([h`Workers on <b>${ill.length > 1 ? plural(ill.length, 'host') : ill[0].name}</b> cannot start${ill.length > 1 && `, as on ${ill[0].name}`}: ${why(ill[0])}`, '#hosts', ill.length > 1 ? 'See the hosts' : 'See the host'])
  if (gone.length) list.push(gone.length > 1 ? [h`<b>${plural(gone.length, 'host')}</b> fell silent, ${gone[0].name} ${ago(gone[0].seen)}. Their chunks run elsewhere.`, '#hosts', 'See the hosts'] : [h`<b>${gone[0].name}</b> was last heard ${ago(gone[0].seen)}. Its chunks run elsewhere.`, '#hosts', 'See the host'])
  const stuck = world.maps.filter(m => m.waits === 'workers')
  if (stuck.length) list.push([h`<b>${plural(stuck.length, 'map')}</b> ${stuck.length === 1 ? 'waits' : 'wait'} for a worker that has ${stuck.length === 1 ? h`<b>${stuck[0].function}</b>` : 'the function'}.`, '#maps', 'See the maps'])
  const worst = world.failures.filter(g => g.count >= 100 && world.now - g.last < 120).sort((a, b) => b.count - a.count)[0]
  if (worst) list.push([h`<b>${worst.function}</b> fails with ${worst.type}, ${num(worst.count)} times since ${when(worst.first)}${worst.hosts.length === 1 && world.hosts.length > 1 && h`, only on ${worst.hosts[0]}`}.`, '#failures', 'See the failures'])
  for (const s of [...world.broker.streams, { ...world.broker.store, name: 'store of jobs' }]) if (s.quota > 0 && s.bytes / s.quota > 0.8) list.push([h`The <b>${s.name}</b> is ${pct(s.bytes / s.quota)} full. At 100 % it refuses more.`, '#hosts', 'See the broker'])
  const t = world.totals
  if (t.refused) list.push([h`<b>${plural(t.refused, 'map')}</b> refused in the last minute: ${reasons(t)}.`, '#maps', 'See the maps'])
  if (killed.length) list.push([h`<b>${killed.length > 1 ? plural(killed.length, 'host') : killed[0].name}</b> lost ${plural(killed.reduce((a, x) => a + x.kills, 0), 'worker')} to the memory limit since ${killed.length > 1 ? 'they' : 'it'} started.${killed.length === 1 && killed[0].version !== usual && ' Its version differs from most.'}`, '#hosts', killed.length > 1 ? 'See the hosts' : 'See the host'])
  return list.length ? h`<ul class="attention" aria-label="What needs attention" data-key="attention">${list.slice(0, list.length > 6 ? 5 : 6).map(([text, href, name]) => h`<li><span>${text}</span>${href ? h`<a href="${href}">${name}</a>` : name}</li>`)}${list.length > 6 && h`<li class="quiet">${num(list.length - 5)} more</li>`}</ul>` : ''
}
const reasons = t => Object.entries(t.reasons).map(([why, k]) => `${num(k)} ${reasonText[why] ?? why}`).join(', ')
const tallied = list => list.reduce((m, x) => m.set(x, (m.get(x) ?? 0) + 1), new Map())
const most = counts => [...counts].sort((a, b) => b[1] - a[1])[0]?.[0]

function poolActs() {
  if (ui.busy.has('pool')) return busy('pool')
  if (ui.ask === 'pausepool:' && !world.document.paused) return ask(ui.ask, 'Pause the whole pool? Nothing new of any function starts until somebody resumes it; maps wait until their timeout.', 'Pause the pool')
  return world.document.paused ? h`<button data-key="steer" data-act="pool" data-do="resume"${off()}>Resume the pool</button>` : h`<button data-key="steer" data-act="ask" data-ask="pausepool:"${off()}>Pause the pool</button>`
}
function nowView() {
  if (world.empty) return world.document.paused ? h`${attention()}${invite()}` : invite()
  const t = world.counts, all = world.cells.length, totals = world.totals
  const rate = world.curve(0), p50 = world.curve(1), p99 = world.curve(2), refused = world.curve(3)
  const biggest = world.maps.filter(isOpen).sort((a, b) => b.cores - a.cores || (b.left ?? 0) - (a.left ?? 0)).slice(0, 6)
  const top = panel('Biggest maps', h`<a href="#maps">All maps</a>`, biggest.length ? h`<ul class="top-maps">${biggest.map(m => h`<li data-key="${m.id}"><a class="fn" href="${link('map', m.id)}">${chip(fnOf(m))}${m.function}&nbsp;<small class="mono">${m.id.slice(-6)}</small></a>${bar([[m.total ? m.done / m.total : 0, 'var(--fill)']])}<span class="num">${m.total ? `${Math.floor(m.done / m.total * 100)} %` : num(m.done)}</span><span class="num quiet">${plural(m.cores, 'core')}</span><span class="num">${m.state === 'running' ? h`${about(m.left)} <small>left</small>` : h`<small>${m.state}</small>`}</span></li>`)}</ul>` : h`<p class="quiet">No map of more than a moment is open.</p>`, 'boxed')
  const stat = (label, value, unit, key, paint, note) => h`<div><dt>${label}</dt><dd>${value}<span>${unit}</span>${note && h`<small>${note}</small>`}${paint && chart(key, '', '', paint)}</dd></div>`
  const ms = s => s == null ? ['–', ''] : s < 1 ? [three(s * 1e3), ' ms'] : [three(s), ' s']
  const others = world.functions.filter(f => f.slot >= OTHER)
  return h`<h1 class="sr">Now</h1>${attention()}
  <dl class="panel strip" data-key="strip">
    ${stat('Cores busy', num(world.busy), ` of ${num(all)}`, '', null, bar([[world.busy / (all || 1), 'var(--fill)'], [(t[STARTING] + t[DRAINING]) / (all || 1), 'var(--info)'], [(t[FAILED] + t[UNKNOWN]) / (all || 1), 'var(--bad)']], 'bar in'))}
    ${stat('Items a second', num(totals.rate), '', 's-rate', c => spark(c, rate))}
    ${stat('Express wait, p50', ...ms(totals.p50), 's-50', c => spark(c, p50))}
    ${stat('Express wait, p99', ...ms(totals.p99), 's-99', c => spark(c, p99, { bad: totals.p99 > 0.2 }))}
    ${stat('Queue', totals.waiting ? about(totals.waiting_seconds) : 'none', '', '', null, h`${totals.waiting ? `of work, ${plural(totals.waiting, 'item')}${totals.unknown ? `, ${num(totals.unknown)} of unknown cost` : ''}` : 'nothing waits'}${totals.oldest > LONG && ` · the oldest wait: ${about(totals.oldest)}`}`)}
    ${stat('Refused, last minute', num(totals.refused), '', totals.refused ? 's-ref' : '', totals.refused ? c => bars(c, refused.slice(-60), colours.bad) : null, totals.refused ? reasons(totals) : '')}
  </dl>
  <div class="now" data-key="now"><div class="side">
    <section class="panel" data-key="cores" aria-labelledby="t-cores"><header><h2 id="t-cores">Cores</h2><span class="quiet">${plural(world.hosts.length, 'host')}. ${ui.spot >= 0 ? h`Only ${spotName()}; <kbd>Esc</kbd> for all` : world.big ? 'A square is a host; its cores are sorted by what they do' : 'A cell is a core'}</span>${!world.document.paused && h`<div class="acts right" data-key="pool" data-of="pool">${poolActs()}</div>`}</header>
      ${world.hosts.length ? h`<canvas class="cells" data-key="cells" data-cells tabindex="0" role="application" aria-label="${num(world.busy)} of ${num(all)} cores busy, ${t[IDLE]} idle, ${t[STARTING]} starting, ${t[DRAINING]} draining, ${t[FAILED]} failed, on ${plural(world.hosts.length, 'host')}. Arrow keys go from host to host."></canvas>` : h`<p class="quiet">No worker is here. <code>jetmap worker TASKS</code> on any host that reaches the broker brings its cores.</p>`}
      <ul class="legend" aria-label="Functions">${world.functions.filter(f => f.slot < OTHER).map(f => h`<li data-key="f-${f.slot}"><button data-act="spot" data-i="${f.colour}" aria-pressed="${bool(ui.spot === f.colour)}">${chip(f)}${f.name} <small>${num(f.cores)}</small></button></li>`)}
      ${others.length > 0 && h`<li data-key="f-other"><button data-act="spot" data-i="${OTHER}" aria-pressed="${bool(ui.spot === OTHER)}"><span class="chip f${OTHER}" aria-hidden="true">…</span>${plural(others.length, 'other function')} <small>${num(others.reduce((a, f) => a + f.cores, 0))}</small></button></li>`}
      ${[[IDLE, 'idle'], [STARTING, 'starting'], [DRAINING, 'draining'], [FAILED, 'failed'], [UNKNOWN, 'silent']].filter(([k]) => t[k] || k === IDLE).map(([k, word]) => h`<li data-key="s-${word}"><button class="states" data-act="spot" data-i="${k}" aria-pressed="${bool(ui.spot === k)}"><span class="chip s-${word}" aria-hidden="true">${MARKS[k]}</span>${word} <small>${num(t[k])}</small></button></li>`)}</ul>
    </section>
    ${!world.big && top}</div>
    <div class="side">
      ${panel('Items a second', 'last 2 minutes', chart('rate', `Items a second over the last two minutes, now ${num(totals.rate)}`, 'h128', c => area(c, rate, { unit: v => num(v), x: ['2 min ago', 'now'], most: 120, least: 10 })))}
      ${panel('Express wait', 'of short maps, less their computing', chart('wait', `Express wait over the last two minutes, p50 now ${secs(totals.p50)}, p99 ${secs(totals.p99)}`, 'h128', c => area(c, p99, { second: p50, names: ['p99', 'p50'], unit: v => secs(v), x: ['2 min ago', 'now'], most: 120, least: 0.01 })))}
      ${world.big && top}${world.failures.length > 0 && panel('Latest failures', h`<a href="#failures">All failures</a>`, h`<ul class="latest">${[...world.failures].sort((a, b) => b.last - a.last).slice(0, 4).map(g => h`<li data-key="${g.key}"><b class="num bad">${num(g.count)}</b><span>${fnName(world.functionOf(g.function))} ${g.type}<small>${g.message}</small></span></li>`)}</ul>`)}
    </div>
  </div>`
}
const spotName = () => ui.spot < OTHER ? world.functions.find(f => f.colour === ui.spot)?.name ?? 'this' : ui.spot === OTHER ? 'the other functions' : { [IDLE]: 'idle cores', [STARTING]: 'starting cores', [DRAINING]: 'draining cores', [FAILED]: 'failed cores', [UNKNOWN]: 'silent cores' }[ui.spot]

function invite() {
  const where = `--nats ${ui.nats}${world.document.pool === 'default' ? '' : ` --pool ${world.document.pool}`}`
  const copy = text => h`<div class="copy"><pre>${text}</pre><button data-act="copy" data-text="${text}" aria-label="Copy: ${text}">Copy</button></div>`
  return h`<div class="invite"><canvas class="ghost" data-key="ghost" data-ghost role="presentation"></canvas><div><h1>The broker is up. It wants cores.</h1></div>
  <p>Nobody has joined the pool <b>${world.document.pool}</b> yet. Start a worker on any host that reaches this broker, and its cores appear here within three seconds.</p>
  <ol><li><h2>Add a host’s cores</h2><p>On each host, with the file that has your functions:</p>${copy(`jetmap worker tasks.py ${where}`)}</li>
  <li><h2>Run a first map</h2><p>A thousand numbers, on every core:</p>${copy(`seq 1000 | jetmap map FUNCTION ${where}`)}</li></ol>
  <p class="quiet" role="status">Waiting for the first worker. Leave this page open; it fills by itself.</p></div>`
}

// ---- Maps and jobs ---------------------------------------------------------------------------------
// Those of the store that are over are listed with the ended ones, and with all. What is open is announced.
export const isWide = () => innerWidth >= 1900   // The list and one map, side by side.
const allMaps = () => [...world.maps, ...world.stored.filter(m => m.ended != null)]
function mapRows() {
  const words = wordsOf(ui.find)
  return allMaps().filter(m => {
    if (ui.state === 'ended' ? isOpen(m) : ui.state !== 'all' && m.state !== ui.state) return false
    if (ui.fn && m.function !== ui.fn) return false
    return hasWords(m, words)
  }).sort((a, b) => (open[a.state] ?? 3) - (open[b.state] ?? 3) || (b.ended ?? 0) - (a.ended ?? 0) || (b.left ?? 0) - (a.left ?? 0) || (b.total ?? 0) - (a.total ?? 0))
}
const askAgain = id => ask(`retry:${id}`, `Run the failed items of ${id.slice(-6)} again? All others keep their outcomes.`, 'Run them again')
// where: in the list, or in the detail beside it.
function mapActs(m, where) {
  const key = m.id, asked = !isWide() || ui.asker === where ? ui.ask : ''
  if (ui.busy.has(key)) return busy(key)
  // What was asked may have become pointless: somebody else was faster, or the map has ended.
  if (!isOpen(m)) return m.kind === 'job' && m.failed && m.state !== 'withdrawn' ? (asked === `retry:${key}` ? askAgain(key) : h`<div class="acts" data-key="acts"><button data-key="retry" data-act="ask" data-ask="retry:${key}" aria-label="Run failed again, the items of ${key}"${off()}>Run failed again</button></div>`) : ''
  if (asked === `cancel:${key}`) return ask(ui.ask, `Cancel ${key.slice(-6)}? ${plural(m.done, 'outcome')} ${m.kind === 'job' ? 'stay' : 'went out already'}.`, `Cancel the ${m.kind}`)
  if (asked === `limit:${key}`) return askLimit('Cores at most', m.limit, 'no limit')
  const steers = m.kind === 'job' || m.state !== 'waiting' || m.waits !== 'workers'
  return h`<div class="acts" data-key="acts">${steers && h`<button data-key="steer" data-act="${isPaused(m) ? 'resume' : 'pause'}" data-id="${key}" aria-label="${isPaused(m) ? 'Resume' : 'Pause'} ${key}"${off()}>${isPaused(m) ? 'Resume' : 'Pause'}</button><button data-key="limit" data-act="ask" data-ask="limit:${key}" aria-label="Limit the cores of ${key}"${off()}>Limit</button>`}<button data-key="cancel" data-act="ask" data-ask="cancel:${key}" aria-label="Cancel ${key}"${off()}>Cancel</button></div>`
}
const progress = m => m.total ? bar([[(m.done - m.failed) / m.total, isOpen(m) ? 'var(--fill)' : 'var(--edge)'], [Math.max(m.failed / m.total, m.failed ? 0.006 : 0), 'var(--bad)']]) : h`<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect width="100" height="6" fill="var(--edge)" opacity=".5"/></svg>`
function mapsView() {
  const rows = mapRows(), limit = 60 + world.stored.length, counts = new Map([['all', allMaps().length]])
  for (const m of allMaps()) { const s = isOpen(m) ? m.state : 'ended'; counts.set(s, (counts.get(s) ?? 0) + 1) }
  const wide = isWide(), sought = wide && ui.view === 'map' && ui.id
  // Nobody's row becomes another one while they look at it.
  const picked = sought ? world.find(ui.id) : wide ? rows.find(m => m.id === ui.picked) ?? rows[0] : null
  ui.picked = picked?.id ?? ''
  const list = h`<section class="panel flush" data-key="list" aria-label="Maps and jobs"><table class="maps"><thead><tr><th>Function, map</th><th>Progress</th><th class="num">Items a second</th><th class="num">Time left</th><th class="num">Cores</th><th>Waits for</th><th><span class="sr">Actions</span></th></tr></thead><tbody>
  ${rows.slice(0, limit).map(m => h`<tr data-key="${m.id}" data-id="${m.id}"${picked === m && h` aria-selected="true"`} class="${ui.ask.endsWith(`:${m.id}`) && ui.asker === 'list' ? 'asking' : ''}">
    <td><a class="fn" data-row href="${link('map', m.id)}">${chip(fnOf(m))}${m.function}</a> ${stateWord(m.state)}<small><span class="mono">${m.id.slice(-8)}</span> · ${m.kind}${m.owner && h` of <span class="whole">${m.owner}</span>`}${labels(m)}</small></td>
    <td>${progress(m)}<small>${num(m.done)} of ${m.total ? num(m.total) : 'a stream'}${m.total && m.state !== 'ok' ? ` · ${Math.floor(m.done / m.total * 100)} %` : ''}${m.failed > 0 && h` · <span class="bad fn">${num(m.failed)} failed</span>`}</small></td>
    <td class="num" data-name="items/s">${num(m.rate)}</td>
    <td class="num" data-name="left">${m.ended != null ? h`<span class="quiet">took ${took(m.seconds)}, ended ${ago(m.ended)}</span>` : about(m.left)}</td>
    <td class="num" data-name="cores">${isOpen(m) ? h`${num(m.cores)}<small>${m.limit ? `at most ${m.limit}` : m.fair != null ? `fair ${share(m.fair)}` : ''}</small>` : '–'}</td>
    <td data-name="waits for">${m.waits ? waitText[m.waits] ?? m.waits : ''}${oldest(m)}</td>
    <td class="full" data-of="${m.id}">${mapActs(m, 'list')}</td></tr>`)}</tbody></table>
  ${rows.length === 0 && h`<p class="more">${allMaps().length ? h`No map matches. <button data-act="clear">Show all</button>` : h`No map of more than a moment is open, or has ended in the last ten minutes. ${world.empty ? h`<a href="#now">Start a worker</a>.` : h`Run one: <code>seq 1000 | jetmap map FUNCTION</code>`}`}</p>`}${world.older && (ui.state === 'all' || ui.state === 'ended') && h`<p class="more">Older jobs are in the store. <button data-act="older"${off()}>Show more</button></p>`}${(rows.length > limit || world.document.more > 0) && h`<p class="more">${num(Math.max(0, rows.length - limit) + world.document.more)} more. Narrow them with the filter: a function, an owner, an id, or <code>customer:7</code>.</p>`}</section>`
  return h`<div class="tools" data-key="tools"><h1>Maps and jobs</h1><div class="seg" role="group" aria-label="State">${['all', 'running', 'waiting', 'paused', 'ended'].map(s => h`<button data-act="state" data-s="${s}" aria-pressed="${bool(ui.state === s)}">${s[0].toUpperCase() + s.slice(1)} ${counts.get(s) ?? 0}</button>`)}</div>
  <select data-act="fn" aria-label="Function"><option value="" data-key="every">Every function</option>${[...world.byName.keys(), ...ui.fn && !world.byName.has(ui.fn) ? [ui.fn] : []].map(name => h`<option data-key="of ${name}"${ui.fn === name && h` selected`}>${name}</option>`)}</select>${finder('Filter: name, owner, label:value')}</div>
  ${picked || sought ? h`<div class="maps-wide" data-key="split">${list}<div class="stack" data-key="detail">${picked ? mapDetail(picked) : missing()}</div></div>` : list}`
}
const finder = text => h`<div class="find"><input type="search" id="find" placeholder="${text}" aria-label="${text}" value="${ui.find}"><kbd aria-hidden="true">/</kbd></div>`

// ---- One map ---------------------------------------------------------------------------------------
const PHASES = [['waiting for a core', 'var(--p0)'], ['on the way', 'var(--p1)'], ['computing', 'var(--p2)'], ['lost, and run again', 'var(--p4)']]
export function advice(m, d) {
  const f = fnOf(m), all = world.cells.length, spent = (m.ended ?? world.now) - m.started
  if (m.waits === 'workers') return h`No worker that is up has <b>${f.name}</b>. Start one with the file that defines it; the ${m.kind} begins by itself.`
  if (m.waits === 'a pause of the pool') return h`The whole pool is paused: nothing new starts until somebody resumes it on <a href="#now">Now</a>. The timeout of the ${m.kind} goes on.`
  if (m.waits === 'a pause of its function') return h`<b>${f.name}</b> is paused: nothing new of it starts until somebody <a href="${link('functions', f.name)}">resumes it</a>. The timeout of the ${m.kind} goes on.`
  if (m.waits === 'a limit of its function') return h`All maps of <b>${f.name}</b> together may use ${plural(f.limit ?? 0, 'core')}, and others have them now. <a href="${link('functions', f.name)}">Change the limit</a>, or wait.`
  if (m.state === 'paused') return h`It is paused and holds no core once its ${plural(Math.ceil(m.cores), 'chunk')} under way ${m.cores > 1 ? 'end' : 'ends'}. Resume it when you like: ${plural(m.done, 'outcome')} are kept.`
  if (m.stored && !isOpen(m)) return h`It took ${took(m.seconds)}${m.run > 1 && `, in its run ${m.run}`}.${m.reason && ` ${m.reason[0].toUpperCase()}${m.reason.slice(1)}.`} Where its time went is known for ten minutes after the end only; its outcomes are <a href="${ui.root}/jobs/${encodeURIComponent(m.id)}/results">in the store</a>.`
  if (!d || !(d.wait + d.compute + d.again)) return isOpen(m) ? h`Too little of it is done to say what holds it up.` : h`It was too short to say more.`
  const sum = d.wait + d.compute + d.again, queue = d.wait / sum, again = d.again / sum, tail = d.tail / Math.max(spent, 0.1)
  if (again > 0.08) {
    const kills = world.hosts.reduce((a, x) => a + x.kills, 0)
    return h`Workers or hosts were lost in it: ${pct(again)} of the time of its chunks was computed again.${kills > 0 ? h` <a href="#hosts">The kernel has killed ${plural(kills, 'worker')}</a> for want of memory: give each more, or limit the ${m.kind} to fewer cores.` : d.failures.some(g => g.kind === 'lost') ? ' See its failures for what the workers died of.' : ''}`
  }
  if (isOpen(m) && tail > 0.12 && d.tail > 2) return h`A few items take very long: for ${about(d.tail)} now only the last ones run, and none is left for other cores. Split the largest items, or give <b>${f.name}</b> a timeout.`
  if (m.waits === 'a limit') return h`Its own limit of ${plural(m.limit, 'core')} holds it back.${m.left != null && m.fair > m.cores && m.cores > 0 ? ` At its fair share of ${share(m.fair)} it would need about ${about(m.left * m.cores / m.fair)} rather than ${about(m.left)}.` : ''}`
  if (m.waits === 'its reader') return h`Whoever reads its results is slower than the cores: the next items wait until results are read. Read faster, or submit it as a job.`
  if (m.waits === 'its input') return h`Its input comes more slowly than it is computed: nothing of it waits for a core.`
  if (isOpen(m) && Math.min(d.way, d.wait) / sum > 0.16) return h`At least ${pct(Math.min(d.way, d.wait) / sum)} of the time of its chunks passes on the way to a worker and back, as long as its fastest chunk took. An item computes for ${secs(quantile(d.bins, 0.5))} and brings ${bytes(f.in ?? 0)}: larger items, or fewer bytes, cost less.`
  if (!isOpen(m)) return h`It took ${about(spent)}. Of the time of its chunks, ${pct(d.compute / sum)} was computing.`
  const others = world.maps.filter(x => x !== m && isOpen(x)), held = others.reduce((a, x) => a + x.cores, 0), rival = others.filter(x => x.state === 'running').sort((a, b) => b.cores - a.cores)[0]
  const half = m.left != null && m.left > 5 ? ` Twice the cores would nearly halve the ${about(m.left)} left.` : '', idle = world.counts[IDLE]
  if (held > 0.2 * all) return h`It shares the pool: others hold ${num(held)} of ${num(all)} cores${rival && h`, <b>${rival.function}</b> alone ${num(rival.cores)}`}${queue > 0.35 ? h`, and it waits for cores during ${pct(queue)} of the time of its chunks` : m.fair != null && m.fair < all ? h`; its fair share is ${share(m.fair)}` : ''}.${half}`
  if (queue > 0.35 && idle > 0.1 * all) return h`Its chunks wait or travel for ${pct(queue)} of their time, though ${num(idle)} of ${plural(all, 'core')} are idle. An item computes for ${secs(quantile(d.bins, 0.5))} and brings ${bytes(f.in ?? 0)}.`
  return h`It is as fast as these cores allow: ${queue > 0.35 ? 'it has nearly all that are up, and its chunks wait for one another' : `${pct(d.compute / sum)} of the time of its chunks is computing`}.${half}`
}
function mapDetail(m) {
  const f = fnOf(m), d = ui.details.get(m.id), spent = m.ended != null ? m.seconds : world.now - m.started, sum = d ? d.wait + d.compute + d.again : 0
  const its = failuresOf(m), slow = d?.slow ?? []
  const way = d ? Math.min(d.way, d.wait) : 0, parts = d ? [d.wait - way, way, d.compute, d.again] : [], counted = d && Object.keys(d.bins).length > 0
  return h`<div class="tools" data-key="head"><div><h1>${fnName(f, link('functions', f.name))} ${stateWord(m.state)}</h1><p class="quiet"><span class="mono">${m.id}</span> · ${m.kind}${m.owner && ` of ${m.owner}`} · ${m.ended != null ? `from ${when(m.started)}` : `since ${when(m.started)}`}${labels(m)}</p></div><div class="right" data-key="acts" data-of="${m.id}">${mapActs(m, 'detail')}</div></div>
  <p class="advice" data-key="advice"><span>${advice(m, d)}</span></p>
  <dl class="panel strip" data-key="strip">${[['Done', num(m.done), m.total ? ` of ${num(m.total)}` : ' of a stream'], ['Failed', num(m.failed), ''], ['Items a second', num(m.rate), ''], ['Time left', m.ended != null ? '–' : about(m.left), ''], [m.ended != null ? 'Took' : 'Running for', took(spent), oldest(m) || ''], ['Cores', m.ended != null ? '–' : num(m.cores), m.fair != null ? `, fair ${share(m.fair)}` : '']].map(([k, v, u]) => h`<div><dt>${k}</dt><dd class="${k === 'Failed' && m.failed ? 'bad' : ''}">${v}<span>${u}</span></dd></div>`)}</dl>
  ${sum > 0 && h`<section class="panel" data-key="why" aria-labelledby="t-why"><header><h2 id="t-why">Where the time of its chunks goes</h2><span class="quiet">${about(sum)}, of all cores together</span></header>${bar(parts.map((p, i) => [p / sum, PHASES[i][1]]), 'bar tall')}
  <dl class="phases">${PHASES.map(([name, colour], i) => h`<div><dt><svg width="10" height="10" aria-hidden="true"><rect width="10" height="10" rx="2" fill="${colour}"/></svg>${name}</dt><dd>${pct(parts[i] / sum)} <small>${about(parts[i])}</small></dd></div>`)}${d.tail > 1 && isOpen(m) && h`<div><dt><svg width="10" height="10" aria-hidden="true"><rect width="10" height="10" rx="2" fill="var(--p3)"/></svg>only the last items run, since</dt><dd>${about(d.tail)}</dd></div>`}</dl></section>`}
  ${d && (counted || d.parallel.length > 1) ? h`<div class="two" data-key="curves">${d.parallel.length > 1 && panel('Cores at work for it', m.fair != null ? 'dashed: its fair share' : '', chart('par', `Cores that worked for this map over time, now ${num(m.cores)}`, 'h160', c => area(c, d.parallel, { level: m.fair ?? undefined, unit: v => num(v), x: [clock(m.started), m.ended != null ? clock(m.ended) : 'now'], least: 1 })))}
  ${counted && panel('What an item costs', 'seconds of computing; short items as the mean of their chunk', chart('cost', `Histogram of seconds an item: p50 ${secs(quantile(d.bins, 0.5))}, p95 ${secs(quantile(d.bins, 0.95))}, p99 ${secs(quantile(d.bins, 0.99))}`, 'h160', c => histogram(c, d.bins, secs)))}</div>` : ''}
  ${slow.length > 0 || m.failed > 0 || its.causes.length > 0 ? h`<div class="${slow.length > 0 ? 'two' : 'stack'}" data-key="items">${slow.length > 0 && h`<section class="panel flush" aria-labelledby="t-slow"><header><h2 id="t-slow">Slowest items</h2></header><table><thead><tr><th>Item</th><th class="num">Computed</th><th>Where</th><th class="num">Tries</th></tr></thead><tbody>${slow.map(s => h`<tr><td class="mono">${num(s.index)}${s.count > 1 && h`<small>mean of ${num(s.count)}</small>`}</td><td class="num" data-name="computed">${secs(s.seconds)} ${s.seconds > 1.5 * quantile(d.bins, 0.5) && h`<span class="quiet">${three(s.seconds / quantile(d.bins, 0.5))}× p50</span>`}</td><td>${s.host || 'a host that has left'}</td><td class="num" data-name="tries">${s.attempt}</td></tr>`)}</tbody></table></section>`}
  <section class="panel flush" data-key="its-failures" aria-labelledby="t-fail"><header><h2 id="t-fail">Its failures</h2><a class="quiet" href="#failures">All failures</a></header>${its.causes.length ? h`<table><tbody>${its.causes.slice(0, CAUSES).map(itsCause)}</tbody></table>${m.kind === 'job' && (its.causes.length > CAUSES || its.more) && h`<p class="more">${its.more && 'Counted of its first thousand. '}<a href="${ui.root}/jobs/${encodeURIComponent(m.id)}/results?only=failed">All of them</a></p>`}` : h`<p class="more">${!m.failed ? `None${isOpen(m) ? ' so far' : ''}.` : !m.stored && !d ? 'Asking who has them …' : lacksFailures(m) && !ui.kept.has(m.id) ? 'Asking the store of jobs …' : 'Their causes are not known any more.'}</p>`}</section></div>` : ''}`
}
// A job's process may have seen fewer of its failures than there are, for another one began it: the store has all.
const CAUSES = 6
export const lacksFailures = m => m.kind === 'job' && (!!m.stored || ui.details.has(m.id) && ui.details.get(m.id).failures.reduce((a, g) => a + g.count, 0) < m.failed)
const failuresOf = m => lacksFailures(m) && ui.kept.get(m.id) || { causes: ui.details.get(m.id)?.failures ?? [], more: false }
function itsCause(g) {
  const isShown = ui.open.has(g.key)
  return h`<tr data-key="${g.key}"><td class="num bad">${num(g.count)}</td><td class="full"><b>${g.type}</b> <span class="quiet">${g.message}</span>${g.trace && h`<small>first ${when(g.first)} · last ${ago(g.last)} · ${items(g)}</small>`}${isShown && traceOf(g)}</td><td class="num"><button data-act="open" data-id="${g.key}" aria-expanded="${bool(isShown)}" aria-label="${isShown ? 'Hide' : 'Show'} the first traceback of ${g.type}">${isShown ? 'Hide' : 'Traceback'}</button></td></tr>`
}
const items = g => h`${g.indexes.length === 1 ? 'item' : 'items'} ${[...g.indexes].sort((a, b) => a - b).map(i => num(i)).join(', ')}${g.count > g.indexes.length && ` and ${num(g.count - g.indexes.length)} more`}`
function traceOf(g) {
  const found = g.trace ?? ui.traces.get(g.key)
  return found == null ? h`<p class="quiet">Asking who has it …</p>` : found.traceback ? h`<pre tabindex="0" aria-label="First traceback">${found.traceback}</pre>` : h`<p class="quiet">${found.note}</p>`
}
function mapView() {
  if (isWide()) return mapsView()
  const m = world.find(ui.id)
  ui.picked = m?.id ?? ''
  const back = h`<p class="crumb" data-key="crumb"><a href="#maps">Maps and jobs</a> / <span class="mono">${ui.id}</span></p>`
  return h`${back}${m ? mapDetail(m) : missing()}`
}
function missing() {
  return ui.gone !== ui.id ? h`<section class="panel"><h1 class="sr">One map</h1><p class="quiet" role="status">Nobody runs it now. Asking the store of jobs …</p></section>` : h`<section class="panel"><h1>This map is gone</h1><p class="quiet">Maps that took more than a moment stay here for ten minutes after their end, and jobs until they are deleted or expire.</p></section>`
}

// ---- Failures --------------------------------------------------------------------------------------
const kinds = { raised: 'raised', lost: 'worker lost', timeout: 'timed out', invalid: 'did not fit the type', unencodable: 'cannot travel' }
function failuresView() {
  const list = world.failures.filter(g => `${g.function} ${g.kind} ${g.type} ${g.message} ${g.hosts.join(' ')}`.toLowerCase().includes(ui.find.toLowerCase())).sort((a, b) => b.count - a.count)
  const sum = list.reduce((a, g) => a + recent(g), 0), jobs = failedJobs()
  return h`<div class="tools" data-key="tools"><h1>Failures</h1><span class="quiet">${sum ? `${plural(sum, 'item')} in the last hour, ${plural(list.length, 'cause')}` : ''}</span>${finder('Filter: function, message, host')}</div>
  ${list.length ? h`<section class="panel flush" data-key="list" aria-label="Failures, by cause"><ul class="groups">${list.slice(0, 40).map(g => {
    const isShown = ui.open.has(g.key), where = g.hosts.length ? (g.hosts.length === 1 ? (world.hosts.length > 1 ? h`<span class="bad">only on ${g.hosts[0]}</span> · ` : h`on ${g.hosts[0]} · `) : `on ${g.hosts.length > 8 ? 'more than 8' : g.hosts.length} hosts · `) : ''
    return h`<li class="group" data-key="${g.key}"><b class="n bad">${num(g.count)}</b><div><p>${fnName(world.functionOf(g.function), link('functions', g.function))} <span class="kind">${kinds[g.kind] ?? g.kind}</span></p><p><b>${g.type}</b> ${g.message}</p><p class="when">${where}first ${when(g.first)} · last ${ago(g.last)}</p></div>${chart('b' + g.key, `${recent(g)} in the last hour, by two minutes`, '', c => bars(c, g.counts, colours.bad))}
    <div class="acts"><button data-row data-act="open" data-id="${g.key}" aria-expanded="${bool(isShown)}">${isShown ? 'Hide' : 'Traceback'}</button></div>
    ${isShown && h`<div class="wide stack">${traceOf(g)}<p class="quiet">${g.indexes.length ? h`The first of them: ${items(g)}. ` : ''}${g.job && h`Latest in the job <a class="mono" href="${ui.root}/jobs/${encodeURIComponent(g.job)}">${g.job}</a>.`}</p>${g.job && h`<div data-key="again" data-of="${g.job}">${ui.busy.has(g.job) ? busy(g.job) : ui.ask === `retry:${g.job}` ? askAgain(g.job) : h`<div class="acts" data-key="acts"><button data-key="retry" data-act="ask" data-ask="retry:${g.job}"${off()}>Run these again</button></div>`}</div>`}</div>`}</li>` })}</ul>${list.length > 40 && h`<p class="more">${plural(list.length - 40, 'more cause')}. Narrow them with the filter: a function, a message, a host.</p>`}</section>`
    : world.failures.length ? h`<section class="panel"><p>No cause matches. <button data-act="clear">Show all</button></p></section>` : h`<section class="panel"><h2>${jobs ? 'No process that is up has seen a failure in the last hour' : 'Nothing failed in the last hour'}</h2><p class="quiet">Items that fail gather here by function, kind and message.</p></section>`}${jobs}`
}
// Whoever ran them may be gone with its causes; the store has those of jobs.
function failedJobs() {
  const list = ui.failed.map(job => rowOf(job, world.document.epoch)).filter(m => m.failed > 0 && m.ended != null)
  return list.length ? panel('Latest jobs that failed', 'the store keeps their causes and tracebacks', h`<ul class="latest">${list.map(m => h`<li data-key="${m.id}"><b class="num bad">${num(m.failed)}</b><span>${fnName(fnOf(m), link('map', m.id))} <small>of ${plural(m.total, 'item')} · job <span class="mono">${m.id.slice(-8)}</span> · ended ${ago(m.ended)}</small></span></li>`)}</ul>`) : ''
}

// ---- Functions -------------------------------------------------------------------------------------
// A function whose workers all left a moment ago keeps its place, and what somebody has typed into its form.
const departed = () => ui.lastFn && !ui.find && (ui.id || ui.fnShown) === ui.lastFn.name && ui.schemas.has(ui.lastFn.name) ? { ...ui.lastFn, hosts: 0, versions: [] } : null
function functionsView() {
  const list = world.functions.filter(f => `${f.name} ${f.module}`.toLowerCase().includes(ui.find.toLowerCase()))
  const f = world.byName.get(ui.id) ?? list.find(x => x.name === ui.fnShown) ?? departed() ?? list[0]
  if (!f && !world.functions.length) return h`<h1>Functions</h1><section class="panel"><h2>None announced yet</h2><p class="quiet">A worker brings its functions with it. <a href="#now">Start one</a>.</p></section>`
  ui.fnShown = f?.name ?? ''; ui.lastFn = f
  return h`<div class="tools" data-key="tools"><h1>Functions</h1><span class="quiet">${plural(list.length, 'function')}</span>${finder('Filter: name, module')}</div><div class="list-detail ${ui.id && 'picked'}" data-key="ld">
  <section class="panel flush" aria-label="Functions" data-key="list"><table><thead><tr><th>Function</th><th class="num">Items a second</th><th class="num">Cores</th><th class="num">p50</th><th class="num">p95</th><th class="num">p99</th><th class="num">Errors</th><th class="num">Bytes in, out</th></tr></thead><tbody>${list.slice(0, 100).map(x => h`<tr data-key="${x.name}"${x === f && h` aria-selected="true"`}><td class="full"><a class="fn" data-row href="${link('functions', x.name)}">${chip(x)}${x.name}</a><small>${x.module}${!x.hosts && h` · <span class="bad">no worker has it now</span>`}${x.versions.length > 1 && h` · <span class="bad">${x.versions.length} versions</span>`}${x.paused && h` · ${stateWord('paused')}`}${x.limit != null && ` · ${limitOf(x)}`}</small></td><td class="num" data-name="items/s">${num(x.rate)}</td><td class="num" data-name="cores">${num(x.cores)}</td><td class="num" data-name="p50">${secs(x.p50)}</td><td class="num" data-name="p95">${secs(x.p95)}</td><td class="num" data-name="p99">${secs(x.p99)}</td><td class="num ${x.errors > 0.003 ? 'bad' : ''}" data-name="errors">${x.items ? (x.errors ? pct(x.errors) : '0') : '–'}</td><td class="num" data-name="in, out">${x.items ? h`${bytes(x.in)}<small>${bytes(x.out)}</small>` : '–'}</td></tr>`)}</tbody></table>${list.length > 100 && h`<p class="more">${num(list.length - 100)} more. Narrow them with the filter: a name, a module.</p>`}${!list.length && h`<p class="more">No function matches. <button data-act="clear">Show all</button></p>`}</section>
  ${f && functionDetail(f)}</div>`
}
const limitOf = f => `at most ${plural(f.limit, 'core')}${f.declared == null ? '' : f.declared === f.limit ? ', as its code says' : ` (${num(f.declared)} in its code)`}`
function functionActs(f) {
  const key = `fn:${f.name}`
  if (ui.busy.has(key)) return busy(key)
  if (ui.ask === `pausefn:${f.name}` && !f.paused) return ask(ui.ask, `Pause ${f.name} for all its callers? Nothing new of it starts until somebody resumes it; maps wait until their timeout.`, 'Pause the function')
  if (ui.ask === `limitfn:${f.name}`) return askLimit('Cores at most, in the pool', f.limit === f.declared ? null : f.limit, f.declared == null ? 'no limit' : `${f.declared}, in its code`)
  return h`<div class="acts" data-key="acts">${f.paused ? h`<button data-key="steer" data-act="fnresume" data-id="${f.name}" aria-label="Resume ${f.name}"${off()}>Resume</button>` : h`<button data-key="steer" data-act="ask" data-ask="pausefn:${f.name}" aria-label="Pause ${f.name}"${off()}>Pause</button>`}<button data-key="limit" data-act="ask" data-ask="limitfn:${f.name}" aria-label="Limit the cores of ${f.name}"${off()}>Limit</button></div>`
}
function hostsOf(digest, k) {
  const names = [...new Set(world.hosts.filter(x => x.code === digest && x.state !== 'gone').map(x => x.name))]
  return h`${plural(k, 'host')}: ${names.slice(0, 3).join(', ')}${names.length > 3 && ' …'} <button class="plain" data-act="hosts" data-text="${digest}" aria-label="Show the hosts of version ${digest}">Show</button>`
}
function functionDetail(f) {
  const r = ui.result?.fn === f.name ? ui.result : null, info = ui.schemas.get(f.name), counted = Object.keys(f.bins).length > 0
  return h`<div class="stack" data-key="fd-${f.name}" tabindex="-1"><section class="panel" data-key="about" aria-labelledby="t-f"><header><h2 id="t-f">${fnName(f)}</h2>${f.paused && stateWord('paused')}${f.limit != null && h`<span class="quiet">${limitOf(f)}</span>`}<div class="right" data-key="acts" data-of="fn:${f.name}">${functionActs(f)}</div></header><p class="quiet">${f.doc}</p>${counted ? chart('fh', `Histogram of seconds an item: p50 ${secs(f.p50)}, p95 ${secs(f.p95)}, p99 ${secs(f.p99)}`, 'h128', c => histogram(c, f.bins, secs)) : h`<p class="quiet">Nothing of it has been answered since the callers that are up now started.</p>`}</section>
  ${f.versions.length > 0 && h`<section class="panel flush" data-key="versions" aria-labelledby="t-v"><header><h2 id="t-v">Versions</h2><span class="quiet">${f.versions.length > 1 ? 'they differ; new chunks go to the newest' : 'the same everywhere'}</span></header><table><tbody>${f.versions.map(([digest, k], i) => h`<tr><td class="mono">${digest}</td><td class="full">${hostsOf(digest, k)}</td><td class="num quiet">${f.versions.length > 1 && i === f.versions.length - 1 && 'newest'}</td></tr>`)}</tbody></table></section>`}
  ${(f.hosts > 0 || info) && h`<section class="panel" data-key="run" aria-labelledby="t-run"><header><h2 id="t-run">Run one item</h2><span class="quiet">${f.hosts ? 'a form from its schema' : 'no worker has it now'}</span></header>${info ? h`<form data-run="${f.name}">${formOf(info)}<div class="acts">${ui.running.has(f.name) && h`<button type="button" data-key="leave" data-act="leave" data-id="${f.name}">Stop waiting</button>`}<button class="go" data-key="go"${ui.running.has(f.name) && h` aria-disabled="true"`}${off() || !f.hosts && h` disabled title="No worker has it now"`}>${ui.running.has(f.name) ? 'Running' : 'Run'} ${f.name}</button></div></form>` : h`<p class="quiet">Asking for its schema …</p>`}
  ${r && h`<div class="stack" role="status" data-key="result"><pre tabindex="0" aria-label="Its value" class="${r.bad ? 'bad' : ''}">${r.value}</pre><p class="quiet">${r.note}</p></div>`}</section>`}</div>`
}

// ---- Hosts and broker ------------------------------------------------------------------------------
const meter = s => h`<span class="meter">${bar([[s.bytes / s.quota, s.bytes / s.quota > 0.8 ? 'var(--bad)' : 'var(--fill)']])}<span class="${s.bytes / s.quota > 0.8 ? 'bad' : 'quiet'}">${bytes(s.bytes)} of ${bytes(s.quota)}, ${s.bytes < s.quota / 100 ? 'under 1 %' : pct(s.bytes / s.quota)}</span></span>`
function hostsView() {
  const B = world.broker, usual = most(tallied(world.hosts.map(x => x.version))), python = most(tallied(world.hosts.map(x => x.python)))
  const ranks = { gone: 0, failed: 1, starting: 2, draining: 2, up: 9 }, rank = x => Math.min(ranks[x.state], x.version !== usual || x.python !== python ? 3 : 9, crashes(x) || x.kills ? 4 : 9)
  const list = world.hosts.filter(x => `${x.name} ${x.state} ${x.version} ${x.python} ${x.offer} ${x.code}`.toLowerCase().includes(ui.find.toLowerCase())).sort((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1))
  const odd = world.hosts.filter(x => rank(x) < 9).length, limit = 40
  return h`<div class="tools" data-key="tools"><h1>Hosts and broker</h1><span class="quiet">${world.hosts.length ? h`${plural(world.hosts.length, 'host')}, ${plural(world.cells.length, 'core')}. ${odd ? `${odd} to look at, shown first` : 'All alike'}` : 'no host yet'}</span>${finder('Filter: name, state, version')}</div>
  <section class="panel flush" data-key="broker" aria-labelledby="t-b"><header><h2 id="t-b">Broker</h2><span class="${away() ? 'bad' : 'quiet'}">${world.away != null ? `away since ${clock(world.away)}` : B.server && `connected to ${B.server}`}</span></header>
  <table><thead><tr><th>Stream</th><th class="num">Messages</th><th>Store</th><th>Kept</th><th>Leader</th></tr></thead><tbody>${B.streams.map(s => h`<tr data-key="${s.name}"><td class="full"><b>${s.name}</b></td><td class="num" data-name="messages">${num(s.messages)}</td><td class="full">${s.quota > 0 ? meter(s) : bytes(s.bytes)}</td><td data-name="kept">in ${s.storage}${s.copies > 1 && `, ${s.copies} copies`}</td><td data-name="leader">${s.leader || (s.copies > 1 ? h`<span class="bad">none</span>` : 'one server')}${s.replicas.some(r => !r.current) && h` <span class="bad">${s.replicas.filter(r => !r.current).map(r => r.name).join(', ')} behind</span>`}</td></tr>`)}${B.store?.quota > 0 && h`<tr data-key="store"><td class="full"><b>Jobs together</b> <span class="quiet">new jobs are refused when it is full</span></td><td></td><td class="full">${meter(B.store)}</td><td></td><td></td></tr>`}</tbody></table>${!B.streams.length && h`<p class="more">Its streams are not known yet.</p>`}</section>
  ${!list.length && world.hosts.length > 0 && h`<section class="panel"><p>No host matches. <button data-act="clear">Show all</button></p></section>`}${list.length > 0 && h`<section class="panel flush" data-key="hosts" aria-label="Hosts"><table><thead><tr><th>Host</th><th>Cores</th><th>Memory of the workers</th><th>jetmap, Python</th><th class="num">Last heard</th><th class="num">Crashes</th><th class="num">Memory kills</th></tr></thead><tbody>${list.slice(0, limit).map(x => {
    const t = new Map(); for (let k = x.first; k < x.first + x.cores; k++) t.set(world.cells[k], (t.get(world.cells[k]) ?? 0) + 1)
    return h`<tr data-key="${x.id}"><td class="full"><b>${x.name}</b> ${stateWord(x.state === 'failed' ? 'gone' : x.state, x.state === 'failed' ? 'cannot start' : words[x.state] ?? x.state)}<small>pid ${x.pid}${x.starts > 0 && `, ${plural(x.starts, 'failed start')}`}</small>${x.failure && h`<details><summary>Why</summary><pre tabindex="0">${x.failure}</pre></details>`}</td><td class="full">${bar([...t].filter(([k]) => k !== IDLE).sort((a, b) => a[0] - b[0]).map(([k, c]) => [c / x.cores, k < 32 ? `var(--f${k})` : k === FAILED || k === UNKNOWN ? 'var(--bad)' : 'var(--info)']))}<small>${x.state === 'gone' ? 'not known' : `${x.busy} of ${x.cores} busy`}${x.state !== 'gone' && t.get(FAILED) && h`, <span class="bad">${t.get(FAILED)} failed</span>`}</small></td><td class="full">${x.memory ? h`${bar([[x.memory / x.limit, x.memory / x.limit > 0.85 ? 'var(--bad)' : 'var(--edge)']])}<small>${bytes(x.memory)} of ${bytes(x.limit)}</small>` : '–'}</td><td class="${x.version !== usual ? 'bad' : ''}" data-name="jetmap">${x.version || 'unknown'}${x.version !== usual && ' differs'}<small class="${x.python !== python ? 'bad' : ''}">${x.python} · code <span class="mono">${x.code.slice(0, 8) || 'unknown'}</span></small></td><td class="num ${x.seen != null ? 'bad' : ''}" data-name="heard">${x.seen != null ? ago(x.seen) : 'now'}</td><td class="num ${crashes(x) > 9 ? 'bad' : ''}" data-name="crashes">${num(crashes(x))}<small>${Object.entries(x.crashes).map(([why, k]) => `${k} ${why}`).join(', ')}</small></td><td class="num ${x.kills ? 'bad' : ''}" data-name="memory kills">${num(x.kills)}</td></tr>` })}</tbody></table>${list.length > limit && h`<p class="more">${num(list.length - limit)} more. Find one by its name.</p>`}</section>`}`
}

export const views = { now: nowView, maps: mapsView, map: mapView, failures: failuresView, functions: functionsView, hosts: hostsView }
export const titles = { now: 'Now', maps: 'Maps and jobs', map: 'One map', failures: 'Failures', functions: 'Functions', hosts: 'Hosts and broker' }
export function hostText(i) {
  const x = world.hosts[i], t = new Map()
  for (let k = 0; k < x.cores; k++) { const s = world.cells[x.first + k], name = s < 32 ? world.functionAt(x, k)?.name ?? 'another function' : { [IDLE]: 'idle', [STARTING]: 'starting', [FAILED]: 'failed', [DRAINING]: 'draining', [UNKNOWN]: 'silent' }[s]; t.set(name, (t.get(name) ?? 0) + 1) }
  return `${x.name}${x.state === 'up' ? '' : ', ' + (words[x.state] ?? x.state)}\n` + [...t].sort((a, b) => b[1] - a[1]).slice(0, 6).map(([name, c]) => `${c} ${name}`).join('\n')
}
export { since }
