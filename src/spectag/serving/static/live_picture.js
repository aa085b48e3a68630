// The rolling spectrogram with the time and the mel axis, and the lanes of labels below. The newest sound is at the right.
import { differentColors, palette } from "./colors.js";
import { h } from "./elements.js";
import { strings } from "./strings.js";

const AXIS = 24, GUTTER = 150, NARROW_GUTTER = 40; // CSS pixels
const LANE = 26, NARROW_LANE = 42;
const MAX_LANES = 12;
const RANGE_DB = 80;
const LEAST_HIGHEST_DB = -40; // the brightest colour is at least for this, so that silence stays dark
const FRAME_MILLISECONDS = 40;
const COLOUR_MILLISECONDS = 500;

export class LivePicture {
  // `visible(start, end)` gives the detections in a part of the session.
  constructor(visible, colors) {
    this.visible = visible;
    this.ownColors = colors;
    this.colors = new Map(); // of the labels in the picture
    this.span = 20;
    this.lanes = [];
    this.names = "";
    this.canvas = h("canvas", { class: "live-canvas", role: "img", "aria-label": strings.live.spectrogram });
    this.laneNames = h("ul", { class: "live-lanes" });
    this.element = h("div", { class: "live-picture" }, this.canvas, this.laneNames);
    new ResizeObserver(() => this.resize()).observe(this.element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.resize());
  }

  show(session) {
    this.session = session;
    this.image = new OffscreenCanvas(session.nKept, session.nBands);
    this.imageContext = this.image.getContext("2d");
    this.drawn = 0; // columns in the image
    this.highest = null;
    this.resize();
  }

  // Draws until `stop`.
  run() {
    if (this.isRunning) return;
    this.isRunning = true;
    const step = (now) => {
      if (!this.isRunning) return;
      if (now - (this.drawnAt ?? 0) >= FRAME_MILLISECONDS) { this.drawnAt = now; this.draw(now); }
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  stop() {
    this.isRunning = false;
    this.draw(performance.now());
  }

  resize() {
    const width = this.element.clientWidth;
    if (width === 0 || !this.session) return;
    const style = getComputedStyle(this.element);
    this.text = style.getPropertyValue("--muted").trim();
    this.surface = style.getPropertyValue("--surface").trim();
    this.isNarrow = style.getPropertyValue("--narrow").trim() === "1";
    this.gutter = this.isNarrow ? NARROW_GUTTER : GUTTER;
    this.lane = this.isNarrow ? NARROW_LANE : LANE;
    this.height = parseFloat(style.getPropertyValue("--plot-height"));
    this.width = width;
    this.scale = devicePixelRatio || 1;
    this.element.style.setProperty("--lane", `${this.lane}px`);
    this.laneNames.style.top = `${this.height + AXIS}px`;
    this.sizeCanvas();
    this.draw(performance.now());
  }

  sizeCanvas() {
    const height = this.height + AXIS + this.lane * Math.max(3, this.lanes.length);
    this.canvas.width = Math.round(this.width * this.scale);
    this.canvas.height = Math.round(height * this.scale);
    this.canvas.style.width = `${this.width}px`;
    this.canvas.style.height = `${height}px`;
  }

  draw(now) {
    if (!this.session || !this.width) return;
    const end = this.session.seconds, start = end - this.span;
    const detections = this.visible(start, end);
    this.updateLanes(detections);
    this.updateImage(now);
    const context = this.canvas.getContext("2d");
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    context.clearRect(0, 0, this.width, this.canvas.height);
    context.fillStyle = "#000004";
    context.fillRect(this.gutter, 0, this.width - this.gutter, this.height);
    context.save();
    context.beginPath();
    context.rect(this.gutter, 0, this.width - this.gutter, this.canvas.height);
    context.clip();
    this.drawColumns(context, start);
    this.drawLanes(context, detections, start, end);
    context.restore();
    this.drawAxes(context);
  }

  x(seconds, start) { return this.gutter + ((seconds - start) / this.span) * (this.width - this.gutter); }

  colorOf(label) { return this.colors.get(label) ?? this.ownColors.get(label); }

  // Labels keep their lane and colour until they have left the picture.
  updateLanes(detections) {
    const seen = new Set(detections.map((detection) => detection.label));
    const kept = this.lanes.filter((label) => seen.has(label));
    for (const label of seen) if (!kept.includes(label) && kept.length < MAX_LANES) kept.push(label);
    this.lanes = kept;
    const names = JSON.stringify(kept);
    if (names === this.names) return;
    this.names = names;
    this.colors = differentColors(kept, (label) => this.colorOf(label));
    this.laneNames.replaceChildren(...kept.map((label) => {
      const dot = h("span", { class: "dot" });
      dot.style.background = this.colors.get(label);
      return h("li", { title: label }, dot, h("span", { class: "text" }, label));
    }));
    this.sizeCanvas();
  }

  // Colours the columns that are new; all of them if the loudest of them has changed.
  updateImage(now) {
    const { session } = this;
    if (this.highest === null || now - this.colouredAt > COLOUR_MILLISECONDS) {
      this.colouredAt = now;
      const { lowest_db: lowest, db_per_step: step } = session.scheme;
      const highest = Math.max((LEAST_HIGHEST_DB - lowest) / step, session.columns.reduce((most, value) => Math.max(most, value), 0));
      if (highest !== this.highest) {
        this.highest = highest;
        this.palette = palette(highest - RANGE_DB / step, highest);
        this.drawn = 0;
      }
    }
    const first = Math.max(this.drawn, session.nColumns - session.nKept);
    for (let from = first; from < session.nColumns;) {
      const at = from % session.nKept;
      const count = Math.min(session.nColumns - from, session.nKept - at);
      this.paint(at, count);
      from += count;
    }
    this.drawn = session.nColumns;
  }

  paint(at, count) {
    const { nBands, columns } = this.session;
    const image = this.imageContext.createImageData(count, nBands);
    const pixels = new Uint32Array(image.data.buffer);
    for (let column = 0; column < count; column += 1) {
      for (let band = 0; band < nBands; band += 1) {
        pixels[(nBands - 1 - band) * count + column] = this.palette[columns[(at + column) * nBands + band]];
      }
    }
    this.imageContext.putImageData(image, at, 0);
  }

  // Column i is centred on i hops. The image is a ring, so it has two parts at most.
  drawColumns(context, start) {
    const { session } = this;
    const columnSeconds = session.scheme.hop_length / session.rate;
    const oldest = Math.max(0, session.nColumns - session.nKept, Math.floor(start / columnSeconds));
    for (let from = oldest; from < session.nColumns;) {
      const at = from % session.nKept;
      const count = Math.min(session.nColumns - from, session.nKept - at);
      const x = this.x((from - 0.5) * columnSeconds, start), right = this.x((from + count - 0.5) * columnSeconds, start);
      context.drawImage(this.image, at, 0, count, session.nBands, x, 0, right - x, this.height);
      from += count;
    }
    context.fillStyle = "rgb(255 255 255 / .7)";
    for (const part of session.parts.slice(1)) context.fillRect(this.x(part.start / session.rate, start), 0, 1, this.height);
  }

  drawLanes(context, detections, start, end) {
    const top = this.height + AXIS + (this.isNarrow ? this.lane - 20 : 4);
    const height = this.isNarrow ? 16 : this.lane - 8;
    context.fillStyle = this.surface;
    this.lanes.forEach((_, lane) => context.fillRect(this.gutter, top + lane * this.lane, this.width, height));
    for (const detection of detections) {
      const lane = this.lanes.indexOf(detection.label);
      if (lane < 0) continue;
      const x = this.x(detection.start, start);
      context.fillStyle = this.colors.get(detection.label);
      context.globalAlpha = 0.35 + 0.65 * detection.probability;
      context.fillRect(x, top + lane * this.lane, Math.max(2, this.x(detection.end ?? end, start) - x), height);
      context.globalAlpha = 1;
    }
  }

  drawAxes(context) {
    context.font = "12px system-ui, sans-serif";
    context.fillStyle = this.text;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const { text, height } of this.session.scheme.ticks) {
      const y = this.height * (1 - height);
      if (y < 6 || y > this.height - 4) continue;
      context.fillText(text, this.gutter - 7, y);
      context.fillRect(this.gutter - 4, y, 4, 1);
    }
    context.fillText(strings.live.hertz, this.gutter - 7, this.height + 12);
    const step = this.span / (this.isNarrow ? 2 : 4);
    for (let ago = 0; ago <= this.span; ago += step) {
      const x = this.x(this.span - ago, 0);
      context.textAlign = ago === 0 ? "right" : "center";
      context.fillRect(Math.min(x, this.width - 1), this.height, 1, 4);
      if (x - 30 > this.gutter) context.fillText(ago === 0 ? strings.live.now : strings.live.ago(ago), x, this.height + 14);
    }
    context.textAlign = "left";
  }
}
