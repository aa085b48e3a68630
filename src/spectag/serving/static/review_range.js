// A spectrogram on which a time range can be drawn: with Shift and the pointer, or with the keys [ and ].
import { Spectrogram } from "./spectrogram.js";

const LEAST_SECONDS = 0.01;

export class RangeSpectrogram extends Spectrogram {
  constructor(on) {
    super(on);
    this.range = null;
    this.own = null;
    this.isMarking = false; // whether the pointer draws a range without Shift
  }

  // The part of the recording that is the clip; null: all of it.
  setOwn(own) {
    this.own = own;
    this.setRange(null);
  }

  setRange(range) {
    const isRange = range !== null && range.end - range.start >= LEAST_SECONDS;
    this.range = isRange ? range : null;
    this.on.range(this.range);
    this.redraw();
  }

  get limits() { return { start: this.own?.start ?? 0, end: this.own?.end ?? this.duration }; }

  // One end of the range at the cursor.
  setEnd(name, seconds) {
    const { limits } = this;
    const range = { ...(this.range ?? limits), [name]: seconds };
    if (range.start >= range.end) Object.assign(range, name === "start" ? { end: limits.end } : { start: limits.start });
    this.setRange(range);
  }

  draw() {
    super.draw();
    if (!this.plot || !this.tiles) return;
    const context = this.canvas.getContext("2d");
    const { start, end } = this.limits;
    context.fillStyle = "rgb(0 0 0 / .6)";
    this.fillTimes(context, this.view.start, start);
    this.fillTimes(context, end, this.view.end);
    if (!this.range) return;
    context.fillStyle = "rgb(255 255 255 / .25)";
    this.fillTimes(context, this.range.start, this.range.end);
    context.fillStyle = "#fff";
    for (const seconds of [this.range.start, this.range.end]) {
      const x = this.x(seconds);
      if (x >= this.plot.x && x <= this.plot.x + this.plot.width) context.fillRect(x - 1, 0, 2, this.plot.height);
    }
  }

  fillTimes(context, start, end) {
    const left = Math.max(this.plot.x, this.x(start)), right = Math.min(this.plot.x + this.plot.width, this.x(end));
    if (right > left) context.fillRect(left, 0, right - left, this.plot.height);
  }

  at(event) {
    const { start, end } = this.limits;
    return Math.min(end, Math.max(start, this.seconds(event.clientX - this.box.getBoundingClientRect().left)));
  }

  onDown(event, element) {
    if (!this.tiles || event.button !== 0 || element !== this.box || !(event.shiftKey || this.isMarking)) { super.onDown(event, element); return; }
    element.setPointerCapture(event.pointerId);
    this.marked = this.at(event);
    this.setRange(null);
  }

  onMove(event, element) {
    if (this.marked === undefined) { super.onMove(event, element); return; }
    const now = this.at(event);
    this.setRange({ start: Math.min(now, this.marked), end: Math.max(now, this.marked) });
  }

  onUp(event, element) {
    if (this.marked === undefined) { super.onUp(event, element); return; }
    this.marked = undefined;
  }
}
