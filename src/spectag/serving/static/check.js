// The Check view: the list of checks, a new one, or the cards of one. The address names it: #check/NAME. The name of a
// run that has no check yet opens a new check of its table.
import { CheckForm, TABLES } from "./check_form.js";
import { CHECKS } from "./check_state.js";
import { CheckWork } from "./check_work.js";
import { h } from "./elements.js";
import { emptyView, failed, loading } from "./states.js";
import { strings } from "./strings.js";

const MAX_LABELS = 12; // of a check, in the list

export function mount(element, page) {
  return new CheckView(element, page).hooks;
}

class CheckView {
  constructor(element, page) {
    Object.assign(this, { element, page, checks: [], work: null });
    const key = (name) => () => this.work?.keys[name]();
    this.hooks = {
      shown: () => this.comeBack(),
      hidden: () => this.work?.figure?.audio.pause(),
      changed: () => this.work?.curves?.update(),
      keys: Object.fromEntries(["y", "n", "s", "j", "k", "u", "o", "c", "space"].map((name) => [name, key(name)])),
    };
    addEventListener("hashchange", () => { if (location.hash.startsWith("#check")) this.show(); });
  }

  get wanted() {
    try {
      return decodeURIComponent(location.hash.slice(1)).split("/").slice(1).join("/");
    } catch {
      return "";
    }
  }

  // The navigation leads to the list; whoever comes from another view goes on with the check that was open.
  comeBack() {
    if (this.wanted === "" && this.work) history.replaceState(null, "", `#check/${encodeURIComponent(this.work.name)}`);
    this.show();
  }

  show() {
    const name = this.wanted;
    if (this.form && (name === "" || name === this.form.run)) return; // it is being filled in
    if (name === "") this.showList();
    else if (this.work?.name !== name) this.openCheck(name);
  }

  go(name) {
    const hash = name === "" ? "#check" : `#check/${encodeURIComponent(name)}`;
    if (location.hash === hash) this.show();
    else location.hash = hash;
  }

  backToList() {
    this.wantsFocus = true; // its button is gone with the check
    this.go("");
  }

  replace(...children) {
    this.work?.close();
    this.work = null;
    this.form = null;
    this.element.replaceChildren(...children);
  }

  async showList() {
    this.replace(loading());
    const isCurrent = () => this.work === null && !this.form;
    try {
      const checks = await this.page.request(CHECKS);
      if (!isCurrent()) return;
      this.checks = checks;
      this.replace(...this.list());
      if (this.wantsFocus) this.element.querySelector("h2")?.focus();
      this.wantsFocus = false;
    } catch (error) {
      if (isCurrent()) this.replace(failed(strings.check.noList, error.message, () => this.showList()));
    }
  }

  list() {
    const texts = strings.check;
    const start = h("button", { type: "button", class: "action primary", onclick: () => this.showForm() }, texts.newCheck);
    if (this.checks.length === 0) return [emptyView("check", texts.empty, texts.emptyHint, start)];
    return [h("div", { class: "check-head" }, h("h2", { tabindex: "-1" }, texts.checks), start), h("ul", { class: "checks" }, this.checks.map((check) => this.entry(check)))];
  }

  entry(check) {
    const texts = strings.check;
    if (check.problem) return h("li", { class: "card" }, h("h3", {}, check.name), h("p", { class: "problem" }, check.problem));
    const sum = (name) => check.labels.reduce((total, label) => total + label[name], 0);
    const left = sum("open");
    const done = (label) => label.sampled - label.open;
    const labels = [...check.labels].sort((one, other) => done(other) - done(one)); // those that are checked come first
    const facts = texts.facts(check.table, new Date(check.created), check.presence);
    return h("li", { class: "card" },
      h("h3", {}, h("a", { href: `#check/${encodeURIComponent(check.name)}` }, check.name)),
      h("p", { class: "facts-line" }, facts),
      h("p", {}, texts.summary(sum("sampled") - left, sum("sampled"), left)),
      h("ul", { class: "progress-list" }, labels.slice(0, MAX_LABELS).map(progress)),
      check.labels.length > MAX_LABELS && h("p", { class: "hint" }, texts.moreLabels(check.labels.length - MAX_LABELS)));
  }

  showForm(run = null) {
    this.replace();
    const leave = () => { this.form = null; this.go(""); };
    this.form = new CheckForm(this.page, { taken: this.checks.map((check) => check.name), run, created: (name) => this.created(name), leave });
    this.element.replaceChildren(this.form.element);
  }

  created(name) {
    this.form = null;
    this.go(name);
  }

  // Opens a new check of a run's table; false if there is no such run.
  async offerRun(name) {
    const isRun = (await this.page.request(TABLES)).some((table) => table.run === name);
    if (isRun && this.work?.name === name) this.showForm(name);
    return isRun;
  }

  openCheck(name) {
    this.replace();
    this.work = new CheckWork(name, this.page, { leave: () => this.backToList(), takeMissing: () => this.offerRun(name) });
    this.element.replaceChildren(this.work.element);
  }
}

function progress({ label, sampled, open }) {
  const meter = h("span", { class: "meter", "aria-hidden": "true" });
  meter.style.setProperty("--value", `${(100 * (sampled - open)) / sampled}%`);
  return h("li", {}, h("span", { class: "text" }, label), h("span", { class: "figure" }, strings.check.progress(sampled - open, sampled)), meter);
}
