// Requests to the gateway, which may hang as well as be away; and the login that it may ask for.
import { main, render, root, ui } from './page.js'

const ANSWER = 30_000, ACTION = 15_000   // Milliseconds for an answer, and for that to an action.
const accept = 'application/json'
export async function get(path) {
  const answer = await fetch(root + path, { headers: { accept }, signal: AbortSignal.timeout(ANSWER) })
  if (answer.status === 401) login()
  return answer.ok ? answer.json() : { problem: await answer.json().catch(() => ({ detail: answer.statusText })) }
}
// body: JSON. signal: ends the waiting.
export async function post(path, body, signal = AbortSignal.timeout(ACTION)) {
  const answer = await fetch(root + path, { method: 'POST', headers: { accept, 'content-type': accept }, body, signal })
  if (answer.status === 401) login()
  const text = await answer.text()
  let found = null
  try { found = JSON.parse(text) } catch { /* no body */ }
  return { ok: answer.ok, found, text }
}
export const loginAddress = () => `${root}/login?next=${encodeURIComponent(location.pathname + location.hash)}`
// With the page, what somebody has typed into a form would go: then it stays until they have logged in elsewhere.
export function login() {
  if (!hasTyped()) return location.assign(loginAddress())
  ui.over = true
  render()
}
const hasTyped = () => [...main.querySelectorAll('form :is(input, textarea)')].some(e => e.type === 'checkbox' ? e.checked !== e.defaultChecked : e.value !== e.defaultValue)
export async function isLoggedIn() {
  try { return (await fetch(`${root}/ui/session`, { headers: { accept }, signal: AbortSignal.timeout(ANSWER) })).ok } catch { return false }
}
