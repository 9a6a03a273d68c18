// Posts a list to the gateway and paints each item's result the moment it streams in.

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

function shortened(path) {
  return path.length > 70 ? `…${path.slice(-69)}` : path;
}

async function run() {
  const abort = (running = new AbortController());
  let began = performance.now();
  let done = 0, hits = 0, firstAfter = null;
  document.body.dataset.state = "running";
  document.body.removeAttribute("data-failed");
  $("run").textContent = "Stop";
  $("detail").textContent = "";

  const show = (seconds) => {
    $("done").textContent = whole.format(done);
    $("bar").value = items.length ? done / items.length : 0;
    $("elapsed").textContent = seconds.toFixed(1);
    $("rate").textContent = seconds > 0.05 ? whole.format(Math.round(done / seconds)) : "–";
    $("first-result").textContent = firstAfter === null ? "–" : Math.round(firstAfter);
    $("hits").textContent = whole.format(hits);
    $("failed").textContent = whole.format(errors.size);
    if (errors.size) document.body.dataset.failed = "";
  };
  const clock = setInterval(() => show((performance.now() - began) / 1000), 100);

  let state = "done";
  try {
    items = await kind.items($("form"));
    values = new Array(items.length);
    errors = new Map();
    $("total").textContent = whole.format(items.length);
    grid.reset(items.length, kind.step);

    began = performance.now();
    const url = `${GATEWAY}/map/${kind.function}?errors=collect`;
    for await (const { event, data } of mapStream(url, items, abort.signal)) {
      if (event === "failed") throw new Error(data.detail ?? data.title);
      if (event !== "results") continue;
      firstAfter ??= performance.now() - began;
      for (const error of data.errors) errors.set(error.index, error);
      data.values.forEach((value, i) => {
        const index = data.start + i;
        values[index] = value;
        if (!errors.has(index)) hits += Number(kind.isHit(value, items[index]));
        grid.paint(index, errors.has(index) ? COLOURS.failed : kind.colour(value, items[index]));
      });
      done = data.done;
    }
  } catch (error) {
    state = abort.signal.aborted ? "stopped" : "failed";
    $("detail").textContent = state === "stopped" ? "Stopped: what was not computed yet is withdrawn." : error.message;
  }
  clearInterval(clock);
  show((performance.now() - began) / 1000);
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
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else run();
});

$("form").addEventListener("change", (event) => {
  if (event.target.name !== "kind") return;
  running?.abort();
  choose(event.target.value);
});

$("grid").addEventListener("pointermove", (event) => {
  const index = grid.indexAt(event);
  if (index === null || document.body.dataset.state === "failed") return;
  const error = errors.get(index);
  if (error) $("detail").textContent = `${shortened(String(items[index]))}: ${error.type}: ${error.message}`;
  else if (values[index] !== undefined) $("detail").textContent = kind.tell(items[index], values[index]);
  else $("detail").textContent = `${shortened(String(items[index]))}: not there yet`;
});

choose($("form").elements.kind.value);
grid.reset(Number($("form").elements.count.value), kind.step);
