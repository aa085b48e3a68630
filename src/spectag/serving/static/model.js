// The Model view: what the model is, its labels with thresholds to change, how to call it, and its card.
import { h } from "./elements.js";
import { factList, markdown } from "./model_card.js";
import { copyBox, snippetList, thresholdCommand } from "./model_snippets.js";
import { ThresholdTable } from "./model_thresholds.js";
import { failed, loading } from "./states.js";
import { strings } from "./strings.js";

export function mount(element, page) {
  const view = new ModelView(element, page);
  view.load();
  return { changed: () => view.load(), keys: { "/": () => view.table?.filter.focus() } };
}

class ModelView {
  constructor(element, page) {
    this.element = element;
    this.page = page;
  }

  async load() {
    const attempt = {};
    this.attempt = attempt;
    this.element.replaceChildren(loading(strings.model.loading));
    try {
      const model = await this.page.request("/views/model/card");
      if (attempt === this.attempt) this.show(model);
    } catch (error) {
      if (attempt === this.attempt) this.element.replaceChildren(failed(strings.model.failed, error.message, () => this.load()));
    }
  }

  show(model) {
    const { model: texts } = strings;
    this.model = model;
    const { project, version } = this.page.info;
    const colors = new Map(this.page.info.labels.map(({ label, color }) => [label, color]));
    const unsaved = this.table?.changes ?? new Map(); // stay if somebody else has opened another version
    this.table = new ThresholdTable(model, colors, () => this.showChanges());
    this.counted = h("p", { role: "status" }, strings.shell.loading);
    this.changes = h("div", { class: "changes", hidden: true });
    this.saved = h("p", { class: "saved", hidden: version !== this.savedVersion || !project }, texts.savedThresholds(version));
    const card = markdown(model.card);
    this.element.replaceChildren(
      h("h2", { class: "model-name" }, project ? texts.versionOf(project.name, version) : model.name),
      part(texts.facts, factList(model)),
      part(texts.labels, h("p", {}, model.goal ? texts.goal(model.goal) : texts.noGoal), model.windows_below && h("p", {}, texts.windows(model.windows_below)), this.counted, this.table.element, this.saved, this.changes),
      part(texts.calls, snippetList(model, location.origin, this.page.announce)),
      part(texts.card, h("div", { class: "card" }, card.length > 0 ? card : h("p", {}, texts.emptyCard))));
    this.table.restore(unsaved);
    this.loadScores();
  }

  async loadScores() {
    const { table, counted } = this;
    try {
      const scores = await this.page.request("/views/model/scores", { patience: 3 });
      table.setScores(scores.labels);
      counted.textContent = scores.n_clips > 0 ? strings.model.counted(scores.n_clips) : strings.model.unknownScores;
    } catch (error) {
      const again = h("button", { type: "button", class: "action", onclick: () => { counted.textContent = strings.shell.loading; this.loadScores(); } }, strings.shell.again);
      counted.replaceChildren(strings.model.scoresFailed(error.message), " ", again);
    }
  }

  showChanges() {
    const { model: texts } = strings;
    const { changes } = this.table;
    this.changes.hidden = changes.size === 0;
    if (changes.size === 0) return;
    this.saved.hidden = true;
    const undo = h("button", { type: "button", class: "action", onclick: () => this.table.undoAll() }, texts.undoAll);
    const title = h("p", { role: "status" }, texts.changes(changes.size));
    if (this.model.has_project) {
      this.problem = h("p", { class: "problem", role: "alert" });
      this.saveButton = h("button", { type: "button", class: "action primary", onclick: () => this.save() }, texts.save);
      this.changes.replaceChildren(title, h("div", { class: "buttons" }, this.saveButton, undo), this.problem);
    } else {
      const command = copyBox(thresholdCommand(this.model, changes), texts.command, this.page.announce);
      this.changes.replaceChildren(title, h("p", {}, texts.command), command, h("div", { class: "buttons" }, undo));
    }
  }

  async save() {
    const { model: texts } = strings;
    const { saveButton, problem } = this;
    saveButton.disabled = true;
    saveButton.textContent = texts.saving;
    problem.textContent = "";
    try {
      const body = { thresholds: Object.fromEntries(this.table.changes) };
      const { version } = await this.page.request("/views/model/thresholds", { method: "POST", body });
      this.table.changes.clear();
      this.savedVersion = version;
      await this.page.refresh(); // which loads this view again
      this.page.announce(texts.saved(version));
    } catch (error) {
      problem.textContent = texts.saveFailed(error.message);
      saveButton.disabled = false;
      saveButton.textContent = texts.save;
    }
  }
}

const part = (title, ...content) => h("section", { class: "part" }, h("h3", { class: "title" }, title), ...content);
