// A job's submission and events, over answers that are lost and gateways that go away.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { cancel, follow, hasJobs, look, submit } from "./job.js";

const LOST = new TypeError("fetch failed");
const answer = (status, document) => () => new Response(JSON.stringify(document), { status });

let asked, answers;

beforeEach(() => {
  asked = [];
  globalThis.fetch = async (url, options = {}) => {
    asked.push({ url, ...options });
    options.signal?.throwIfAborted();
    const next = answers.length > 1 ? answers.shift() : answers[0];
    if (next === LOST) throw LOST;
    return next();
  };
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  Sources.all = [];
});

// What waits for a second gets it at once.
async function hurried(promise) {
  let over = false;
  promise.then(() => (over = true), () => (over = true));
  while (!over) {
    await new Promise(setImmediate);
    mock.timers.tick(1000);
  }
  return promise;
}

test("one key for all tries", async () => {
  answers = [LOST, answer(503, {}), answer(409, {}), answer(202, { id: "j1" })];
  const job = await hurried(submit("gate", "f", [1, 2], new AbortController().signal));
  assert.equal(job.id, "j1");
  assert.equal(asked.length, 4);
  const keys = new Set(asked.map(({ headers }) => headers["Idempotency-Key"]));
  assert.equal(keys.size, 1);
  assert.match([...keys][0], /^\d+-\d+-\d+-\d+$/);
  assert.deepEqual(asked.map(({ url, body }) => [url, body]), Array(4).fill(["gate/jobs/f", "[1,2]"]));
});

test("two submissions have two keys", async () => {
  answers = [answer(202, {})];
  await submit("gate", "f", [], new AbortController().signal);
  await submit("gate", "f", [], new AbortController().signal);
  assert.notEqual(asked[0].headers["Idempotency-Key"], asked[1].headers["Idempotency-Key"]);
});

test("a refusal is not tried again", async () => {
  answers = [answer(400, { detail: "the list is no list" })];
  await assert.rejects(submit("gate", "f", [], new AbortController().signal), /the list is no list/);
  assert.equal(asked.length, 1);
});

test("who stops while no gateway answers submits no more", async () => {
  answers = [LOST];
  const stop = new AbortController();
  const submitting = submit("gate", "f", [], stop.signal);
  await new Promise(setImmediate);
  stop.abort();
  await assert.rejects(hurried(submitting), { name: "AbortError" });
  assert.equal(asked.length, 1);
});

test("a job is cancelled once a gateway answers", async () => {
  answers = [LOST, answer(503, {}), answer(202, {})];
  await hurried(cancel("gate", "j1"));
  assert.deepEqual(asked.map(({ url, method }) => [url, method]), Array(3).fill(["gate/jobs/j1/cancel", "POST"]));
  answers = [answer(404, { detail: "no such job" })];
  await assert.rejects(cancel("gate", "j2"), /no such job/);
});

test("a look tells status, nothing, or that it is gone", async () => {
  answers = [answer(200, { state: "running" })];
  assert.equal((await look("gate", "j1")).state, "running");
  for (const away of [LOST, answer(503, {})]) {
    answers = [away];
    assert.equal(await look("gate", "j1"), null);
  }
  answers = [answer(200, { state: "expired" })];
  await assert.rejects(look("gate", "j1"), /expired/);
  answers = [answer(404, { title: "No such job" })];
  await assert.rejects(look("gate", "j1"), /No such job/);
});

test("a gateway without a store has no jobs", async () => {
  for (const [given, found] of [[answer(200, {}), true], [answer(501, {}), false], [LOST, false]]) {
    answers = [given];
    assert.equal(await hasJobs("gate"), found);
  }
});

class Sources extends EventTarget {
  static CLOSED = 2;
  static all = [];
  readyState = 0;

  constructor(url) {
    super();
    this.url = url;
    Sources.all.push(this);
  }

  open() {
    this.readyState = 1;
    this.onopen();
  }

  breaks(readyState) {
    this.readyState = readyState;
    this.onerror();
  }

  close() {
    this.readyState = 2;
  }

  tell(type, data, lastEventId = "") {
    this.dispatchEvent(Object.assign(new Event(type), { data: JSON.stringify(data), lastEventId }));
  }
}

globalThis.EventSource = Sources;

function following() {
  const heard = [];
  const method = (kind) => (...given) => heard.push([kind, ...given]);
  const kinds = ["start", "results", "done", "failed", "gone", "link"];
  const close = follow("gate", "j1", Object.fromEntries(kinds.map((kind) => [kind, method(kind)])));
  return { heard, close };
}

test("events are told, the last one closes", () => {
  const { heard } = following();
  const [source] = Sources.all;
  assert.equal(source.url, "gate/jobs/j1/events");
  source.open();
  source.tell("start", { total: 2 });
  source.tell("results", { start: 0 }, "7");
  source.tell("done", { done: 2 }, "7-end");
  source.tell("results", { start: 1 }, "8");
  assert.equal(source.readyState, Sources.CLOSED);
  assert.deepEqual(heard, [
    ["link", true, ""], ["start", { total: 2 }], ["results", { start: 0 }], ["done", { done: 2 }],
  ]);
});

test("the browser comes again by itself where it can", async () => {
  const { heard } = following();
  const [source] = Sources.all;
  source.open();
  source.tell("results", {}, "7");
  source.breaks(0);
  mock.timers.tick(5000);
  await new Promise(setImmediate);
  assert.equal(Sources.all.length, 1);
  assert.deepEqual(heard.at(-1), ["link", false, "7"]);
});

test("refused, it comes again behind the last event", async () => {
  const { heard } = following();
  Sources.all[0].open();
  Sources.all[0].tell("results", {}, "7.2");
  answers = [answer(200, { state: "running" })];
  Sources.all[0].breaks(Sources.CLOSED);
  mock.timers.tick(1000);
  for (let turn = 0; Sources.all.length < 2 && turn < 100; turn++) await new Promise(setImmediate);
  assert.equal(Sources.all[1].url, "gate/jobs/j1/events?last_event_id=7.2");
  Sources.all[1].open();
  assert.deepEqual(heard.at(-1), ["link", true, "7.2"]);
});

test("where the job is gone it stays away", async () => {
  const { heard } = following();
  answers = [answer(404, { detail: "no such job" })];
  Sources.all[0].breaks(Sources.CLOSED);
  mock.timers.tick(1000);
  for (let turn = 0; heard.at(-1)[0] !== "gone" && turn < 100; turn++) await new Promise(setImmediate);
  assert.equal(heard.at(-1)[0], "gone");
  assert.equal(heard.at(-1)[1].message, "no such job");
  assert.equal(Sources.all.length, 1);
});

test("closed, nothing is told and nothing opened", async () => {
  const { heard, close } = following();
  Sources.all[0].open();
  Sources.all[0].breaks(Sources.CLOSED);
  close();
  mock.timers.tick(5000);
  await new Promise(setImmediate);
  Sources.all[0].tell("results", {}, "9");
  Sources.all[0].breaks(Sources.CLOSED);
  assert.equal(Sources.all.length, 1);
  assert.deepEqual(heard.map(([kind]) => kind), ["link", "link"]);
});
