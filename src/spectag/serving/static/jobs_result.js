// What a complete run over a folder has found: counts, tables, and the recordings that could not be tagged.
import { h } from "./elements.js";
import { clock } from "./jobs_progress.js";
import { failed, loading } from "./states.js";
import { strings } from "./strings.js";

const MAX_ROWS = 200; // of labels that are shown at first

export class JobResult {
  // `result`: what the function of the job returned.
  constructor(page, result) {
    Object.assign(this, { page, result, first: 0 });
    this.address = `/views/jobs/runs/${encodeURIComponent(result.run)}`;
    this.files = h("div", {}, loading());
    this.failures = h("div", {});
    const check = h("a", { class: "action primary", href: `#check/${encodeURIComponent(result.run)}` }, strings.jobs.check);
    this.element = h("div", { class: "job-result" },
      h("p", { class: "sentence" }, strings.jobs.result(result), " ", result.sound_seconds > 0 && result.seconds > 0 ? strings.jobs.realTime(clock(result.sound_seconds), Math.round(result.sound_seconds / result.seconds)) : ""),
      ...result.differences.map((text) => h("p", { class: "hint warning" }, text)),
      result.labels.length > 0 && h("p", {}, check),
      h("h3", {}, strings.jobs.tables), this.files,
      h("h3", {}, strings.jobs.labels), this.labels(),
      this.failures);
    this.loadFiles();
    this.loadFailures();
  }

  labels() {
    const { labels } = this.result;
    if (labels.length === 0) return h("p", { class: "hint" }, strings.jobs.noLabels);
    const most = labels[0][1];
    const body = h("tbody", {}, labels.slice(0, MAX_ROWS).map((row) => this.labelRow(row, most)));
    const head = [strings.jobs.label, strings.jobs.rows, strings.jobs.inRecordings].map((text) => h("th", { scope: "col" }, text));
    const more = labels.length > MAX_ROWS && h("button", { type: "button", class: "action", onclick: () => { body.replaceChildren(...labels.map((row) => this.labelRow(row, most))); more.remove(); } }, strings.jobs.allLabels(labels.length));
    return h("div", {}, h("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": strings.jobs.labels }, h("table", { class: "label-counts" }, h("thead", {}, h("tr", {}, head)), body)), more);
  }

  labelRow([label, count, recordings], most) {
    const bar = h("span", { class: "count-bar", "aria-hidden": "true" });
    bar.style.width = `${(100 * count) / most}%`;
    return h("tr", {}, h("th", { scope: "row" }, label, bar), h("td", { class: "figure" }, count.toLocaleString("en")), h("td", { class: "figure" }, recordings.toLocaleString("en")));
  }

  async loadFiles() {
    try {
      const { folder, files } = await this.page.request(`${this.address}/files`);
      files.sort((one, other) => other.name.startsWith("tags") - one.name.startsWith("tags")); // which people look for
      this.files.replaceChildren(h("p", { class: "hint path" }, strings.jobs.tablesAt(folder)), h("ul", { class: "run-files" }, files.map((file) => {
        const name = file.folder ? `${file.name}.zip` : file.name;
        const link = h("a", { href: `${this.address}/files/${encodeURIComponent(file.name)}`, download: name }, name);
        return h("li", {}, link, " ", h("span", { class: "hint" }, file.folder ? strings.jobs.folderOfFiles : strings.picker.size(file.bytes)));
      })));
    } catch (error) {
      this.files.replaceChildren(failed(strings.jobs.failed, error.message, () => this.loadFiles()));
    }
  }

  async loadFailures() {
    try {
      const { failures, count } = await this.page.request(`${this.address}/failures?first=${this.first}`);
      this.showFailures(failures, count);
    } catch (error) {
      this.failures.replaceChildren(failed(strings.jobs.failed, error.message, () => this.loadFailures()));
    }
  }

  showFailures(failures, count) {
    if (count === 0) { this.failures.replaceChildren(h("p", { class: "hint" }, strings.jobs.noFailures)); return; }
    const rows = failures.map((one) => h("tr", {}, h("th", { scope: "row" }, one.file), h("td", {}, strings.jobs.statuses[one.status] ?? one.status), h("td", {}, one.reason)));
    const head = [strings.jobs.recording, strings.jobs.status, strings.jobs.reason].map((text) => h("th", { scope: "col" }, text));
    const step = (first, text, isPossible) => h("button", { type: "button", class: "action", disabled: !isPossible, onclick: () => this.turnTo(first) }, text);
    const last = this.first + failures.length;
    const pages = count > failures.length && h("p", { class: "buttons" }, step(this.first - 50, strings.jobs.before, this.first > 0), step(last, strings.jobs.after, last < count), h("span", { class: "hint" }, strings.jobs.range(this.first + 1, last, count)));
    this.failures.replaceChildren(h("h3", {}, strings.jobs.failures(count)), h("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": strings.jobs.failures(count) }, h("table", { class: "run-failures" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows))), ...(pages ? [pages] : []));
  }

  async turnTo(first) {
    this.first = Math.max(0, first);
    await this.loadFailures();
    this.failures.querySelector(".scrolls")?.focus();
  }
}
