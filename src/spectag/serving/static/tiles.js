// The tiles of a spectrogram: asked for when they are shown, kept for a while, coloured in the browser.
import { palette } from "./colors.js";

const MAX_KEPT = 400; // 0.3 MB each
const MAX_KEPT_HIDDEN = 8; // of a sound that is not shown, without their pixels: 0.06 MB each
const MAX_ASKED = 3;
const PAUSE = 3000; // milliseconds
const N_BANDS = 128;

export class Tiles {
  // `load(level, index, signal)` gives the bytes of a tile; `changed()` is called when one has come, `failed(reason)` if not,
  // and with an empty reason when one comes again.
  constructor(scheme, load, changed, failed) {
    this.scheme = scheme;
    this.load = load;
    this.changed = changed;
    this.failed = failed;
    this.kept = new Map(); // { bytes, columns, canvas, version }, in the order of use
    this.asked = new Map(); // controllers
    this.wanted = [];
    this.highest = 0; // byte of the loudest sound so far
    this.range = 80; // decibels
    this.version = 0;
    this.isPaused = false;
    this.recolour();
  }

  recolour() {
    this.version += 1;
    this.colors = palette(this.highest - this.range / this.scheme.db_per_step, this.highest);
  }

  setRange(decibels) {
    this.range = decibels;
    this.recolour();
  }

  levelFor(secondsPerPixel) {
    const { levels } = this.scheme;
    let level = 0;
    while (level + 1 < levels.length && levels[level + 1].seconds <= 1.2 * secondsPerPixel) level += 1;
    return level;
  }

  // Draws the part of the spectrogram from `start` to `end` seconds into a rectangle, and asks for what is missing.
  draw(context, start, end, duration, box) {
    const level = this.levelFor((end - start) / box.width);
    const wanted = [];
    for (const index of this.indices(level, Math.max(0, start), Math.min(end, duration))) {
      wanted.push([level, index]);
      if (this.kept.has(key(level, index))) this.drawTile(context, level, index, start, end, box);
      else this.drawInstead(context, level, index, start, end, box);
    }
    const [first, last] = [wanted[0]?.[1], wanted.at(-1)?.[1]];
    if (first !== undefined) for (const index of [last + 1, first - 1]) if (this.exists(level, index, duration)) wanted.push([level, index]);
    this.want(wanted);
  }

  *indices(level, start, end) {
    const { seconds, offset } = this.scheme.levels[level];
    const length = seconds * this.scheme.columns;
    for (let index = Math.max(0, Math.floor((start - offset) / length)); index * length + offset < end; index += 1) yield index;
  }

  exists(level, index, duration) {
    return index >= 0 && index * this.scheme.levels[level].seconds * this.scheme.columns < duration;
  }

  // What is kept of another level, until the tile comes.
  drawInstead(context, level, index, start, end, box) {
    const { seconds, offset } = this.scheme.levels[level];
    const from = index * seconds * this.scheme.columns + offset;
    const to = from + seconds * this.scheme.columns;
    context.save();
    context.beginPath();
    const x = (time) => box.x + ((time - start) / (end - start)) * box.width;
    context.rect(Math.max(box.x, x(from)), box.y, Math.min(box.x + box.width, x(to)) - Math.max(box.x, x(from)), box.height);
    context.clip();
    for (let other = this.scheme.levels.length - 1; other >= 0; other -= 1) {
      if (other === level || other < level - 3) continue;
      for (const near of this.indices(other, from, to)) {
        if (this.kept.has(key(other, near))) this.drawTile(context, other, near, start, end, box);
      }
    }
    context.restore();
  }

  drawTile(context, level, index, start, end, box) {
    const tile = this.kept.get(key(level, index));
    this.kept.delete(key(level, index)); // the one used last is at the end
    this.kept.set(key(level, index), tile);
    if (tile.columns === 0) return;
    if (tile.version !== this.version) this.paint(tile);
    const { seconds, offset } = this.scheme.levels[level];
    const perSecond = box.width / (end - start);
    const from = index * seconds * this.scheme.columns + offset;
    // only the visible columns are drawn
    const first = Math.max(0, Math.floor((start - from) / seconds));
    const last = Math.min(tile.columns, Math.ceil((end - from) / seconds));
    if (last <= first) return;
    const x = box.x + (from + first * seconds - start) * perSecond;
    context.drawImage(tile.canvas, first, 0, last - first, N_BANDS, x, box.y, (last - first) * seconds * perSecond, box.height);
  }

  paint(tile) {
    tile.canvas ??= new OffscreenCanvas(tile.columns, N_BANDS);
    const context = tile.canvas.getContext("2d");
    const image = context.createImageData(tile.columns, N_BANDS);
    const pixels = new Uint32Array(image.data.buffer);
    for (let band = 0; band < N_BANDS; band += 1) {
      const row = (N_BANDS - 1 - band) * tile.columns;
      const from = band * tile.columns;
      for (let column = 0; column < tile.columns; column += 1) pixels[row + column] = this.colors[tile.bytes[from + column]];
    }
    context.putImageData(image, 0, 0);
    tile.version = this.version;
  }

  want(tiles) {
    this.wanted = tiles;
    const names = new Set(tiles.map(([level, index]) => key(level, index)));
    for (const [name, controller] of this.asked) if (!names.has(name)) controller.abort();
    this.askNext();
  }

  askNext() {
    if (this.isPaused) return;
    for (const [level, index] of this.wanted) {
      if (this.asked.size >= MAX_ASKED) return;
      const name = key(level, index);
      if (!this.kept.has(name) && !this.asked.has(name)) this.ask(name, level, index);
    }
  }

  async ask(name, level, index) {
    const controller = new AbortController();
    this.asked.set(name, controller);
    try {
      const bytes = new Uint8Array(await this.load(level, index, controller.signal));
      this.keep(name, bytes);
      this.failed("");
    } catch (error) {
      if (error.name !== "AbortError") this.pause(error);
    }
    this.asked.delete(name);
    this.changed();
    this.askNext();
  }

  // After an error, the next tile is asked for some seconds later.
  pause(error) {
    this.isPaused = true;
    this.failed(error.message);
    setTimeout(() => { this.isPaused = false; this.askNext(); }, PAUSE);
  }

  keep(name, bytes) {
    const highest = bytes.reduce((most, value) => Math.max(most, value), 0);
    if (highest > this.highest) {
      this.highest = highest;
      this.recolour();
    }
    this.kept.set(name, { bytes, columns: bytes.length / N_BANDS, canvas: null, version: -1 });
    if (this.kept.size > MAX_KEPT) this.kept.delete(this.kept.keys().next().value);
  }

  // Decibels at a time and a height from 0 (bottom) to 1, from the finest tile that is kept; null if there is none.
  decibelsAt(time, height) {
    const band = Math.min(N_BANDS - 1, Math.floor(height * N_BANDS));
    for (const [level, { seconds, offset }] of this.scheme.levels.entries()) {
      const column = Math.floor((time - offset) / seconds);
      const tile = this.kept.get(key(level, Math.floor(column / this.scheme.columns)));
      const inTile = column % this.scheme.columns;
      if (tile && inTile < tile.columns) return this.scheme.lowest_db + tile.bytes[band * tile.columns + inTile] * this.scheme.db_per_step;
    }
    return null;
  }

  // The sound is not shown any more: most of its tiles are forgotten.
  close() {
    this.wanted = [];
    for (const controller of this.asked.values()) controller.abort();
    for (const name of [...this.kept.keys()].slice(0, -MAX_KEPT_HIDDEN)) this.kept.delete(name);
    for (const tile of this.kept.values()) Object.assign(tile, { canvas: null, version: -1 });
  }
}

const key = (level, index) => `${level}/${index}`;
