// A job over HTTP: submitted once, then followed from anywhere by its id.

const AGAIN = 1000; // milliseconds

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Whether this gateway's broker keeps jobs. Leads to its login page where it asks for a token.
export async function hasJobs(gateway) {
  const response = await fetch(`${gateway}/jobs?limit=1`).catch(() => null);
  if (response?.status === 401 && gateway.startsWith("/")) {
    const here = location.pathname + location.search + location.hash;
    location.assign(`${gateway}/login?next=${encodeURIComponent(here)}`);
  }
  return response?.ok ?? false;
}

// The job's status. One key for all tries: if an answer is lost, the next one is of the same job.
export async function submit(gateway, name, items, signal) {
  const key = [...crypto.getRandomValues(new Uint32Array(4))].join("-");
  const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
  const body = JSON.stringify(items);
  for (;;) {
    let response = null;
    try {
      response = await fetch(`${gateway}/jobs/${name}`, { method: "POST", headers, body, signal });
    } catch (error) {
      if (signal.aborted) throw error;
    }
    if (response?.ok) return response.json();
    if (response && response.status !== 409 && response.status !== 503) throw await problem(response);
    await pause(AGAIN);
    signal.throwIfAborted();
  }
}

export async function cancel(gateway, id) {
  for (;;) {
    const response = await fetch(`${gateway}/jobs/${id}/cancel`, { method: "POST" }).catch(() => null);
    if (response?.ok) return;
    if (response && response.status !== 503) throw await problem(response);
    await pause(AGAIN);
  }
}

// The job's status; null while no gateway answers. Throws where there is no such job any more.
export async function look(gateway, id) {
  const response = await fetch(`${gateway}/jobs/${id}`).catch(() => null);
  if (response?.ok) {
    const status = await response.json();
    if (status.state === "expired") throw new Error("This job has expired.");
    return status;
  }
  if (response && response.status < 500) throw await problem(response);
  return null;
}

// Every outcome, each once, from the first one on. ``heard`` has a method for each event, for
// ``gone`` (there is no such job) and for ``link``: whether we are connected, and behind which
// event. Returns a function that stops it.
export function follow(gateway, id, heard) {
  let source, timer, last = "", closed = false;

  function open() {
    const behind = last ? `?last_event_id=${last}` : "";
    source = new EventSource(`${gateway}/jobs/${id}/events${behind}`);
    source.onopen = () => heard.link(true, last);
    source.onerror = () => {
      if (closed) return;
      heard.link(false, last);
      // After a connection that broke the browser comes again by itself, with Last-Event-ID.
      // Where it was refused (a gateway that has no broker yet), it gives up: we do not.
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(reopen, AGAIN);
    };
    for (const kind of ["start", "results", "done", "failed"]) {
      source.addEventListener(kind, (event) => {
        if (closed) return;
        if (event.lastEventId) last = event.lastEventId;
        if (kind === "done" || kind === "failed") close();
        heard[kind](JSON.parse(event.data));
      });
    }
  }

  async function reopen() {
    try {
      await look(gateway, id);
      if (!closed) open();
    } catch (error) {
      close();
      heard.gone(error);
    }
  }

  function close() {
    closed = true;
    clearTimeout(timer);
    source.close();
  }

  open();
  return close;
}

async function problem(response) {
  const said = await response.json().catch(() => ({}));
  return new Error(said.detail || said.title || `the gateway answered ${response.status}`);
}
