// The form of a new check: which table, how many detections, and how they are drawn.
import { LabelChoice } from "./check_labels.js";
import { CHECKS } from "./check_state.js";
import { h } from "./elements.js";
import { chooseFile, chooseFolder } from "./folder_picker.js";
import { failed, loading } from "./states.js";
import { strings } from "./strings.js";

export const TABLES = "/views/check/tables";
const SPREADS = ["scores", "sites", "hours"];

export class CheckForm {
  // `taken`: names of checks. `run`: whose table is chosen, if it has one. `created(name)` and `leave()` are called at
  // the end.
  constructor(page, { taken, run, created, leave }) {
    Object.assign(this, { page, taken, run, created, leave, recordings: "" });
    this.element = h("div", { class: "check-form" });
    this.open();
  }

  async open() {
    this.element.replaceChildren(loading());
    try {
      const tables = await this.page.request(TABLES);
      this.build(tables);
    } catch (error) {
      this.element.replaceChildren(failed(strings.check.noTables, error.message, () => this.open()));
    }
  }

  build(tables) {
    const texts = strings.check.form;
    const button = (text, action) => h("button", { type: "button", class: "action", onclick: action }, text);
    this.table = h("select", { id: "check-table", required: true, onchange: () => this.useTable() }, h("option", { value: "" }, texts.noTable), tables.map((table) => h("option", { value: table.path }, texts.tableOfRun(table.run, table.name))));
    this.file = h("input", { type: "file", hidden: true, accept: ".csv,.tsv,.txt,.json,.jsonl,.parquet", onchange: () => this.upload() });
    this.labels = new LabelChoice(this.page.request);
    this.folder = h("span", { class: "path" }, texts.besideTable);
    this.name = h("input", { id: "check-name", required: true, maxlength: 80, autocomplete: "off", oninput: () => { this.hasOwnName = true; } });
    this.perLabel = h("input", { id: "check-per-label", type: "number", min: 1, max: 10000, value: 96, required: true });
    this.least = h("input", { id: "check-least", type: "number", min: 0, max: 1, step: "any", placeholder: "0", onchange: () => this.useTable() });
    this.spreads = SPREADS.map((name) => h("input", { type: "checkbox", value: name, checked: true }));
    const kind = (value) => h("label", { class: "kind-of-check" }, h("input", { type: "radio", name: "check-kind", value, checked: value === "random" }), h("span", {}, h("b", {}, texts.kinds[value]), h("small", {}, texts.kindHints[value])));
    this.problem = h("p", { class: "problem", role: "alert" });
    this.submit = h("button", { class: "action primary" }, texts.draw);
    const field = (label, input, ...more) => h("div", { class: "field" }, h("label", { for: input.id }, label), input, ...more);
    const form = h("form", { onsubmit: (event) => this.send(event) },
      h("h2", {}, strings.check.newCheck),
      field(texts.table, this.table, h("div", { class: "buttons" }, button(texts.chooseTable, () => this.chooseTable()), button(texts.upload, () => this.file.click()), this.file)),
      h("div", { class: "field" }, h("span", { class: "name" }, texts.recordings), this.folder, h("div", { class: "buttons" }, button(texts.chooseRecordings, () => this.chooseRecordings()))),
      this.labels.element,
      field(texts.name, this.name),
      h("fieldset", {}, h("legend", {}, texts.kind), kind("random"), kind("presence")),
      field(texts.perLabel, this.perLabel),
      h("fieldset", { class: "spreads" }, h("legend", {}, texts.spread), this.spreads.map((input) => h("label", {}, input, " ", texts.spreads[input.value]))),
      field(texts.least, this.least),
      this.problem,
      h("div", { class: "buttons" }, this.submit, button(texts.cancel, this.leave)));
    this.form = form;
    this.element.replaceChildren(form);
    const first = tables.find((table) => table.run === this.run) ?? tables[0];
    if (first) this.table.value = first.path;
    this.useTable();
    this.table.focus();
  }

  addTable(path, text) {
    if (![...this.table.options].some((option) => option.value === path)) this.table.append(h("option", { value: path }, text));
    this.table.value = path;
    this.useTable();
  }

  useTable() {
    this.suggestName();
    this.labels.show(this.table.value, this.least.value);
  }

  async chooseTable() {
    const path = await chooseFile({ title: strings.check.form.chooseTable, kinds: ["table"] });
    if (path !== null) this.addTable(path, path);
  }

  async chooseRecordings() {
    const path = await chooseFolder({ title: strings.check.form.chooseRecordings, start: this.recordings || null });
    if (path === null) return;
    this.recordings = path;
    this.folder.textContent = path;
  }

  async upload() {
    const [file] = this.file.files;
    if (!file) return;
    this.problem.textContent = "";
    this.submit.disabled = true;
    try {
      const { path, name } = await this.page.request(`${TABLES}?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
      this.addTable(path, strings.check.form.uploaded(name));
    } catch (error) {
      this.problem.textContent = error.message;
    } finally {
      this.submit.disabled = false;
      this.file.value = "";
    }
  }

  // A name that no other check has, from that of the table.
  suggestName() {
    if (this.hasOwnName && this.name.value.trim() !== "") return;
    const parts = this.table.value.split(/[/\\]/);
    const file = (parts.at(-1) ?? "").replace(/\.[^.]*$/, "");
    const stem = (/^(tags|detections)$/.test(file) && parts.length > 1 ? parts.at(-2) : file).replace(/[^\p{L}\p{N}_ .()-]+/gu, " ").replace(/^[\W_]+/, "").trim().slice(0, 60);
    if (stem === "") return;
    let name = stem;
    for (let number = 2; this.taken.includes(name); number += 1) name = `${stem} ${number}`;
    this.name.value = name;
  }

  get values() {
    const values = {
      name: this.name.value.trim(), table: this.table.value, recordings: this.recordings, per_label: Number(this.perLabel.value),
      across: this.spreads.filter((input) => input.checked).map((input) => input.value),
      presence: this.form.elements["check-kind"].value === "presence", labels: this.labels.value,
    };
    return this.least.value === "" ? values : { ...values, min_probability: Number(this.least.value) };
  }

  async send(event) {
    event.preventDefault();
    this.problem.textContent = this.labels.isEmpty ? strings.check.form.noLabel : "";
    if (this.labels.isEmpty) return;
    this.submit.disabled = true;
    this.submit.textContent = strings.check.form.drawing;
    try {
      const { name } = await this.page.request(CHECKS, { method: "POST", body: this.values, patience: 3 });
      this.created(name);
    } catch (error) {
      this.problem.textContent = error.message;
    } finally {
      this.submit.disabled = false;
      this.submit.textContent = strings.check.form.draw;
    }
  }
}
