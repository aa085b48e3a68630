// The choice of labels for a new check: those of a table, the most frequent first, with a filter.
import { h } from "./elements.js";
import { loading } from "./states.js";
import { strings } from "./strings.js";

export const LABELS = "/views/check/tables/labels";

export class LabelChoice {
  constructor(request) {
    Object.assign(this, { request, query: "", boxes: [] });
    this.content = h("div", {});
    this.element = h("fieldset", { class: "label-choice-of-check", hidden: true }, h("legend", {}, strings.check.form.labels), this.content);
  }

  // Shows the labels of a table, of detections that have at least a probability; "": none is chosen.
  async show(path, least) {
    const query = new URLSearchParams({ path, min_probability: least || "0" }).toString();
    if (query === this.query) return;
    Object.assign(this, { query, boxes: [] });
    this.element.hidden = path === "";
    if (path === "") return;
    this.content.replaceChildren(loading());
    try {
      const { labels } = await this.request(`${LABELS}?${query}`, { patience: 3 });
      if (query === this.query) this.build(labels);
    } catch (error) {
      if (query === this.query) this.content.replaceChildren(h("p", { class: "problem" }, error.message));
    }
  }

  build(labels) {
    const texts = strings.check.form;
    const button = (text, checked) => h("button", { type: "button", class: "action", onclick: () => this.setShown(checked) }, text);
    this.boxes = labels.map(({ label }) => h("input", { type: "checkbox", value: label, checked: true, onchange: () => this.count() }));
    const item = ({ label, detections }, index) => h("li", {}, h("label", {}, this.boxes[index], h("span", { class: "text" }, label), h("span", { class: "figure" }, texts.detections(detections))));
    this.items = labels.map(item);
    this.filter = h("input", { type: "search", autocomplete: "off", placeholder: texts.filterLabels, "aria-label": texts.filterLabels, oninput: () => this.applyFilter(), onkeydown: ignoreEnter });
    this.status = h("output", {});
    this.content.replaceChildren(
      h("div", { class: "buttons" }, this.filter, button(texts.chooseShown, true), button(texts.leaveShown, false), this.status),
      h("ul", { class: "label-list" }, this.items));
    this.count();
  }

  applyFilter() {
    this.boxes.forEach((box, index) => { this.items[index].hidden = !matches(box.value, this.filter.value); });
  }

  setShown(checked) {
    this.boxes.forEach((box, index) => { if (!this.items[index].hidden) box.checked = checked; });
    this.count();
  }

  count() {
    this.status.textContent = strings.check.form.labelsChosen(this.chosen.length, this.boxes.length);
  }

  get chosen() { return this.boxes.filter((box) => box.checked).map((box) => box.value); }

  get isEmpty() { return this.boxes.length > 0 && this.chosen.length === 0; }

  // The chosen labels; null: all.
  get value() { return this.chosen.length < this.boxes.length ? this.chosen : null; }
}

export function matches(label, text) {
  return label.toLowerCase().includes(text.trim().toLowerCase());
}

function ignoreEnter(event) {
  if (event.key === "Enter") event.preventDefault(); // which would draw the sample
}
