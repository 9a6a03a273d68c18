// Posts a list to the gateway, as a map or as a job, and paints each item's result the moment it
// streams in. A job goes on without the page: reload it, or let the gateway die.

import { cancel, follow, hasJobs, look, submit } from "./job.js";
import { mapStream } from "./stream.js";
import { Grid, cool, heat } from "./grid.js";

const GATEWAY = new URLSearchParams(location.search).get("gateway") ?? "jetmap";
const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");
const COLOURS = { prime: "#ffb454", failed: "#ff5c72" };

// What can be run: where its items come from, how a value is painted and told.
const KINDS = {
  primes: {
    function: "smallest_factor",
    about: "Consecutive numbers, each divided until it gives, on whichever core is free. Primes light up.",
    step: 30, // a row is a multiple of 2·3·5, so that factors stand in columns
    hits: "primes",
    legend: `<span><i style="background:${COLOURS.prime}"></i>prime</span><span>smallest factor: 2${ramp(cool)}large</span>`,
    items: async (form) => {
      const first = Number(form.first.value), count = Number(form.count.value);
      if (!Number.isSafeInteger(first) || first < 2) throw new Error("“from” is a whole number from 2 to 9,007,199,254,740,991");
      return Array.from({ length: count }, (_, i) => first + i);
    },
    isHit: (factor, item) => factor === item,
    colour: (factor, item) =>
      factor === item ? COLOURS.prime : cool(Math.log(factor / 2) / Math.log(Math.sqrt(item) / 2)),
    tell: (item, factor) =>
      `${whole.format(item)} ${factor === item ? "is a prime" : `= ${whole.format(factor)} × ${whole.format(item / factor)}`}`,
  },
  sources: {
    function: "measure",
    about: "Every source file of this Python installation, parsed and measured. The brighter a cell, the more its most complex function branches.",
    step: 1,
    hits: "lines read",
    legend: `<span>simple${ramp(heat)}complex</span><span><i style="background:${COLOURS.failed}"></i>does not parse</span>`,
    items: async () => (await fetch("files")).json(),
    isHit: (value) => value.lines,
    colour: (value) => heat(Math.log1p(value.complexity) / Math.log(150)),
    tell: (item, value) =>
      `${shortened(item)}: ${whole.format(value.lines)} lines, complexity ${value.complexity}${value.most_complex ? ` in ${value.most_complex}()` : ""}`,
  },
};

function ramp(colour) {
  const stops = [0, 0.25, 0.5, 0.75, 1].map(colour).join(",");
  return `<i class="ramp" style="background:linear-gradient(90deg,${stops})"></i>`;
}

const grid = new Grid($("grid"));
let kind = KINDS.primes;
let items = [], values = [], errors = new Map();
let running = null;
let current = null; // the run that is shown

function shortened(path) {
  return path.length > 70 ? `…${path.slice(-69)}` : path;
}

// One run, as a map or as a job: what is there of it, and how it is shown.
class Run {
  constructor(list) {
    clear();
    current = this;
    items = list;
    values = new Array(items.length);
    this.done = this.hits = 0;
    this.firstAfter = null;
    this.began = performance.now();
    $("total").textContent = whole.format(items.length);
    grid.reset(items.length, kind.step);
  }

  results(data) {
    if (current !== this) return;
    this.firstAfter ??= performance.now() - this.began;
    for (const error of data.errors) errors.set(error.index, error);
    data.values.forEach((value, i) => {
      const index = data.start + i;
      values[index] = value;
      if (!errors.has(index)) this.hits += Number(kind.isHit(value, items[index]));
      grid.paint(index, errors.has(index) ? COLOURS.failed : kind.colour(value, items[index]));
    });
    this.done = data.done;
  }

  show(seconds = (performance.now() - this.began) / 1000) {
    if (current !== this) return;
    $("done").textContent = whole.format(this.done);
    $("bar").value = items.length ? this.done / items.length : 0;
    $("elapsed").textContent = seconds.toFixed(1);
    $("rate").textContent = seconds > 0.05 ? whole.format(Math.round(this.done / seconds)) : "–";
    $("first-result").textContent = this.firstAfter === null ? "–" : Math.round(this.firstAfter);
    $("hits").textContent = whole.format(this.hits);
    $("failed").textContent = whole.format(errors.size);
    if (errors.size) document.body.dataset.failed = "";
  }
}

// Nothing has run yet: what is shown is what is asked for.
function clear() {
  const count = kind === KINDS.primes ? Number($("form").count.value) : 0;
  current = null;
  items = values = [];
  errors = new Map();
  for (const id of ["rate", "elapsed", "first-result", "hits", "failed"]) $(id).textContent = "–";
  $("done").textContent = "0";
  $("total").textContent = count ? whole.format(count) : "–";
  $("bar").value = 0;
  delete document.body.dataset.failed;
  grid.reset(count, kind.step);
}

// Stop of a map is to leave it.
async function runMap(signal) {
  const list = await kind.items($("form"));
  signal.throwIfAborted();
  const run = new Run(list);
  const clock = setInterval(() => run.show(), 100);
  const url = `${GATEWAY}/map/${kind.function}?errors=collect`;
  try {
    for await (const { event, data } of mapStream(url, items, signal)) {
      if (event === "failed") throw new Error(data.detail ?? data.title);
      if (event === "results") run.results(data);
    }
  } finally {
    clearInterval(clock);
    run.show();
  }
}

// The address of this page holds all that it takes to show the job once more.
async function submitJob(signal) {
  const { kind: name, first, count } = Object.fromEntries(new FormData($("form")));
  const list = await kind.items($("form"));
  signal.throwIfAborted();
  new Run(list).show(0);
  $("state").textContent = "The list is on its way into the store …";
  const job = await submit(GATEWAY, kind.function, list, signal);
  history.replaceState(null, "", `#${new URLSearchParams({ job: job.id, kind: name, first, count })}`);
  await followJob(job.id, signal);
}

// Stop of a job is to cancel it; to leave it does nothing to it.
async function followJob(id, signal) {
  const run = new Run(await kind.items($("form")));
  let status = null, connected = false, breaks = 0, behind = "", ended = false;
  const seconds = () => {
    const began = Date.parse(status?.started), until = Date.parse(status?.finished ?? new Date());
    return Math.max(0, (until - began) / 1000) || 0;
  };
  const where = () => {
    document.body.dataset.link = connected ? "open" : "lost";
    document.body.dataset.breaks = breaks;
    const left = status?.seconds_left ? `, ${Math.ceil(status.seconds_left)} s left` : "";
    const lack = status?.waiting_for ? ` for ${status.waiting_for}` : "";
    const job = `Job ${id}: ${status?.state ?? "…"}${lack}${ended ? "" : left}.`;
    const again = breaks ? ` Connected again, behind event ${behind || 0}.` : "";
    const away = "The gateway is away; the job goes on. Waiting for one that answers …";
    $("state").textContent = breaks && !connected && !ended ? away : job + again;
  };
  const stop = () => cancel(GATEWAY, id).catch((error) => tell(error.message));
  if (signal.aborted) stop();
  const looking = setInterval(async () => {
    status = (await look(GATEWAY, id).catch(() => null)) ?? status;
    if (!ended) where();
  }, 1000);
  const clock = setInterval(() => run.show(seconds()), 100);
  signal.addEventListener("abort", stop);
  document.querySelector(".choice").disabled = true; // values are painted as this kind's
  try {
    status = await look(GATEWAY, id);
    const last = await new Promise((resolve, reject) => {
      follow(GATEWAY, id, {
        start: where,
        results: (data) => run.results(data),
        done: resolve,
        failed: (data) => resolve({ problem: data }),
        gone: reject,
        link: (open, event) => {
          if (connected && !open) breaks++;
          connected = open;
          behind = event;
          where();
        },
      });
    });
    ended = true;
    status = (await look(GATEWAY, id).catch(() => null)) ?? status;
    where();
    if (last.problem && !signal.aborted) throw new Error(last.problem.detail ?? last.problem.title);
    if (last.problem) throw signal.reason;
  } finally {
    ended = true;
    clearInterval(looking);
    clearInterval(clock);
    signal.removeEventListener("abort", stop);
    document.querySelector(".choice").disabled = false;
    run.show(seconds());
  }
}

function tell(text) {
  $("detail").textContent = text;
}

async function start(work) {
  const abort = (running = new AbortController());
  document.body.dataset.state = "running";
  for (const name of ["failed", "link", "breaks"]) delete document.body.dataset[name];
  $("run").textContent = "Stop";
  $("state").textContent = "";
  tell("");
  let state = "done";
  try {
    await work(abort.signal);
  } catch (error) {
    state = abort.signal.aborted ? "stopped" : "failed";
    tell(state === "stopped" ? "Stopped: what was not computed yet is withdrawn." : error.message);
  }
  $("run").textContent = "Run";
  running = null;
  document.body.dataset.state = state;
}

function choose(name) {
  kind = KINDS[name];
  $("about").textContent = kind.about;
  $("legend").innerHTML = kind.legend;
  $("hits-label").textContent = kind.hits;
  for (const field of document.querySelectorAll("[data-for]")) field.hidden = field.dataset.for !== name;
  clear();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) return running.abort();
  history.replaceState(null, "", location.pathname + location.search);
  start($("form").job.checked ? submitJob : runMap);
});

$("form").addEventListener("change", (event) => {
  if (event.target.name === "count" && !current) clear();
  if (event.target.name !== "kind") return;
  running?.abort();
  choose(event.target.value);
});

$("grid").addEventListener("pointermove", (event) => {
  const index = grid.indexAt(event);
  if (index === null || index >= items.length || document.body.dataset.state === "failed") return;
  const error = errors.get(index);
  if (error) $("detail").textContent = `${shortened(String(items[index]))}: ${error.type}: ${error.message}`;
  else if (values[index] !== undefined) $("detail").textContent = kind.tell(items[index], values[index]);
  else $("detail").textContent = `${shortened(String(items[index]))}: not there yet`;
});

// A job that the address names is shown; else the page waits for you.
async function open() {
  const form = $("form"), asked = new URLSearchParams(location.hash.slice(1));
  const known = asked.has("job") && asked.get("kind") in KINDS;
  if (known) for (const name of ["kind", "first", "count"]) form.elements[name].value = asked.get(name);
  choose(form.elements.kind.value);
  const jobs = (await hasJobs(GATEWAY)) || known;
  form.job.checked = jobs;
  form.job.disabled = !jobs;
  form.job.parentElement.title = jobs ? "It goes on without this page" : "This gateway's broker keeps no jobs";
  document.body.dataset.state = "idle";
  if (known) start((signal) => followJob(asked.get("job"), signal));
}

open();
