// The form that starts a run: which recordings, and what to report of them.
import { h } from "./elements.js";
import { chooseFolder } from "./folder_picker.js";
import { strings } from "./strings.js";

const MAX_LABELS = 200; // that are listed at once; the filter finds the others

export class JobForm {
  // `started(number)` is called with the new job, `closed()` if the form is closed without one.
  constructor(page, started, closed) {
    Object.assign(this, { page, started, formats: null });
    const number = (id, value, step) => h("input", { type: "number", id, min: "0", step, value, inputmode: "decimal" });
    const field = (label, input, hint = null) => h("div", { class: "field" }, h("label", { for: input.id }, label), input, hint && h("p", { class: "hint", id: `${input.id}-hint` }, hint));
    this.folder = h("input", { type: "text", id: "job-folder", required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": "job-folder-hint" });
    this.pick = h("button", { type: "button", class: "action", onclick: () => this.chooseFolder() }, strings.jobs.chooseFolder);
    this.name = h("input", { type: "text", id: "job-name", maxlength: "80", autocomplete: "off", "aria-describedby": "job-name-hint" });
    this.rows = this.rowChoice();
    this.window = number("job-window", "5", "any");
    this.overlap = number("job-overlap", "0", "any");
    this.windowFields = h("div", { class: "fields" }, field(strings.jobs.window, this.window), field(strings.jobs.overlap, this.overlap));
    this.least = number("job-least", "0", "any");
    this.leastField = field(strings.jobs.least, this.least);
    this.threshold = h("input", { type: "number", id: "job-threshold", min: "0", max: "1", step: "any", placeholder: strings.jobs.ownThresholds, "aria-describedby": "job-threshold-hint" });
    this.places = h("input", { type: "checkbox", id: "job-places", checked: true, onchange: () => this.update() });
    this.site = h("input", { type: "text", id: "job-site", spellcheck: "false", autocomplete: "off", "aria-describedby": "job-site-hint" });
    this.siteField = field(strings.jobs.site, this.site, strings.jobs.siteHint);
    this.formatBox = h("fieldset", { class: "formats" }, h("legend", {}, strings.jobs.formats), h("p", { class: "hint" }, strings.jobs.formatsHint));
    this.problem = h("p", { class: "problem", role: "alert" });
    this.submit = h("button", { class: "action primary" }, strings.jobs.submit);
    this.element = h("form", { class: "job-form", onsubmit: (event) => this.send(event) },
      h("h2", {}, strings.jobs.start),
      h("div", { class: "field" }, h("label", { for: "job-folder" }, strings.jobs.recordings), h("div", { class: "with-button" }, this.folder, this.pick), h("p", { class: "hint", id: "job-folder-hint" }, strings.jobs.recordingsHint)),
      field(strings.jobs.name, this.name, strings.jobs.nameHint),
      this.rows, this.windowFields,
      h("div", { class: "fields" }, field(strings.jobs.threshold, this.threshold, strings.jobs.thresholdHint), this.leastField),
      h("details", {}, h("summary", {}, strings.jobs.more),
        this.labelBox(),
        h("div", { class: "field check" }, this.places, h("label", { for: "job-places" }, strings.jobs.places)), this.siteField,
        this.formatBox),
      this.problem,
      h("div", { class: "buttons" }, this.submit, h("button", { type: "button", class: "action", onclick: () => closed() }, strings.picker.cancel)));
    this.update();
  }

  rowChoice() {
    const choice = (value) => h("label", { class: "check" }, h("input", { type: "radio", name: "job-rows", value, checked: value === "segments", onchange: () => this.update() }), " ", h("span", {}, strings.jobs.rowKinds[value]));
    return h("fieldset", { class: "row-kinds" }, h("legend", {}, strings.jobs.rowKind), ["segments", "windows", "recordings"].map(choice));
  }

  labelBox() {
    this.filter = h("input", { type: "search", id: "job-filter", autocomplete: "off", oninput: () => this.showLabels() });
    this.labels = h("ul", { class: "label-choice", tabindex: "0", "aria-label": strings.jobs.onlyLabels });
    this.chosen = new Set();
    this.count = h("p", { class: "hint", role: "status" });
    this.showLabels();
    return h("fieldset", {}, h("legend", {}, strings.jobs.onlyLabels), h("div", { class: "field" }, h("label", { for: "job-filter" }, strings.picker.filter), this.filter), this.labels, this.count);
  }

  showLabels() {
    const wanted = this.filter.value.trim().toLowerCase();
    const names = this.page.info.labels.map((label) => label.label);
    const found = names.filter((name) => name.toLowerCase().includes(wanted)).sort((a, b) => this.chosen.has(b) - this.chosen.has(a));
    this.labels.replaceChildren(...found.slice(0, MAX_LABELS).map((name) => {
      const toggle = (event) => { this.chosen[event.target.checked ? "add" : "delete"](name); this.showCount(); };
      return h("li", {}, h("label", { class: "check" }, h("input", { type: "checkbox", checked: this.chosen.has(name), onchange: toggle }), " ", h("span", {}, name)));
    }));
    this.cut = found.length > MAX_LABELS ? ` ${strings.picker.cut(MAX_LABELS)}` : "";
    this.showCount();
  }

  showCount() {
    this.count.textContent = this.chosen.size === 0 ? strings.jobs.allOfThem : strings.jobs.chosenLabels(this.chosen.size);
    this.count.append(this.cut);
  }

  // Another version of the model was opened: its labels may be others.
  changed() {
    const known = new Set(this.page.info.labels.map((label) => label.label));
    for (const name of [...this.chosen]) if (!known.has(name)) this.chosen.delete(name);
    this.showLabels();
  }

  focus() {
    this.folder.focus();
    this.loadFormats();
  }

  async loadFormats() {
    if (this.formats !== null) return;
    try {
      this.formats = await this.page.request("/views/jobs/formats");
    } catch (error) {
      this.problem.textContent = error.message;
      return;
    }
    this.formatBox.append(...this.formats.map((format) => {
      const input = h("input", { type: "checkbox", value: format.name, disabled: format.missing !== "" });
      return h("label", { class: "check", title: format.missing || null }, input, " ", h("span", {}, strings.tag.formatName(format.name)));
    }));
    this.update();
  }

  get rowKind() { return this.rows.querySelector(":checked").value; }

  update() {
    this.windowFields.hidden = this.rowKind !== "windows";
    this.leastField.hidden = this.rowKind !== "segments";
    this.siteField.hidden = !this.places.checked;
    for (const format of this.formats ?? []) {
      const input = this.formatBox.querySelector(`[value="${format.name}"]`);
      input.disabled = format.missing !== "" || (this.rowKind === "segments" && !format.segments);
    }
  }

  async chooseFolder() {
    const folder = await chooseFolder({ title: strings.jobs.chooseFolder, start: this.folder.value.trim() || null });
    if (folder !== null) this.folder.value = folder;
    this.folder.focus();
  }

  get body() {
    const { rowKind } = this;
    const formats = [...this.formatBox.querySelectorAll("input:checked:not(:disabled)")].map((input) => input.value);
    const body = { recordings: this.folder.value.trim(), name: this.name.value.trim(), rows: rowKind, formats, labels: [...this.chosen], has_places: this.places.checked, site_from: this.places.checked ? this.site.value : "" };
    if (this.threshold.value !== "") body.min_confidence = Number(this.threshold.value);
    if (rowKind === "segments") body.min_duration_seconds = Number(this.least.value);
    if (rowKind === "windows") Object.assign(body, { window_seconds: Number(this.window.value), overlap_seconds: Number(this.overlap.value) });
    return body;
  }

  async send(event) {
    event.preventDefault();
    this.problem.textContent = "";
    this.submit.disabled = true;
    try {
      const { number, name } = await this.page.request("/views/jobs/runs", { method: "POST", body: this.body });
      this.page.announce(strings.jobs.started(name));
      this.name.value = "";
      this.started(number);
    } catch (error) {
      this.problem.textContent = error.message;
      this.problem.scrollIntoView({ block: "nearest" });
    } finally {
      this.submit.disabled = false;
    }
  }
}
