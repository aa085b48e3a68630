// The points of the map on a canvas: zoom, scroll, hover, lasso, and the focus that the keyboard moves.
import { h } from "./elements.js";
import { DotPainter } from "./explore_points.js";
import { strings } from "./strings.js";

const MARGIN = 24; // CSS pixels around all points
const NEAR = 14; // CSS pixels between the pointer and a point that it is on
const DRAG = 4; // CSS pixels of a movement that is not a click
const MAX_ZOOM = 400;

export class MapCanvas {
  // `on`: hover(row or null, x, y), choose(row), lasso(rows)
  constructor(on) {
    Object.assign(this, { on, x: [], y: [], codes: [], groups: [], chosen: new Set(), highlighted: null, focused: null, hovered: null, lasso: null, isLasso: false, view: { x: 0.5, y: 0.5, zoom: 1 }, pointers: new Map() });
    this.painter = new DotPainter();
    this.canvas = h("canvas");
    this.element = h("div", { class: "map", tabindex: "0", role: "group", "aria-label": strings.explore.map }, this.canvas);
    new ResizeObserver(() => this.resize()).observe(this.element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    const listen = (name, act, options) => this.canvas.addEventListener(name, act, options);
    listen("wheel", (event) => { event.preventDefault(); this.zoom(Math.exp(-event.deltaY / 400), this.place(event)); }, { passive: false });
    listen("pointerdown", (event) => this.onDown(event));
    listen("pointermove", (event) => this.onMove(event));
    listen("pointerup", (event) => this.onUp(event));
    listen("pointercancel", (event) => { this.pointers.delete(event.pointerId); this.lasso = null; });
    listen("pointerleave", () => this.setHovered(null));
  }

  show(x, y) {
    Object.assign(this, { x, y, focused: null, hovered: null });
    this.redraw();
  }

  color({ codes, groups }) {
    Object.assign(this, { codes, groups });
    this.redraw();
  }

  setLasso(isOn) {
    this.isLasso = isOn;
    this.canvas.style.cursor = isOn ? "crosshair" : "";
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.element;
    const ratio = devicePixelRatio || 1;
    Object.assign(this, { width, height, ratio });
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.draw();
  }

  // Pixels for the whole map.
  get scale() { return Math.max(1, Math.min(this.width, this.height) - 2 * MARGIN) * this.view.zoom; }
  screenX(row) { return this.width / 2 + (this.x[row] - this.view.x) * this.scale; }
  screenY(row) { return this.height / 2 - (this.y[row] - this.view.y) * this.scale; }

  // CSS pixels of all points.
  screen() {
    const { scale, x, y, view } = this;
    const left = this.width / 2 - view.x * scale, top = this.height / 2 + view.y * scale;
    return { xs: Float32Array.from(x, (value) => left + value * scale), ys: Float32Array.from(y, (value) => top - value * scale) };
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  zoom(factor, [x, y] = [this.width / 2, this.height / 2]) {
    const before = this.scale;
    this.view.zoom = Math.min(MAX_ZOOM, Math.max(0.5, this.view.zoom * factor));
    const shift = 1 / before - 1 / this.scale; // what is under the pointer stays there
    this.view.x += (x - this.width / 2) * shift;
    this.view.y -= (y - this.height / 2) * shift;
    this.redraw();
  }

  fit() {
    this.view = { x: 0.5, y: 0.5, zoom: 1 };
    this.redraw();
  }

  onDown(event) {
    this.canvas.setPointerCapture(event.pointerId);
    const at = this.place(event);
    this.pointers.set(event.pointerId, { start: at, at, moved: false });
    if ((this.isLasso || event.shiftKey) && this.pointers.size === 1) this.lasso = [at];
    else this.lasso = null; // a second finger zooms
  }

  onMove(event) {
    const at = this.place(event);
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer) { this.setHovered(this.nearest(at), at); return; }
    const before = pointer.at;
    pointer.at = at;
    if (Math.hypot(at[0] - pointer.start[0], at[1] - pointer.start[1]) > DRAG) pointer.moved = true;
    if (!pointer.moved) return;
    this.setHovered(null);
    if (this.lasso) this.lasso.push(at);
    else if (this.pointers.size === 2) this.pinch(pointer, before);
    else this.scroll(before[0] - at[0], before[1] - at[1]);
    this.redraw();
  }

  pinch(pointer, before) {
    const other = [...this.pointers.values()].find((one) => one !== pointer).at;
    const distance = ([x, y]) => Math.max(10, Math.hypot(x - other[0], y - other[1]));
    this.zoom(distance(pointer.at) / distance(before), other);
  }

  // By pixels.
  scroll(dx, dy) {
    this.view.x += dx / this.scale;
    this.view.y -= dy / this.scale;
    this.redraw();
  }

  onUp(event) {
    const pointer = this.pointers.get(event.pointerId);
    this.pointers.delete(event.pointerId);
    const { lasso } = this;
    this.lasso = null;
    if (pointer && !pointer.moved) {
      const row = this.nearest(pointer.at);
      if (row !== null) this.on.choose(row);
    } else if (lasso && lasso.length > 2) this.on.lasso(this.inside(lasso));
    this.redraw();
  }

  setHovered(row, at = [0, 0]) {
    if (row !== this.hovered) { this.hovered = row; this.redraw(); }
    this.on.hover(row, ...at);
  }

  isShown(row) { return this.highlighted === null || this.codes[row] === this.highlighted; }

  // The point under the pointer; null if there is none.
  nearest([x, y]) {
    const { xs, ys } = this.screen();
    let best = null, least = NEAR * NEAR;
    for (let row = 0; row < xs.length; row += 1) {
      if (!this.isShown(row)) continue;
      const distance = (xs[row] - x) ** 2 + (ys[row] - y) ** 2;
      if (distance < least) { least = distance; best = row; }
    }
    return best;
  }

  // The points in a polygon, by the number of its edges to the right of each.
  inside(polygon) {
    const rows = [];
    const { xs, ys } = this.screen();
    for (let row = 0; row < xs.length; row += 1) {
      if (!this.isShown(row)) continue;
      const x = xs[row], y = ys[row];
      let isInside = false;
      for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i, i += 1) {
        const [xi, yi] = polygon[i], [xj, yj] = polygon[j];
        if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) isInside = !isInside;
      }
      if (isInside) rows.push(row);
    }
    return rows;
  }

  // The points that are nearest to one on the map, itself first.
  near(row, count) {
    const distances = Array.from(this.x, (x, other) => [(x - this.x[row]) ** 2 + (this.y[other] - this.y[row]) ** 2, other]);
    return distances.sort((a, b) => a[0] - b[0] || (b[1] === row) - (a[1] === row)).slice(0, count).map(([, other]) => other);
  }

  // The next point in a direction: near, and not far to the side. null if there is none.
  next(row, dx, dy) {
    let best = null, least = Infinity;
    for (let other = 0; other < this.x.length; other += 1) {
      const x = this.x[other] - this.x[row], y = this.y[other] - this.y[row];
      const along = x * dx + y * dy, aside = Math.abs(x * dy - y * dx);
      if (other === row || along <= 0 || aside > along || !this.isShown(other)) continue;
      if (along + 2 * aside < least) { least = along + 2 * aside; best = other; }
    }
    return best;
  }

  // Puts the focus on a point, and scrolls to it if it is not shown.
  focus(row) {
    this.focused = row;
    const x = this.screenX(row), y = this.screenY(row);
    if (x < MARGIN || y < MARGIN || x > this.width - MARGIN || y > this.height - MARGIN) Object.assign(this.view, { x: this.x[row], y: this.y[row] });
    this.redraw();
  }

  redraw() {
    if (this.isWaiting) return;
    this.isWaiting = true;
    requestAnimationFrame(() => { this.isWaiting = false; this.draw(); });
  }

  draw() {
    if (!this.width || !this.height) return;
    const context = this.canvas.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const style = getComputedStyle(this.element);
    const [text, accent, background] = ["--text", "--accent", "--surface"].map((name) => style.getPropertyValue(name).trim() || "#888");
    const isFaint = (row) => (this.chosen.size > 0 ? !this.chosen.has(row) : !this.isShown(row));
    const colors = this.groups.map((group) => group.color);
    const { radius } = this;
    this.painter.paint(context, { ...this.screen(), codes: this.codes, colors, isFaint, radius, ratio: this.ratio, background });
    this.drawMarks(context, radius, text, accent);
  }

  // Of a dot, in CSS pixels: larger on a large screen, with few clips, and when they are seen from near.
  get radius() {
    const { length } = this.x;
    const size = Math.min(2, Math.max(0.7, Math.min(this.width, this.height) / 700));
    const ofOne = length > 5000 ? 2 : length > 800 ? 3 : 4.5;
    return Math.min(12, ofOne * size * Math.sqrt(Math.max(1, Math.min(4, this.view.zoom))));
  }

  drawMarks(context, radius, text, accent) {
    const ring = (row, extra, color, width) => {
      context.beginPath();
      context.arc(this.screenX(row), this.screenY(row), radius + extra, 0, 2 * Math.PI);
      Object.assign(context, { strokeStyle: color, lineWidth: width });
      context.stroke();
    };
    if (this.hovered !== null) ring(this.hovered, 2, text, 1.5);
    if (this.focused !== null) { ring(this.focused, 3, text, 2.5); ring(this.focused, 6, accent, 2); }
    if (!this.lasso) return;
    context.beginPath();
    for (const [x, y] of this.lasso) context.lineTo(x, y);
    context.closePath();
    Object.assign(context, { strokeStyle: accent, lineWidth: 2, fillStyle: accent });
    context.stroke();
    context.globalAlpha = 0.12;
    context.fill();
    context.globalAlpha = 1;
  }
}
