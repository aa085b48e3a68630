// One job: how far it is, its log, and what it has written.
import { h } from "./elements.js";
import { canResume, clock, isActive, progressOf, stateOf } from "./jobs_progress.js";
import { JobResult } from "./jobs_result.js";
import { failed, loading } from "./states.js";
import { strings } from "./strings.js";

const VIEWS = { map: "explore", train: "train", review: "review", suggest: "review" }; // which show what a job has made

export class JobDetail {
  // `changed()` is called after the job was stopped or resumed.
  constructor(page, changed) {
    Object.assign(this, { page, changed, job: null, key: "" });
    this.title = h("h2", { tabindex: "-1" });
    this.state = h("p", { class: "job-state", role: "status" });
    this.bar = h("progress", { max: "1", "aria-label": strings.jobs.progress });
    this.facts = h("dl", { class: "job-facts" });
    this.problem = h("p", { class: "problem", role: "alert" });
    this.stopButton = h("button", { type: "button", class: "action", onclick: () => this.send("stop") }, strings.jobs.stop);
    this.resumeButton = h("button", { type: "button", class: "action primary", onclick: () => this.send("resume") }, strings.jobs.resume);
    this.hint = h("p", { class: "hint" });
    this.log = h("pre", { class: "job-log", tabindex: "0", role: "log", "aria-label": strings.jobs.log });
    this.logBox = h("details", { open: true }, h("summary", {}, strings.jobs.log), this.log);
    this.more = h("div", { class: "job-more" });
    this.element = h("div", { class: "job" }, this.title, this.state, this.bar, h("div", { class: "buttons" }, this.stopButton, this.resumeButton), this.hint, this.problem, this.facts, this.more, this.logBox);
  }

  // `now`: the time of the server; `speed`: a Speed.
  show(job, now, speed) {
    const isOther = this.job?.number !== job.number;
    Object.assign(this, { job, now, speed });
    this.title.textContent = job.title;
    this.state.textContent = job.state === "running" ? strings.jobs.states.running : stateOf(job);
    this.state.className = `job-state ${job.state}`;
    const progress = progressOf(job);
    this.bar.hidden = job.state !== "running";
    if (progress === null) this.bar.removeAttribute("value");
    else this.bar.value = progress;
    this.stopButton.hidden = !isActive(job);
    this.resumeButton.hidden = !canResume(job);
    this.hint.textContent = canResume(job) && job.kind === "tag" ? strings.jobs.resumeHint : "";
    this.problem.textContent = job.problem;
    if (isOther) {
      Object.assign(this, { key: "", record: null });
      this.more.replaceChildren();
      this.log.textContent = "";
      this.logBox.hidden = true;
    }
    this.showFacts();
    this.loadRecord(job);
  }

  showFacts() {
    const { job, now, speed } = this;
    const rows = [[strings.jobs.kind, strings.jobs.kinds[job.kind] ?? job.kind]];
    if (job.state === "running" && job.progress?.step) rows.push([strings.jobs.done, stateOf(job)]);
    if (job.started !== null) rows.push([strings.jobs.elapsed, clock(((job.ended === null ? now : Date.parse(job.ended)) - Date.parse(job.started)) / 1000)]);
    if (job.state === "running") {
      const { perSecond } = speed;
      const secondsLeft = job.progress?.seconds_left ?? speed.secondsLeft; // some jobs can foresee it
      rows.push([strings.jobs.remaining, secondsLeft === null ? strings.jobs.notYet : strings.jobs.about(clock(secondsLeft))]);
      rows.push([strings.jobs.speed, perSecond === null ? strings.jobs.notYet : strings.jobs.perMinute(60 * perSecond)]);
    }
    rows.push([strings.jobs.created, strings.jobs.time(new Date(job.created))]);
    if (this.record?.query?.recordings && this.record.number === job.number) rows.push([strings.jobs.recordings, this.record.query.recordings], [strings.jobs.version, String(this.record.query.version)]);
    const texts = JSON.stringify(rows);
    if (texts === this.texts) return;
    this.texts = texts;
    this.facts.replaceChildren(...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  }

  // The log, and after the end what was written. It is asked for again only while the job runs, and when it has ended.
  async loadRecord(job) {
    const key = `${job.number} ${job.state} ${job.ended}`;
    if (this.isLoading || (key === this.key && job.state !== "running")) return;
    this.isLoading = true;
    if (!this.record) this.more.replaceChildren(loading());
    try {
      const record = await this.page.request(`/project/jobs/${job.number}`);
      if (this.job.number !== job.number) return;
      const isNew = key !== this.key || !this.record;
      Object.assign(this, { record, key });
      this.showFacts();
      this.showLog(record.log);
      if (isNew) this.showResult(record);
    } catch (error) {
      this.key = ""; // what was written is shown again with the next answer
      if (this.job.number === job.number) this.more.replaceChildren(failed(strings.jobs.failed, error.message, () => this.loadRecord(this.job)));
    } finally {
      this.isLoading = false;
      if (this.job.number !== job.number) this.loadRecord(this.job);
    }
  }

  showLog(lines) {
    const text = lines.join("\n");
    this.logBox.hidden = lines.length === 0;
    if (text === this.log.textContent) return;
    const isAtEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 4;
    this.log.textContent = text;
    if (isAtEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  showResult(record) {
    const view = VIEWS[record.kind];
    this.more.replaceChildren(...(view ? [h("p", {}, h("a", { class: "action", href: `#${view}` }, strings.jobs.open[view]))] : []));
    if (record.kind !== "tag") return;
    if (record.state === "done") this.more.append(new JobResult(this.page, record.result).element);
    else if (isActive(record)) this.more.append(h("p", { class: "hint" }, strings.jobs.tablesAtEnd));
  }

  async send(action) {
    const { job } = this;
    this.problem.textContent = "";
    for (const button of [this.stopButton, this.resumeButton]) button.disabled = true;
    try {
      await this.page.request(`/project/jobs/${job.number}/${action}`, { method: "POST" });
      this.page.announce(action === "stop" ? strings.jobs.stopping(job.title) : strings.jobs.resumed(job.title));
      await this.changed();
    } catch (error) {
      this.problem.textContent = error.message;
    } finally {
      for (const button of [this.stopButton, this.resumeButton]) button.disabled = false;
      (this.stopButton.hidden ? this.title : this.stopButton).focus();
    }
  }
}
