// The Jobs view: all jobs of the project, one of them in detail, and a form that starts a run over a folder.
import { h } from "./elements.js";
import { JobDetail } from "./jobs_detail.js";
import { JobForm } from "./jobs_form.js";
import { isActive, progressOf, Speed, stateOf } from "./jobs_progress.js";
import { emptyView, failed, loading } from "./states.js";
import { strings } from "./strings.js";

const FAST = 1000, SLOW = 10_000; // milliseconds between two questions: while jobs run, and otherwise

export function mount(element, page) {
  return new JobsView(element, page).interface;
}

class JobsView {
  constructor(element, page) {
    Object.assign(this, { element, page, jobs: null, chosen: null, speeds: new Map(), rows: new Map(), isShown: false });
    this.detail = new JobDetail(page, () => this.load());
    this.form = new JobForm(page, (number) => this.choose(number), () => this.choose(null));
    this.list = h("ul", { class: "jobs", "aria-label": strings.jobs.list });
    this.stage = h("div", { class: "stage" });
    this.problem = h("p", { class: "problem", role: "alert" });
    this.startButton = h("button", { type: "button", class: "action primary", onclick: () => this.showForm() }, strings.jobs.start);
    this.workplace = h("div", { class: "workplace" }, h("div", { class: "side" }, this.startButton, this.problem, this.list), this.stage);
    element.append(loading());
    addEventListener("hashchange", () => this.isShown && this.followAddress());
  }

  get interface() {
    return {
      shown: () => { this.isShown = true; this.followAddress(); this.load(); },
      hidden: () => { this.isShown = false; clearTimeout(this.timer); },
      changed: () => this.form.changed(),
      keys: { n: () => this.showForm(), "↓": () => this.other(1), "↑": () => this.other(-1) },
    };
  }

  // #jobs/3 is job 3, #jobs/new the form.
  followAddress() {
    const wanted = location.hash.split("/")[1] ?? "";
    const chosen = wanted === "new" ? "new" : /^\d{1,9}$/.test(wanted) ? Number(wanted) : null;
    if (chosen === null || chosen === this.chosen) return;
    this.chosen = chosen;
    this.update();
  }

  choose(number) {
    this.chosen = number;
    history.replaceState(null, "", number === null ? "#jobs" : `#jobs/${number}`);
    this.load();
  }

  showForm() {
    if (this.jobs === null) return;
    this.chosen = "new";
    history.replaceState(null, "", "#jobs/new");
    this.update();
    this.form.focus();
  }

  other(step) {
    const numbers = (this.jobs ?? []).map((job) => job.number);
    if (numbers.length === 0) return;
    const at = numbers.indexOf(this.chosen);
    const next = numbers[Math.min(numbers.length - 1, Math.max(0, at < 0 ? 0 : at + step))];
    this.chosen = next;
    history.replaceState(null, "", `#jobs/${next}`);
    this.update();
    this.rows.get(next)?.button.scrollIntoView({ block: "nearest" });
  }

  async load() {
    clearTimeout(this.timer);
    const number = (this.asked = (this.asked ?? 0) + 1);
    try {
      const found = await this.page.request("/views/jobs/jobs");
      if (number !== this.asked) return;
      this.announceEnded(found.jobs);
      Object.assign(this, { jobs: found.jobs, now: Date.parse(found.now) });
      this.problem.textContent = "";
      for (const job of found.jobs) this.speedOf(job).add(job.progress);
      this.update();
    } catch (error) {
      if (number !== this.asked) return;
      if (this.jobs === null) this.element.replaceChildren(failed(strings.jobs.failed, error.message, () => this.load()));
      else this.problem.textContent = error.message;
    }
    if (this.isShown) this.timer = setTimeout(() => this.load(), (this.jobs ?? []).some(isActive) ? FAST : SLOW);
  }

  speedOf(job) {
    if (!this.speeds.has(job.number)) this.speeds.set(job.number, new Speed());
    return this.speeds.get(job.number);
  }

  // For people who do not see it.
  announceEnded(jobs) {
    for (const job of jobs) {
      const before = this.jobs?.find((one) => one.number === job.number);
      if (before && isActive(before) && !isActive(job)) this.page.announce(strings.jobs.ended(job.title, strings.jobs.states[job.state]));
    }
  }

  update() {
    if (this.jobs === null) return;
    if (this.workplace.parentElement !== this.element) this.element.replaceChildren(this.workplace);
    const isKnown = this.chosen === "new" || this.jobs.some((job) => job.number === this.chosen);
    if (!isKnown) this.chosen = this.jobs[0]?.number ?? null;
    this.element.classList.toggle("has-jobs", this.jobs.length > 0);
    this.showList();
    this.showStage();
  }

  showList() {
    for (const job of this.jobs) if (!this.rows.has(job.number)) this.rows.set(job.number, this.row(job));
    const wanted = this.jobs.map((job) => this.rows.get(job.number).element);
    if (wanted.some((element, index) => this.list.children[index] !== element)) this.list.replaceChildren(...wanted);
    for (const job of this.jobs) this.updateRow(this.rows.get(job.number), job);
  }

  row(job) {
    const bar = h("progress", { max: "1", "aria-hidden": "true" });
    const note = h("small");
    const button = h("button", { type: "button", onclick: () => this.choose(job.number) }, h("span", { class: "name" }, job.title), h("span", { class: "kind" }, strings.jobs.kinds[job.kind] ?? job.kind), note, bar);
    return { element: h("li", {}, button), button, bar, note };
  }

  updateRow({ element, button, bar, note }, job) {
    element.className = job.state;
    note.textContent = stateOf(job);
    const progress = progressOf(job);
    bar.hidden = job.state !== "running";
    if (progress === null) bar.removeAttribute("value");
    else bar.value = progress;
    if (job.number === this.chosen) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }

  showStage() {
    this.startButton.hidden = this.chosen === "new" && this.jobs.length === 0; // the form has a button of its own
    if (this.chosen === "new") this.show(this.form.element);
    else if (this.chosen === null) this.show((this.intro ??= emptyView("jobs", strings.jobs.empty, strings.jobs.emptyHint)));
    else {
      const job = this.jobs.find((one) => one.number === this.chosen);
      this.show(this.detail.element);
      this.detail.show(job, this.now, this.speedOf(job));
    }
  }

  show(content) {
    if (this.stage.firstElementChild !== content) this.stage.replaceChildren(content);
  }
}
