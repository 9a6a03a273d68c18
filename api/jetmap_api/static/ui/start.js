// Loaded first: loads the page again if files of it did not come, as when a network changes.
const LOADS = 'jetmap loads'
let loads = -1   // How many failed before this one, once it has.
addEventListener('error', e => { if (loads < 0 && /^(module|stylesheet)$/.test(e.target.type || e.target.rel)) again() }, true)
function again() {
  loads = 5
  try { loads = Number(sessionStorage.getItem(LOADS)); sessionStorage.setItem(LOADS, loads + 1) } catch { /* a private window */ }
  const ask = () => fetch(`${document.documentElement.dataset.root}/ui/session`).then(() => location.reload(), () => setTimeout(ask, 2000))
  if (loads < 5) setTimeout(ask, 500 * 2 ** loads)
  else addEventListener('load', () => { document.querySelector('#link').textContent = 'Some files did not come: load the page again' })
}
addEventListener('load', () => { if (loads < 0) try { sessionStorage.removeItem(LOADS) } catch {} })
