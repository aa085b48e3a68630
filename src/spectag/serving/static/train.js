// The Train view: refit after corrections, train new versions, follow the training, compare versions and go back.
import { h } from "./elements.js";
import { failed, loading } from "./states.js";
import { strings } from "./strings.js";
import { TrainForm } from "./train_form.js";
import { TrainJob } from "./train_job.js";
import { TrainResults } from "./train_results.js";
import { TrainVersions } from "./train_versions.js";

const texts = strings.train;
const SECONDS_BETWEEN = 1; // looks at a running job
const SECONDS_IDLE = 10; // until somebody else's edits are seen

export function mount(element, page) {
  return new TrainView(element, page).handlers;
}

class TrainView {
  constructor(element, page) {
    Object.assign(this, { element, page, state: null, isShown: false, timer: null, run: 0, shownVersion: null });
    this.refit = h("section", { class: "refit", "aria-labelledby": "refit-title" });
    this.form = new TrainForm(page, (path, body) => this.start(path, body));
    this.job = new TrainJob(page, (job) => this.jobEnded(job), () => { this.showRefit(this.state.labels); this.watch(); });
    this.results = new TrainResults(page, (version) => this.use(version));
    this.versions = new TrainVersions(page, {
      show: (number) => this.showVersion(number, true), use: (version) => this.use(version), remove: (version) => this.remove(version),
    });
    this.problem = h("p", { class: "problem", role: "alert" });
    this.content = h("div", { class: "train-content" }, this.problem,
      h("div", { class: "train-left" }, this.refit, this.form.element),
      h("div", { class: "train-right" }, this.job.element, this.results.element), this.versions.element);
    element.append(loading());
    this.handlers = {
      shown: () => { this.isShown = true; this.load(); },
      hidden: () => { this.isShown = false; clearTimeout(this.timer); this.results.pause(); },
      changed: () => this.load(),
      keys: { r: () => this.refitButton?.click(), t: () => this.form.focus(), v: () => this.versions.focus() },
    };
  }

  async load() {
    clearTimeout(this.timer);
    const run = (this.run += 1);
    try {
      const state = await this.page.request("/views/train/state");
      if (run !== this.run) return;
      await this.show(state);
    } catch (error) {
      if (run !== this.run) return;
      if (this.state !== null) { this.problem.textContent = error.message; this.watch(); return; } // what is typed stays
      this.element.replaceChildren(failed(texts.failed, error.message, () => { this.element.replaceChildren(loading()); this.load(); }));
    }
  }

  async show(state) {
    const isFirst = this.state === null;
    this.state = state;
    this.problem.textContent = "";
    this.showRefit(state.labels);
    this.form.update(state, isFirst);
    this.versions.update(state);
    if (isFirst) this.element.replaceChildren(this.content);
    const newest = state.versions.at(-1);
    const wanted = state.versions.some((version) => version.number === this.shownVersion) ? this.shownVersion : newest?.number ?? null;
    await Promise.all([this.job.open(state.job, state.now), this.showVersion(wanted)]);
    this.showRefit(state.labels); // no refit while a training runs
    this.watch();
  }

  // Looks again later: often while a job runs, and now and then for what other people do.
  watch() {
    clearTimeout(this.timer);
    if (!this.isShown) return;
    const look = () => (this.job.isActive ? this.job.look().then(() => this.watch()) : this.load());
    this.timer = setTimeout(look, 1000 * (this.job.isActive ? SECONDS_BETWEEN : SECONDS_IDLE));
  }

  showRefit(labels) {
    const count = labels.n_changes;
    const isBusy = this.job.isActive;
    const key = JSON.stringify([labels, isBusy, this.state.current]);
    if (this.refitKey === key) return; // the button keeps the focus
    this.refitKey = key;
    const hadFocus = this.refit.contains(document.activeElement);
    this.refitButton = null;
    const isFirst = labels.path !== null && !labels.has_trained;
    const title = h("h2", { id: "refit-title" }, isFirst ? texts.firstTitle : texts.refitTitle);
    if (labels.problem) this.refit.replaceChildren(title, h("p", { class: "problem", role: "alert" }, labels.problem));
    else if (labels.path === null) this.refit.replaceChildren(title, h("p", {}, texts.noLabels), h("p", {}, h("a", { href: "#review" }, texts.toReview)));
    else {
      this.refitButton = h("button", { type: "button", class: "action primary", disabled: isBusy || count === 0 || labels.up_to_date !== null, onclick: () => this.start("/views/train/refit", {}) }, isFirst ? texts.first(count) : texts.refit(count));
      const hint = count === 0 ? texts.noChanges(this.state.current) : labels.up_to_date !== null ? texts.upToDate(labels.up_to_date) : labels.fast ? texts.refitFast : texts.refitSlow;
      this.refit.replaceChildren(title, h("p", {}, texts.changes(count, isFirst ? null : this.state.current)), this.refitButton, h("p", { class: "hint" }, hint));
      if (hadFocus) this.refitButton.focus();
    }
  }

  // Starts a training. An error is shown where it was started.
  async start(path, body) {
    this.refit.querySelector(".problem")?.remove();
    if (this.isStarting) return;
    this.isStarting = true;
    try {
      await this.page.request(path, { method: "POST", body });
    } catch (error) {
      if (!path.endsWith("/refit")) throw error;
      this.refit.append(h("p", { class: "problem", role: "alert" }, error.message));
      return;
    } finally {
      this.isStarting = false;
    }
    this.page.announce(texts.started);
    await this.load();
    this.job.element.scrollIntoView({ block: "nearest" });
  }

  async jobEnded(job) {
    this.page.announce(texts.states[job.state]);
    if (job.state === "done") this.shownVersion = null; // the new one
    await this.load();
  }

  async showVersion(number, isAsked = false) {
    this.shownVersion = number;
    await this.results.open(number, this.state);
    if (isAsked) this.results.focus();
  }

  async use(version) {
    await this.page.request(`/views/train/versions/${version}/use`, { method: "POST" });
    this.page.announce(texts.nowInUse(version));
    await this.page.refresh(); // which calls changed()
  }

  async remove(version) {
    await this.page.request(`/views/train/versions/${version}`, { method: "DELETE" });
    this.page.announce(texts.removed(version));
    await this.load();
  }
}

