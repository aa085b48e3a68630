// The labels with their thresholds, which can be changed, and the precision and recall of each.
import { h } from "./elements.js";
import { strings } from "./strings.js";

export class ThresholdTable {
  // `changed()` is called when a threshold has changed.
  constructor(model, colors, changed) {
    this.model = model;
    this.changed = changed;
    this.changes = new Map(); // threshold by label, where it is not the model's
    this.grid = model.thresholds;
    this.scores = new Map();
    const { model: texts } = strings;
    const titles = [texts.label, texts.clipCount, texts.threshold, texts.precision, texts.recall, texts.origin];
    this.rows = model.labels.map((label) => this.row(label, colors.get(label.label)));
    this.noMatch = h("p", { class: "hint", hidden: true }, texts.noMatch);
    this.filter = h("input", { type: "search", id: "model-filter", oninput: () => this.applyFilter() });
    this.element = h("div", { class: "threshold-table" },
      h("div", { class: "field" }, h("label", { for: "model-filter" }, texts.filter), this.filter),
      h("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": texts.labels },
        h("table", {}, h("thead", {}, h("tr", {}, titles.map((title) => h("th", { scope: "col" }, title)))), h("tbody", {}, this.rows.map((row) => row.element)))),
      this.noMatch);
    for (const row of this.rows) this.show(row);
  }

  row(label, color) {
    const { model: texts } = strings;
    const name = texts.thresholdOf(label.label);
    const row = { label, precision: h("td", { "data-title": texts.precision }), recall: h("td", { "data-title": texts.recall }), origin: h("td", { "data-title": texts.origin }) };
    row.slider = h("input", { type: "range", min: 0, max: this.grid.length - 1, step: 1, "aria-label": name, oninput: () => this.set(row, this.grid[Number(row.slider.value)]) });
    row.figure = h("output", { class: "figure" });
    row.undo = h("button", { type: "button", class: "action undo", "aria-label": `${texts.undo}: ${label.label}`, onclick: () => this.undo(row) }, texts.undo);
    const dot = h("span", { class: "dot" });
    dot.style.background = color;
    row.element = h("tr", {}, h("th", { scope: "row" }, dot, label.label), h("td", { "data-title": texts.clipCount }, label.n_clips === null ? "–" : label.n_clips.toLocaleString("en")),
      h("td", { class: "threshold" }, row.slider, row.figure), row.precision, row.recall, row.origin);
    return row;
  }

  // What was counted: for each label, the detected and the right clips at each of the thresholds.
  setScores(labels) {
    this.scores = new Map(Object.entries(labels));
    for (const row of this.rows) this.show(row);
  }

  set(row, threshold) {
    this.changes.set(row.label.label, threshold);
    this.show(row);
    this.changed();
  }

  // Changes of a table of another version.
  restore(changes) {
    for (const row of this.rows) if (changes.has(row.label.label)) this.set(row, this.grid[this.closest(changes.get(row.label.label))]);
  }

  undo(row) {
    this.changes.delete(row.label.label);
    this.show(row);
    this.changed();
    row.slider.focus();
  }

  undoAll() {
    this.changes.clear();
    for (const row of this.rows) this.show(row);
    this.changed();
  }

  show(row) {
    const { label } = row;
    const changed = this.changes.get(label.label);
    const threshold = changed ?? label.threshold;
    row.figure.textContent = text(threshold);
    row.slider.setAttribute("aria-valuetext", text(threshold));
    row.slider.value = this.closest(threshold);
    const counts = this.countsOf(label, changed);
    row.precision.textContent = counts ? strings.model.ratio(counts.right, counts.detected) : strings.model.unknown;
    row.recall.textContent = counts ? strings.model.ratio(counts.right, counts.all) : strings.model.unknown;
    const kind = changed !== undefined ? "changed" : label.misses_goal ? "missed" : label.is_fitted ? "fitted" : "fixed";
    row.origin.replaceChildren(strings.model.origins[kind], ...(changed === undefined ? [] : [" ", row.undo]));
    row.element.classList.toggle("changed", changed !== undefined);
  }

  closest(threshold) {
    return this.grid.reduce((best, value, i) => (Math.abs(value - threshold) < Math.abs(this.grid[best] - threshold) ? i : best), 0);
  }

  countsOf(label, changed) {
    const scores = this.scores.get(label.label);
    if (!scores) return null;
    const at = changed === undefined ? -1 : this.grid.indexOf(changed);
    const { detected, right } = at < 0 ? scores.now : { detected: scores.detected[at], right: scores.right[at] };
    return { detected, right, all: scores.n_clips };
  }

  applyFilter() {
    const wanted = this.filter.value.trim().toLowerCase();
    let count = 0;
    for (const { label, element } of this.rows) {
      element.hidden = !label.label.toLowerCase().includes(wanted);
      count += element.hidden ? 0 : 1;
    }
    this.noMatch.hidden = count > 0;
  }
}

const text = (threshold) => String(Number(threshold.toFixed(4)));
