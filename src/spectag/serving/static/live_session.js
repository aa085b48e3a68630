// What was recorded: positions in it, its sound, the columns of its spectrogram, and the clock time of each part.
import { MelColumns } from "./live_spectrum.js";
import { SoundMemory } from "./live_memory.js";

export const MAX_SHOWN_SECONDS = 60;

export class LiveSession {
  constructor(scheme) {
    this.scheme = scheme;
    this.rate = scheme.sample_rate;
    this.memory = new SoundMemory(this.rate);
    this.mel = new MelColumns(scheme);
    this.nBands = scheme.points.length - 2;
    this.nKept = Math.ceil((MAX_SHOWN_SECONDS * this.rate) / scheme.hop_length);
    this.columns = new Uint8Array(this.nKept * this.nBands); // column i is at i % nKept
    this.nColumns = 0;
    this.parts = []; // { start, time }: positions in samples where recording began, with the time in milliseconds
  }

  get seconds() { return this.memory.total / this.rate; }

  // Recording begins, or goes on after a pause.
  begin() { this.parts.push({ start: this.memory.total, time: Date.now() }); }

  // Adds a block, and returns it as samples of 16 bits.
  add(block) {
    this.mel.add(block, (column) => {
      this.columns.set(column, (this.nColumns % this.nKept) * this.nBands);
      this.nColumns += 1;
    });
    return this.memory.add(block);
  }

  partOf(seconds) {
    const sample = seconds * this.rate;
    return this.parts.findLast(({ start }) => start <= sample) ?? this.parts[0];
  }

  // The clock time of a position.
  timeOf(seconds) {
    const { start, time } = this.partOf(seconds);
    return new Date(time + 1000 * (seconds - start / this.rate));
  }

  // Whether there is still sound of a detection.
  keeps({ end }) { return end === null || Math.round(end * this.rate) > this.memory.oldest; }

  // The samples of a detection with context, which does not reach across a pause.
  clip({ start, end }, before, after) {
    const part = this.partOf(start);
    const next = this.parts[this.parts.indexOf(part) + 1]?.start ?? Infinity;
    const first = Math.max(part.start, Math.round((start - before) * this.rate));
    return this.memory.cut(first, Math.min(next, Math.round((end + after) * this.rate)));
  }
}
