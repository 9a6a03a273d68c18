// Where cells are, and what colour they have.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

let frames, resized;

globalThis.matchMedia = () => ({ matches: false });
globalThis.ResizeObserver = class {
  constructor(layOut) {
    resized = layOut;
  }
  observe() {}
};
globalThis.requestAnimationFrame = (frame) => frames.push(frame);
globalThis.devicePixelRatio = 1;

const { Grid, cool, heat } = await import("./grid.js");

let filled;

function canvas(width, height) {
  const context = {
    fillRect: (x, y, w, h) => filled.push({ x, y, w, h, style: context.fillStyle }),
  };
  return {
    getContext: () => context,
    parentElement: { clientWidth: width, clientHeight: height },
    style: {},
    get clientWidth() {
      return parseFloat(this.style.width);
    },
  };
}

beforeEach(() => {
  frames = [];
  filled = [];
  globalThis.devicePixelRatio = 1;
});

test("colours go from end to end, and no further", () => {
  for (const colour of [heat, cool]) {
    const seen = [-1, 0, 0.2, 0.5, 0.99, 1, 7].map(colour);
    for (const found of seen) assert.match(found, /^rgb\(\d{1,3} \d{1,3} \d{1,3}\)$/);
    assert.equal(seen[0], seen[1]);
    assert.equal(seen[5], seen[6]);
    assert.equal(new Set(seen).size, 5);
  }
});

test("every item has a cell of its own within the stage", () => {
  for (const [width, height] of [[1224, 440], [300, 500], [40, 40]])
    for (const count of [1, 2, 7, 60, 999, 22_500])
      for (const step of [1, 30]) {
        const shown = canvas(width, height);
        const grid = new Grid(shown);
        filled = [];
        grid.reset(count, step);
        assert.equal(filled.length, count);
        assert.equal(new Set(filled.map(({ x, y }) => `${x} ${y}`)).size, count);
        assert.equal(grid.columns % step, 0);
        if (grid.cell > 1) {
          assert.ok(shown.width <= width, `${shown.width} > ${width}`);
          assert.ok(shown.height <= height, `${shown.height} > ${height}`);
        }
      }
});

test("the pointer finds the cell that it is over", () => {
  globalThis.devicePixelRatio = 2;
  const grid = new Grid(canvas(800, 400));
  grid.reset(100, 30);
  for (const index of [0, 1, 29, 57, 99]) {
    const x = ((index % grid.columns) + 0.5) * grid.cell, y = (Math.floor(index / grid.columns) + 0.5) * grid.cell;
    assert.equal(grid.indexAt({ offsetX: x / 2, offsetY: y / 2 }), index);
  }
  const below = (grid.rows + 0.5) * grid.cell;
  assert.equal(grid.indexAt({ offsetX: 0, offsetY: below / 2 }), null);
});

test("a painted cell flashes, settles, and keeps its colour when the stage changes", () => {
  const shown = canvas(400, 400);
  const grid = new Grid(shown);
  grid.reset(4);
  filled = [];
  grid.paint(2, "rgb(1 2 3)");
  grid.paint(3, "rgb(4 5 6)");
  assert.equal(frames.length, 1); // one frame for all that is painted
  frames.shift()();
  assert.ok(filled.some(({ style }) => style === "rgb(1 2 3)"));
  assert.ok(filled.some(({ style }) => style.startsWith("rgb(255 255 255")));
  for (const index of grid.fresh.keys()) grid.fresh.set(index, performance.now() - 10_000);
  frames.shift()();
  assert.equal(grid.fresh.size, 0);
  assert.equal(frames.length, 0);
  shown.parentElement.clientWidth = 900;
  filled = [];
  resized();
  assert.equal(filled[2].style, "rgb(1 2 3)");
  assert.notEqual(filled[0].style, "rgb(1 2 3)");
});

test("a grid of nothing is empty", () => {
  const shown = canvas(400, 400);
  const grid = new Grid(shown);
  grid.reset(10);
  grid.reset(0);
  assert.equal(shown.width, 0);
  assert.equal(grid.indexAt({ offsetX: 5, offsetY: 5 }), null);
});
