// How far jobs are, how fast they go, and what that is in words.
import { strings } from "./strings.js";

const MEMORY = 60_000; // milliseconds over which the speed is measured
const LEAST = 3000; // milliseconds that a measurement needs

export const isActive = (job) => job.state === "waiting" || job.state === "running";
export const canResume = (job) => ["failed", "stopped", "interrupted"].includes(job.state);

// The part that is done, from 0 to 1; null if it is not known.
export function progressOf(job) {
  const total = job.progress?.total ?? 0;
  return total > 0 ? job.progress.done / total : null;
}

// The state of a job in a line.
export function stateOf(job) {
  const state = strings.jobs.states[job.state];
  if (job.state !== "running") return job.ended === null ? state : strings.jobs.at(state, strings.jobs.time(new Date(job.ended)));
  if (!job.progress || job.progress.step === "") return state;
  const { step, done, total } = job.progress;
  return total > 0 ? strings.jobs.counted(step, done, total) : step;
}

// Items in a second, over the last minute: what a resumed job had done before does not count.
export class Speed {
  constructor() {
    this.samples = [];
    this.step = null;
  }

  add(progress, now = performance.now()) {
    if (!progress || progress.step !== this.step) this.samples = [];
    this.step = progress?.step ?? null;
    if (!progress || progress.total === 0) return;
    this.samples.push([now, progress.done, progress.total]);
    while (this.samples.length > 2 && now - this.samples[0][0] > MEMORY) this.samples.shift();
  }

  // null: not known yet.
  get perSecond() {
    if (this.samples.length < 2) return null;
    const [first, last] = [this.samples[0], this.samples.at(-1)];
    return last[0] - first[0] < LEAST || last[1] <= first[1] ? null : (1000 * (last[1] - first[1])) / (last[0] - first[0]);
  }

  get secondsLeft() {
    const { perSecond } = this;
    if (perSecond === null) return null;
    const [, done, total] = this.samples.at(-1);
    return (total - done) / perSecond;
  }
}

// A duration such as 1:02:03.
export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const two = (number) => String(number).padStart(2, "0");
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}
