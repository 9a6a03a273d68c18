// Requests to the gateway, and the login that it may ask for.
import { root } from './page.js'

export async function get(path) {
  const answer = await fetch(root + path, { headers: { accept: 'application/json' } })
  if (answer.status === 401) login()
  return answer.ok ? answer.json() : { problem: await answer.json().catch(() => ({ detail: answer.statusText })) }
}
export async function post(path, body) {
  const answer = await fetch(root + path, { method: 'POST', headers: { accept: 'application/json', 'content-type': 'application/json' }, body: body === undefined ? undefined : JSON.stringify(body) })
  if (answer.status === 401) login()
  const text = await answer.text()
  let found = null
  try { found = JSON.parse(text) } catch { /* no body */ }
  return { ok: answer.ok, status: answer.status, found }
}
export function login() { location.assign(`${root}/login?next=${encodeURIComponent(location.pathname + location.hash)}`) }
