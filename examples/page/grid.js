// A canvas with one cell an item. A cell flashes when it is painted, then settles.

const PENDING = "#12161e";
const FLASH = 450; // milliseconds
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

const HOT = [[38, 22, 68], [106, 30, 110], [188, 55, 84], [243, 120, 45], [252, 226, 132]];
const COLD = [[27, 34, 48], [34, 66, 92], [33, 112, 133], [62, 165, 164], [150, 222, 202]];

// Dark violet to pale yellow, and dark blue to pale green; share is between 0 and 1.
export const heat = (share) => mixed(HOT, share);
export const cool = (share) => mixed(COLD, share);

function mixed(stops, share) {
  const at = Math.min(1, Math.max(0, share)) * (stops.length - 1);
  const low = Math.min(stops.length - 2, Math.floor(at));
  return `rgb(${stops[low].map((c, i) => Math.round(c + (stops[low + 1][i] - c) * (at - low))).join(" ")})`;
}

export class Grid {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.count = 0;
    this.fresh = new Map(); // index -> when it was painted
    new ResizeObserver(() => this.layOut()).observe(canvas.parentElement);
  }

  // A row has a multiple of ``step`` cells.
  reset(count, step = 1) {
    this.count = count;
    this.step = step;
    this.colours = new Array(count);
    this.fresh.clear();
    this.layOut();
  }

  paint(index, colour) {
    this.colours[index] = colour;
    this.fresh.set(index, performance.now());
    this.frame ??= requestAnimationFrame(() => this.settle());
  }

  indexAt(event) {
    const scale = this.canvas.width / this.canvas.clientWidth;
    const column = Math.floor((event.offsetX * scale) / this.cell);
    const row = Math.floor((event.offsetY * scale) / this.cell);
    const index = row * this.columns + column;
    return index >= 0 && index < this.count ? index : null;
  }

  layOut() {
    const stage = this.canvas.parentElement, scale = devicePixelRatio || 1;
    const width = stage.clientWidth * scale, height = stage.clientHeight * scale;
    if (!this.count) this.canvas.width = this.canvas.height = 0;
    if (!this.count || !width || !height) return;
    const square = Math.sqrt((this.count * width) / height); // cells in a row of square cells
    this.columns = Math.max(1, Math.round(square / this.step)) * this.step;
    this.rows = Math.ceil(this.count / this.columns);
    this.cell = Math.max(1, Math.floor(Math.min(width / this.columns, height / this.rows)));
    this.gap = this.cell > 4 ? Math.max(1, Math.round(this.cell / 9)) : 0;
    this.canvas.width = this.columns * this.cell;
    this.canvas.height = this.rows * this.cell;
    this.canvas.style.width = `${this.canvas.width / scale}px`;
    this.canvas.style.height = `${this.canvas.height / scale}px`;
    for (let index = 0; index < this.count; index++) this.draw(index);
  }

  draw(index, glow = 0) {
    const { context, cell, gap, columns } = this;
    const x = (index % columns) * cell, y = Math.floor(index / columns) * cell;
    context.fillStyle = this.colours[index] ?? PENDING;
    context.fillRect(x, y, cell - gap, cell - gap);
    if (glow > 0) {
      context.fillStyle = `rgb(255 255 255 / ${glow})`;
      context.fillRect(x, y, cell - gap, cell - gap);
    }
  }

  settle() {
    const now = performance.now();
    for (const [index, painted] of this.fresh) {
      const left = calm ? 0 : 1 - (now - painted) / FLASH;
      this.draw(index, Math.max(0, 0.75 * left * left));
      if (left <= 0) this.fresh.delete(index);
    }
    this.frame = this.fresh.size ? requestAnimationFrame(() => this.settle()) : undefined;
  }
}
