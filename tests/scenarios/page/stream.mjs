// A map's events, however the network cuts them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { mapStream } from "./stream.js";

const EVENTS =
  'event: start\ndata: {"map":"m","total":3}\n\n' +
  ": still running\n\n" +
  'event: results\ndata: {"start":0,"values":["ü\u2028😀\\n",null],"errors":[{"index":1}],"done":2,"total":3}\n\n' +
  'event: results\ndata: {"start":2,"values":[2.5],"errors":[],"done":3,"total":3}\n\n';
const DONE = 'event: done\ndata: {"done":3,"failed":1,"seconds":0.5}\n\n';

function answered(text, { status = 200, size = text.length, cancelled = () => {} } = {}) {
  const bytes = new TextEncoder().encode(text);
  let at = 0;
  const body = new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(at, (at += size)));
    },
    cancel: cancelled,
  });
  const asked = [];
  globalThis.fetch = async (url, options) => {
    asked.push({ url, ...options });
    options.signal?.throwIfAborted();
    return new Response(body, { status });
  };
  return asked;
}

async function all(stream) {
  const found = [];
  for await (const event of stream) found.push(event);
  return found;
}

test("events arrive whole, wherever the bytes are cut", async () => {
  for (let size = 1; size < 80; size++) {
    const asked = answered(EVENTS + DONE, { size });
    const found = await all(mapStream("/map/f", [1, 2, 3]));
    assert.deepEqual(found.map(({ event }) => event), ["start", "results", "results", "done"]);
    assert.deepEqual(found[1].data.values, ["ü\u2028😀\n", null]);
    assert.deepEqual(found[3].data, { done: 3, failed: 1, seconds: 0.5 });
    assert.equal(asked[0].method, "POST");
    assert.equal(asked[0].body, "[1,2,3]");
    assert.equal(asked[0].headers.Accept, "text/event-stream");
    assert.equal(asked[0].headers["Content-Type"], "application/json");
  }
});

test("data of several lines is one value", async () => {
  answered('event: results\ndata: {"start":\ndata: 0}\n\n' + DONE);
  assert.deepEqual((await all(mapStream("/map/f", [])))[0].data, { start: 0 });
});

test("failed ends the map, too", async () => {
  answered('event: failed\ndata: {"title":"no"}\n\n');
  assert.deepEqual(await all(mapStream("/map/f", [])), [{ event: "failed", data: { title: "no" } }]);
});

test("a connection that breaks is an error, after what came", async () => {
  answered(EVENTS + DONE.slice(0, -1));
  const found = [];
  await assert.rejects(async () => {
    for await (const event of mapStream("/map/f", [])) found.push(event);
  }, /broke before the map had ended/);
  assert.equal(found.length, 3);
});

test("a refusal is an error with the problem's detail", async () => {
  for (const [text, said] of [
    ['{"title":"T","detail":"D"}', /^Error: D$/],
    ['{"title":"T"}', /^Error: T$/],
    ["<html>", /answered 502/],
  ]) {
    answered(text, { status: 502 });
    await assert.rejects(all(mapStream("/map/f", [])), said);
  }
});

test("who leaves the loop cancels the answer", async () => {
  let cancelled;
  const left = new Promise((resolve) => (cancelled = resolve));
  answered(EVENTS + DONE, { size: 10, cancelled });
  for await (const { event } of mapStream("/map/f", [])) if (event === "results") break;
  await left;
});

test("an aborted signal asks for nothing", async () => {
  answered(EVENTS);
  await assert.rejects(all(mapStream("/map/f", [], AbortSignal.abort())), { name: "AbortError" });
});
