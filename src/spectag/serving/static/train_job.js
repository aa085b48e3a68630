// The last training: how far it is, how long it still takes, its log and the curve of its epochs.
import { h } from "./elements.js";
import { canResume, isActive } from "./jobs_progress.js";
import { strings } from "./strings.js";
import { drawCurve } from "./train_curve.js";

const texts = strings.train;

export class TrainJob {
  // `ended(job)` is called when a training that was running has ended; `resumed()` when it goes on.
  constructor(page, ended, resumed) {
    Object.assign(this, { page, ended, resumed, job: null, offset: 0, timer: null });
    this.title = h("h2", { id: "train-job-title" });
    this.line = h("p", { class: "sentence" });
    this.bar = h("progress", { "aria-labelledby": "train-job-title" });
    this.times = h("p", { class: "times" });
    this.plan = h("ul", { class: "plan" });
    this.problem = h("p", { class: "problem", role: "alert" });
    this.curve = h("figure", { class: "epoch-curve", hidden: true });
    this.log = h("pre", { tabindex: "0", "aria-label": texts.log });
    this.details = h("details", {}, h("summary", {}, texts.log), this.log);
    this.stop = h("button", { type: "button", class: "action", onclick: () => this.act("stop") }, texts.stop);
    this.resume = h("button", { type: "button", class: "action primary", onclick: () => this.act("resume") }, texts.resume);
    this.element = h("section", { class: "train-job", "aria-labelledby": "train-job-title", hidden: true },
      this.title, this.line, this.bar, this.times, this.problem, h("div", { class: "buttons" }, this.stop, this.resume), this.plan, this.curve, this.details);
  }

  get isActive() { return this.job !== null && isActive(this.job); }

  // Shows the job with this number; null if there is none. `now` is the time of the server.
  async open(number, now) {
    this.offset = Date.parse(now) - Date.now();
    if (number === null) { this.element.hidden = true; return; }
    this.number = number;
    await this.look();
  }

  async look() {
    const before = this.job;
    try {
      this.job = await this.page.request(`/project/jobs/${this.number}`);
    } catch (error) {
      this.line.textContent = error.message; // it is asked again
      return;
    }
    this.show(this.job);
    if (before !== null && isActive(before) && before.number === this.job.number && !this.isActive) await this.ended(this.job);
  }

  async act(verb) {
    this.problem.textContent = "";
    try {
      await this.page.request(`/project/jobs/${this.number}/${verb}`, { method: "POST" });
      await this.look();
      if (verb === "resume") this.resumed();
      this.page.announce(texts.states[this.job.state]);
      (verb === "stop" ? this.resume : this.stop).focus();
    } catch (error) {
      this.problem.textContent = error.message;
    }
  }

  show(job) {
    const isRunning = job.state === "running";
    this.element.hidden = false;
    this.element.className = `train-job ${job.state}`;
    this.title.textContent = texts.jobTitle(job.title);
    this.line.textContent = isRunning ? texts.step(job.progress) : texts.stateLine(job.state, job.result?.version ?? null);
    this.bar.hidden = !isRunning;
    if (job.progress?.total > 0) { this.bar.max = job.progress.total; this.bar.value = job.progress.done; }
    else this.bar.removeAttribute("value");
    this.problem.textContent = job.state === "failed" || job.state === "interrupted" ? job.problem : "";
    this.stop.hidden = !isActive(job);
    this.resume.hidden = !canResume(job);
    this.showTimes(job);
    const plan = job.log.filter((line) => line.startsWith("plan: ")).map((line) => line.slice(6));
    this.plan.replaceChildren(...plan.map((line) => h("li", {}, line)));
    const log = job.log.join("\n");
    if (this.log.textContent !== log) { this.log.textContent = log; this.log.scrollTop = this.log.scrollHeight; }
    this.details.hidden = log === "";
    drawCurve(this.curve, job.epochs ?? []);
  }

  showTimes(job) {
    if (job.started === null) { this.times.textContent = ""; return; }
    const end = job.ended === null ? Date.now() + this.offset : Date.parse(job.ended);
    const seconds = Math.max(0, (end - Date.parse(job.started)) / 1000);
    const left = job.state === "running" ? job.progress?.seconds_left ?? null : null;
    this.times.textContent = job.state === "running" ? texts.running(clock(seconds), left === null ? null : clock(left)) : texts.took(clock(seconds));
  }
}

// A duration such as 0:05 or 1:02:03.
function clock(seconds) {
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${two(whole % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}
