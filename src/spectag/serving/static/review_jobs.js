// The jobs of the Review view: checking the labels of all clips, and choosing what to label next.
import { h } from "./elements.js";
import { strings } from "./strings.js";

const KINDS = ["review", "suggest"];
const WORKING = ["waiting", "running"];

export class ReviewJobs {
  // `started()` is called when a job was started or stopped.
  constructor(store, started) {
    Object.assign(this, { store, started, isWorking: false });
    this.buttons = Object.fromEntries(KINDS.map((kind) => [kind, h("button", { type: "button", class: "action", onclick: () => this.start(kind) }, strings.review.jobs[kind].start)]));
    this.status = h("p", { class: "hint", role: "status" });
    this.stopButton = h("button", { type: "button", class: "action", hidden: true, onclick: () => this.stop() }, strings.review.jobs.stop);
    this.unknown = h("p", { class: "hint warning", role: "status" });
    this.problem = h("p", { class: "problem", role: "alert" });
    this.element = h("div", { class: "review-jobs" }, h("div", { class: "buttons" }, ...Object.values(this.buttons), this.stopButton), this.status, this.unknown, this.problem);
  }

  update(state) {
    const working = KINDS.filter((kind) => WORKING.includes(state.jobs[kind]?.state));
    this.isWorking = working.length > 0;
    for (const kind of KINDS) this.buttons[kind].disabled = working.includes(kind);
    this.buttons.suggest.hidden = state.counts.unlabelled === 0;
    this.stopButton.hidden = !this.isWorking;
    this.running = this.isWorking ? state.jobs[working[0]] : null;
    const { predictions } = state;
    this.status.textContent = this.isWorking ? this.progressOf(working[0], this.running) : predictions === null ? strings.review.jobs.none(state.version) : strings.review.jobs.done(state.version, new Date(predictions.time), predictions.n_clips);
    this.showUnknown(state.labels);
    const newest = KINDS.map((kind) => state.jobs[kind]).filter(Boolean).sort((one, other) => other.number - one.number)[0];
    this.problem.textContent = newest?.state === "failed" ? strings.review.jobs.failed(newest.title, newest.problem) : newest?.state === "interrupted" ? strings.review.jobs.failed(newest.title, newest.problem) : "";
  }

  // A model that was trained elsewhere finds no errors of labels that it does not have.
  showUnknown(labels) {
    const own = labels.filter((label) => label.own);
    const unknown = own.filter((label) => !label.known).map(({ label }) => label);
    const text = unknown.length === 0 ? "" : strings.review.jobs.unknown(unknown, own.length);
    if (this.unknown.dataset.text === text) return;
    this.unknown.dataset.text = text;
    this.unknown.replaceChildren(...(text === "" ? [] : [text, " ", h("a", { href: "#train" }, strings.review.jobs.train)]));
  }

  progressOf(kind, { state, progress }) {
    if (state === "waiting" || !progress) return strings.review.jobs.waiting;
    return strings.review.jobs.progress(strings.review.jobs[kind].running, progress.step, progress.done, progress.total);
  }

  async start(kind) {
    try {
      await this.store.ask("jobs", { kind });
      this.problem.textContent = "";
    } catch (error) {
      this.problem.textContent = error.message;
    }
    this.started();
  }

  async stop() {
    try {
      await this.store.request(`/project/jobs/${this.running.number}/stop`, { method: "POST" });
    } catch (error) {
      this.problem.textContent = error.message;
    }
    this.started();
  }
}
