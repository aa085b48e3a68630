// A spectrogram with a time and a mel axis: zoom, scroll, boxes of detections, lanes below, a cursor.
import { h } from "./elements.js";
import { strings } from "./strings.js";

const AXIS = 24; // CSS pixels of the time axis
const LANE = 26, NARROW_LANE = 42;
const MIN_SECONDS = 0.05; // shown at least
const ROW = 17; // of the names in boxes
const BOX_LANES = 6; // labels that have boxes
const LEAST_BOX = 30, LEAST_MARK = 5; // CSS pixels; a narrower box is a mark, and a narrower mark only in its lane
const DRAG = 4; // CSS pixels of a movement that is not a click

export class Spectrogram {
  // `on`: view(), seek(seconds), play(detection), hover(text)
  constructor(on) {
    this.on = on;
    this.view = { start: 0, end: 1 };
    this.duration = 1;
    this.tiles = null;
    this.facts = null;
    this.detections = [];
    this.lanes = [];
    this.map = null;
    this.selected = null;
    this.pointers = new Map();
    this.canvas = h("canvas", { class: "picture" });
    this.cursor = h("div", { class: "cursor", hidden: true });
    this.box = h("div", { class: "plot", tabindex: "0", role: "group", "aria-label": strings.tag.spectrogram }, this.canvas, this.cursor);
    this.laneCanvas = h("canvas", { "aria-hidden": "true" });
    this.laneNames = h("ul", { class: "lane-names" });
    this.laneBox = h("div", { class: "lanes" }, this.laneNames, this.laneCanvas);
    this.scrollbar = h("input", { type: "range", class: "scrollbar", min: "0", max: "1000", step: "any", "aria-label": strings.tag.position });
    this.element = h("div", { class: "spectrogram-view" }, this.box, this.scrollbar, this.laneBox);
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.readColors(); this.redraw(); });
  }

  listen() {
    const { box, laneCanvas } = this;
    box.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    for (const element of [box, laneCanvas]) {
      element.addEventListener("pointerdown", (event) => this.onDown(event, element));
      element.addEventListener("pointermove", (event) => this.onMove(event, element));
      element.addEventListener("pointerup", (event) => this.onUp(event, element));
      element.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
      element.addEventListener("pointerleave", () => this.on.hover(""));
    }
    this.scrollbar.addEventListener("input", () => this.scrollTo((Number(this.scrollbar.value) / 1000) * (this.duration - this.span)));
  }

  get span() { return this.view.end - this.view.start; }

  show(facts, tiles, view = null) {
    this.tiles?.close();
    this.facts = facts;
    this.tiles = tiles;
    this.duration = facts.duration;
    this.view = { start: 0, end: facts.duration };
    this.map = null;
    this.readColors();
    this.setDetections([], []);
    if (view) this.setView(view.start, view.end);
    else this.fit();
  }

  // `lanes`: labels with { label, color } in their order; `detections`: { label, lane, start, end, probability, color }.
  setDetections(lanes, detections) {
    this.lanes = lanes;
    this.detections = detections;
    this.laneNames.replaceChildren(...lanes.map((lane) => {
      const name = h("button", { type: "button", title: lane.label, "aria-label": strings.tag.playLabel(lane.label, lane.count), onclick: () => this.on.play(this.next(lane)) }, h("span", { class: "dot" }), h("span", { class: "text" }, lane.label));
      name.style.setProperty("--label", lane.color);
      return h("li", {}, name);
    }));
    this.resize();
  }

  // The first detection of a lane in the view, otherwise of the sound.
  next(lane) {
    const own = this.detections.filter((detection) => detection.label === lane.label);
    return own.find((detection) => detection.end > this.view.start && detection.start < this.view.end) ?? own[0];
  }

  readColors() {
    const style = getComputedStyle(this.element);
    this.colors = Object.fromEntries(["text", "muted", "grid", "surface", "background"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  }

  resize() {
    const width = this.box.clientWidth;
    if (width === 0) return;
    const style = getComputedStyle(this.element);
    this.gutter = parseFloat(style.getPropertyValue("--gutter"));
    this.isNarrow = style.getPropertyValue("--narrow").trim() === "1";
    this.laneHeight = this.isNarrow ? NARROW_LANE : LANE;
    this.scale = devicePixelRatio || 1;
    this.plot = { x: this.gutter, y: 0, width: Math.max(1, width - this.gutter), height: this.box.clientHeight - AXIS };
    fit(this.canvas, width, this.box.clientHeight, this.scale);
    fit(this.laneCanvas, this.plot.width, this.lanes.length * this.laneHeight, this.scale);
    this.laneBox.style.setProperty("--lane", `${this.laneHeight}px`);
    this.draw();
  }

  fit() { this.setView(0, this.duration); }

  setView(start, end) {
    const least = Math.min(MIN_SECONDS, this.duration);
    const span = Math.min(this.duration, Math.max(least, end - start));
    const begin = Math.min(Math.max(0, start), this.duration - span);
    this.view = { start: begin, end: begin + span };
    const movable = this.duration - span;
    this.scrollbar.disabled = movable <= 0;
    this.scrollbar.value = movable > 0 ? String((1000 * begin) / movable) : "0";
    this.scrollbar.setAttribute("aria-valuetext", strings.tag.shown(this.clock(begin), this.clock(begin + span)));
    this.on.view();
    this.redraw();
  }

  // A time with the digits that the zoom needs.
  clock(seconds) { return clock(seconds, Math.min(0.1, this.span / 20)); }

  scrollTo(start) { this.setView(start, start + this.span); }
  scroll(fraction) { this.scrollTo(this.view.start + fraction * this.span); }

  zoom(factor, at = null) {
    const centre = at ?? (this.isCursorShown ? this.cursorSeconds : (this.view.start + this.view.end) / 2);
    const before = (centre - this.view.start) / this.span;
    const span = Math.min(this.duration, Math.max(Math.min(MIN_SECONDS, this.duration), this.span * factor));
    this.setView(centre - before * span, centre + (1 - before) * span);
  }

  reveal(start, end) {
    if (start >= this.view.start && end <= this.view.end) return;
    const span = Math.max(this.span, 1.3 * (end - start));
    const begin = (start + end - span) / 2;
    this.setView(begin, begin + span);
  }

  get isCursorShown() { return !this.cursor.hidden && this.cursorSeconds >= this.view.start && this.cursorSeconds <= this.view.end; }

  setCursor(seconds, follow) {
    this.cursorSeconds = seconds;
    if (follow && (seconds > this.view.end || seconds < this.view.start)) this.scrollTo(seconds - 0.1 * this.span);
    this.placeCursor();
  }

  placeCursor() {
    if (this.cursorSeconds === undefined || !this.plot) return;
    const x = this.x(this.cursorSeconds);
    this.cursor.hidden = x < this.plot.x - 1 || x > this.plot.x + this.plot.width + 1;
    this.cursor.style.transform = `translateX(${x}px)`;
  }

  x(seconds) { return this.plot.x + ((seconds - this.view.start) / this.span) * this.plot.width; }
  seconds(x) { return this.view.start + ((x - this.plot.x) / this.plot.width) * this.span; }

  redraw() {
    this.frame ??= requestAnimationFrame(() => { this.frame = null; this.draw(); });
  }

  draw() {
    if (!this.plot || !this.tiles) return;
    const context = this.canvas.getContext("2d");
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    context.clearRect(0, 0, this.plot.x + this.plot.width, this.plot.height + AXIS);
    context.save();
    context.beginPath();
    context.rect(this.plot.x, 0, this.plot.width, this.plot.height);
    context.clip();
    context.fillStyle = "#000004";
    context.fillRect(this.plot.x, 0, this.plot.width, this.plot.height);
    this.tiles.draw(context, this.view.start, this.view.end, this.duration, this.plot);
    if (this.tiles.kept.size === 0) this.drawWaiting(context);
    if (this.map) this.drawMap(context);
    this.drawBoxes(context);
    context.restore();
    this.drawAxes(context);
    this.drawLanes();
    this.placeCursor();
  }

  drawWaiting(context) {
    context.font = "14px system-ui, sans-serif";
    context.fillStyle = "#d8d5e0";
    context.textAlign = "center";
    context.fillText(strings.tag.drawing, this.plot.x + this.plot.width / 2, this.plot.height / 2);
    context.textAlign = "left";
  }

  // Boxes of the first labels; what is too narrow for a box is a mark at the top. The lanes show everything.
  drawBoxes(context) {
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (const one of this.visible()) {
      const isChosen = one === this.selected;
      if (one.lane >= BOX_LANES && !isChosen) continue;
      const x = this.x(one.start), width = Math.max(2, this.x(one.end) - x);
      const top = boxTop(one.lane);
      context.fillStyle = one.color;
      context.strokeStyle = one.color;
      if (width < LEAST_MARK && !isChosen) continue;
      if (width < LEAST_BOX && !isChosen) {
        context.fillRect(x, top + 3, width, ROW - 6);
        continue;
      }
      context.globalAlpha = this.map ? 0 : isChosen ? 0.2 : 0.06; // an explanation stays visible
      context.fillRect(x, top, width, this.plot.height - top);
      context.globalAlpha = isChosen ? 1 : 0.75;
      context.lineWidth = isChosen ? 3 : 1;
      context.strokeRect(x + 0.5, top + 0.5, width - 1, this.plot.height - top - 1);
      context.globalAlpha = 1;
      this.drawName(context, one, Math.max(x, this.plot.x), top, x + width);
    }
  }

  drawName(context, one, x, top, right) {
    context.save();
    context.beginPath();
    context.rect(x, top, right - x, ROW);
    context.clip();
    const text = `${one.label} ${one.probability.toFixed(2)}`;
    context.fillStyle = "rgb(0 0 0 / .72)";
    context.fillRect(x + 2, top + 2, Math.min(context.measureText(text).width + 8, right - x - 4), 15);
    context.fillStyle = "#fff";
    context.fillText(text, x + 6, top + 9.5);
    context.restore();
  }

  visible() {
    return this.detections.filter((one) => one.end > this.view.start && one.start < this.view.end);
  }

  drawAxes(context) {
    const { plot, colors } = this;
    context.font = "12px system-ui, sans-serif";
    context.fillStyle = colors.muted;
    context.strokeStyle = colors.muted;
    context.lineWidth = 1;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const { text, height } of this.facts.tiles.ticks) {
      const y = plot.height * (1 - height);
      if (y < 6 || y > plot.height - 4) continue;
      context.fillText(text, plot.x - 7, y);
      context.fillRect(plot.x - 4, y, 4, 1);
    }
    context.fillText("Hz", plot.x - 7, plot.height + 12);
    context.textAlign = "center";
    const step = tickStep(this.span / (plot.width / 80));
    for (let n = Math.ceil(this.view.start / step); n * step <= this.view.end + 1e-9; n += 1) {
      const x = this.x(n * step);
      context.fillRect(x, plot.height, 1, 4);
      const text = clock(n * step, step);
      const half = context.measureText(text).width / 2;
      if (x - half > plot.x - 8 && x + half < plot.x + plot.width) context.fillText(text, x, plot.height + 14);
    }
    context.textAlign = "left";
  }

  drawLanes() {
    const context = this.laneCanvas.getContext("2d");
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    context.clearRect(0, 0, this.plot.width, this.lanes.length * this.laneHeight);
    const top = this.isNarrow ? this.laneHeight - 20 : 4;
    const height = this.isNarrow ? 16 : this.laneHeight - 8;
    context.fillStyle = this.colors.surface;
    for (let lane = 0; lane < this.lanes.length; lane += 1) context.fillRect(0, lane * this.laneHeight + top, this.plot.width, height);
    for (const one of this.visible()) {
      const x = this.x(one.start) - this.plot.x;
      context.fillStyle = one.color;
      context.globalAlpha = 0.35 + 0.65 * one.probability;
      context.fillRect(x, one.lane * this.laneHeight + top, Math.max(2, this.x(one.end) - this.plot.x - x), height);
      context.globalAlpha = 1;
      if (one === this.selected) {
        context.strokeStyle = this.colors.text;
        context.lineWidth = 2;
        context.strokeRect(x, one.lane * this.laneHeight + top, Math.max(2, this.x(one.end) - this.plot.x - x), height);
      }
    }
  }

  // Where the model looked: places without influence are dark.
  setMap(map) {
    this.map = map;
    this.redraw();
  }

  drawMap(context) {
    const { map, time_edges: times, band_edges: bands } = this.map;
    const most = Math.max(0.05, ...map.flat());
    for (let band = 0; band < map.length; band += 1) {
      const top = this.y(bands[band + 1]), bottom = this.y(bands[band]);
      for (let time = 0; time < map[band].length; time += 1) {
        const strength = Math.max(0, map[band][time]) / most;
        const x = Math.floor(this.x(times[time])), right = Math.floor(this.x(times[time + 1]));
        context.fillStyle = `rgb(0 0 0 / ${(0.82 * (1 - Math.sqrt(strength))).toFixed(3)})`;
        context.fillRect(x, Math.floor(top), right - x, Math.floor(bottom) - Math.floor(top));
      }
    }
  }

  y(hertz) {
    const { band_edges: edges } = this.facts.tiles;
    let low = 0, high = edges.length - 1;
    if (hertz <= edges[0]) return this.plot.height;
    if (hertz >= edges[high]) return 0;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (edges[middle] <= hertz) low = middle; else high = middle;
    }
    const height = (low + (hertz - edges[low]) / (edges[high] - edges[low])) / (edges.length - 1);
    return this.plot.height * (1 - height);
  }

  hertz(y) {
    const { band_edges: edges } = this.facts.tiles;
    const position = Math.min(edges.length - 1.001, Math.max(0, (1 - y / this.plot.height) * (edges.length - 1)));
    const below = Math.floor(position);
    return edges[below] + (position - below) * (edges[below + 1] - edges[below]);
  }

  onWheel(event) {
    if (!this.tiles) return;
    const isScroll = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (!isScroll && !event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 16 : 1;
    if (isScroll) this.scrollTo(this.view.start + ((unit * (event.deltaX || event.deltaY)) / this.plot.width) * this.span);
    else this.zoom(Math.exp(0.004 * unit * event.deltaY), this.seconds(event.clientX - this.box.getBoundingClientRect().left));
  }

  onDown(event, element) {
    if (event.button !== 0 || !this.tiles) return;
    element.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.clientX, from: event.clientX, moved: false });
  }

  onMove(event, element) {
    if (!this.tiles) return;
    const own = this.pointers.get(event.pointerId);
    if (!own) { if (element === this.box) this.hoverAt(event); return; }
    const before = own.x;
    own.x = event.clientX;
    own.moved ||= Math.abs(own.x - own.from) > DRAG;
    if (this.pointers.size === 2) this.pinch(event.pointerId, before);
    else if (own.moved) this.scrollTo(this.view.start - ((own.x - before) / this.plot.width) * this.span);
  }

  pinch(id, before) {
    const [other] = [...this.pointers].filter(([key]) => key !== id).map(([, pointer]) => pointer.x);
    const now = this.pointers.get(id).x;
    const factor = Math.abs(before - other) / Math.max(8, Math.abs(now - other));
    for (const pointer of this.pointers.values()) pointer.moved = true;
    if (Number.isFinite(factor) && factor > 0) this.zoom(factor, this.seconds((now + other) / 2 - this.box.getBoundingClientRect().left));
  }

  onUp(event, element) {
    const own = this.pointers.get(event.pointerId);
    this.pointers.delete(event.pointerId);
    if (!own || own.moved) return;
    const bounds = element.getBoundingClientRect();
    const isLane = element === this.laneCanvas;
    const seconds = this.seconds(event.clientX - bounds.left + (isLane ? this.plot.x : 0));
    const y = event.clientY - bounds.top;
    const hit = this.visible().filter((one) => one.start <= seconds && seconds <= one.end && (isLane ? Math.floor(y / this.laneHeight) === one.lane : y >= boxTop(one.lane) && one.lane < BOX_LANES));
    if (hit.length > 0) this.on.play(isLane ? hit[0] : hit.reduce((best, one) => (one.lane > best.lane ? one : best)), seconds);
    else if (seconds >= 0 && seconds <= this.duration) this.on.seek(seconds);
  }

  hoverAt(event) {
    const bounds = this.box.getBoundingClientRect();
    const seconds = this.seconds(event.clientX - bounds.left), y = event.clientY - bounds.top;
    if (y > this.plot.height || seconds < this.view.start || seconds > this.view.end) { this.on.hover(""); return; }
    const decibels = this.tiles.decibelsAt(seconds, 1 - y / this.plot.height);
    this.on.hover(strings.tag.hover(clock(seconds, 0.01), Math.round(this.hertz(y)), decibels));
  }
}

const boxTop = (lane) => Math.min(lane, BOX_LANES) * ROW;

function fit(canvas, width, height, scale) {
  const [pixelWidth, pixelHeight] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== pixelWidth) canvas.width = pixelWidth;
  if (canvas.height !== pixelHeight) canvas.height = pixelHeight;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
}

const STEPS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
const tickStep = (least) => STEPS.find((step) => step >= least) ?? 14400;

// Such as 7.5, 1:07.5 or 1:02:03, with the digits that the step between two times needs.
export function clock(seconds, step = 0.1) {
  const digits = Math.min(3, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)));
  const rounded = Number(seconds.toFixed(digits));
  const minutes = Math.floor(rounded / 60);
  const rest = (rounded - 60 * minutes).toFixed(digits);
  if (minutes === 0) return `${rest} s`;
  const padded = rest.padStart(digits ? digits + 3 : 2, "0");
  if (minutes < 60) return `${minutes}:${padded}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${padded}`;
}
