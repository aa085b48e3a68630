// The sound of the last minutes, as samples of 16 bits, and clips of it as files.
import { zip } from "./live_zip.js";

const MINUTES = 5;
const MAX_NAME_BYTES = 80;

export class SoundMemory {
  constructor(rate) {
    this.rate = rate;
    this.samples = new Int16Array(MINUTES * 60 * rate);
    this.total = 0;
  }

  static get minutes() { return MINUTES; }

  get oldest() { return Math.max(0, this.total - this.samples.length); }

  // Keeps samples in [-1, 1], and returns them with 16 bits.
  add(block) {
    const short = Int16Array.from(block, (sample) => Math.round(32767 * Math.min(1, Math.max(-1, sample))));
    const at = this.total % this.samples.length;
    const fitting = Math.min(short.length, this.samples.length - at);
    this.samples.set(short.subarray(0, fitting), at);
    this.samples.set(short.subarray(fitting), 0);
    this.total += short.length;
    return short;
  }

  // The samples from `start` to `end`, as far as they are kept.
  cut(start, end) {
    const first = Math.max(this.oldest, start), last = Math.min(this.total, end);
    const part = new Int16Array(Math.max(0, last - first));
    const at = first % this.samples.length;
    const fitting = Math.min(part.length, this.samples.length - at);
    part.set(this.samples.subarray(at, at + fitting));
    part.set(this.samples.subarray(0, part.length - fitting), fitting);
    return part;
  }
}

export function wavBytes(samples, rate) {
  const bytes = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((letter, i) => bytes.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF"); bytes.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
  bytes.setUint32(16, 16, true); bytes.setUint16(20, 1, true); bytes.setUint16(22, 1, true);
  bytes.setUint32(24, rate, true); bytes.setUint32(28, 2 * rate, true); bytes.setUint16(32, 2, true); bytes.setUint16(34, 16, true);
  text(36, "data"); bytes.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, i) => bytes.setInt16(44 + 2 * i, sample, true));
  return new Uint8Array(bytes.buffer);
}

const two = (number) => String(number).padStart(2, "0");

// Such as 0.835_20240501-053012_Label.wav: the probability, so that files are sorted by it, the local time, the label.
export function clipName(probability, time, label) {
  const day = `${time.getFullYear()}${two(time.getMonth() + 1)}${two(time.getDate())}`;
  const hour = `${two(time.getHours())}${two(time.getMinutes())}${two(time.getSeconds())}`;
  return `${probability.toFixed(3)}_${day}-${hour}_${namePart(label)}.wav`;
}

// A label as a part of a file name on every system: the rule of file_name_of in spectag/findings/file_names.py.
function namePart(label) {
  const allowed = label.replace(/[\u0000-\u001f\u007f<>:"/\\|?*]/g, "_");
  const bytes = new TextEncoder().encode(allowed).slice(0, MAX_NAME_BYTES);
  const name = new TextDecoder().decode(bytes).replace(/\ufffd+$/, "").replace(/^[ .]+|[ .]+$/g, "");
  return name === "" || /^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$/i.test(name) ? `_${name}` : name;
}

// One file of all clips, so that the browser asks for one download only. `clips`: { name, bytes }.
export function clipArchive(clips) {
  const used = new Set();
  return zip(clips.map(({ name, bytes }) => ({ name: unusedName(name, used), bytes })));
}

function unusedName(name, used) {
  const stem = name.replace(/\.wav$/, "");
  let candidate = name;
  for (let number = 2; used.has(candidate.toLowerCase()); number += 1) candidate = `${stem} (${number}).wav`;
  used.add(candidate.toLowerCase());
  return candidate;
}
