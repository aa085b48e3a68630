// The queues and the filters of the gallery.
import { h, replaceContent } from "./elements.js";
import { strings } from "./strings.js";

const QUEUES = ["all", "suspects", "duplicates", "faults", "suggestions"];
const STATUSES = ["any", "unlabelled", "labelled", "no label", "unknown", "confirmed", "not confirmed", "dropped"];
const ORDERS = ["added", "name", "time", "probability", "novelty"];

export class ReviewFilters {
  // `changed(filter)` is called when another choice was made.
  constructor(changed) {
    this.changed = changed;
    this.queue = "all";
    this.similarTo = null;
    this.queues = h("div", { class: "queues", role: "group", "aria-label": strings.review.queuesTitle });
    this.fields = {};
    const texts = strings.review.filters;
    this.body = h("div", { class: "filter-fields" },
      this.select("status", STATUSES.map((name) => [name, strings.review.statuses[name]])), this.select("label", []), this.input("text", "search"),
      this.select("candidate", []), this.input("min_probability", "number", { min: "0", max: "1", step: "0.05" }), this.input("max_probability", "number", { min: "0", max: "1", step: "0.05" }),
      this.input("min_novelty", "number", { min: "0", step: "0.1" }), this.select("site", []),
      this.input("first_day", "date"), this.input("last_day", "date"), this.input("first_hour", "number", { min: "0", max: "23" }), this.input("last_hour", "number", { min: "0", max: "23" }),
      this.select("order", ORDERS.map((name) => [name, strings.review.orders[name]])),
      h("button", { type: "button", class: "action", onclick: () => this.clear() }, texts.clear));
    this.summary = h("summary", {}, texts.title);
    this.element = h("div", { class: "review-filters" }, this.queues, h("details", {}, this.summary, this.body));
  }

  field(name, element) {
    element.id = `filter-${name}`;
    this.fields[name] = element;
    return h("div", { class: "field" }, h("label", { for: element.id }, strings.review.filters[name]), element);
  }

  input(name, type, attributes = {}) {
    let timer = null;
    const changed = () => { clearTimeout(timer); timer = setTimeout(() => this.choose(), 250); };
    return this.field(name, h("input", { type, autocomplete: "off", ...attributes, oninput: changed }));
  }

  select(name, options) {
    const element = h("select", { onchange: () => this.choose() });
    fill(element, options);
    return this.field(name, element);
  }

  update(state) {
    const counts = { all: state.counts.n_all - state.counts.dropped, ...state.queues };
    const similar = this.queue === "similar" && h("button", { type: "button", class: "action", "aria-pressed": "true", onclick: () => this.setQueue("all") }, strings.review.queues.similar, " ×");
    replaceContent(this.queues, ...QUEUES.map((queue) => h("button", { type: "button", class: "action", "aria-pressed": String(queue === this.queue), onclick: () => this.setQueue(queue) }, `${strings.review.queues[queue]} `, h("span", { class: "figure" }, counts[queue].toLocaleString("en")))), ...(similar ? [similar] : []));
    const labels = state.labels.filter(({ own }) => own).map(({ label, clips }) => [label, `${label} (${clips})`]);
    fill(this.fields.label, [["", strings.review.filters.anyLabel], ...labels]);
    fill(this.fields.candidate, [["", strings.review.filters.noCandidate], ...state.labels.map(({ label }) => [label, label])]);
    fill(this.fields.site, [["", strings.review.filters.anySite], ...state.sites.map(({ site, n }) => [site, `${site} (${n})`])]);
    const show = (name, isShown) => { this.fields[name].closest(".field").hidden = !isShown; };
    show("site", state.sites.length > 0);
    for (const name of ["first_day", "last_day", "first_hour", "last_hour"]) show(name, Boolean(state.counts.first));
    show("min_novelty", Boolean(state.predictions?.novelty));
    for (const name of ["candidate", "min_probability", "max_probability"]) show(name, state.predictions !== null);
  }

  setQueue(queue, similarTo = null) {
    Object.assign(this, { queue, similarTo });
    this.choose();
  }

  clear() {
    for (const element of Object.values(this.fields)) element.value = element.options?.[0]?.value ?? "";
    this.choose();
  }

  // What the server needs; fields that were left empty do not matter.
  get filter() {
    const filter = { queue: this.queue };
    if (this.similarTo !== null) filter.similar_to = this.similarTo;
    for (const [name, element] of Object.entries(this.fields)) {
      if (element.value === "" || element.closest(".field").hidden || !element.checkValidity()) continue;
      filter[name] = element.type === "number" ? Number(element.value) : element.value;
    }
    return filter;
  }

  choose() {
    const used = Object.entries(this.filter).filter(([name, value]) => !["queue", "similar_to", "order"].includes(name) && !(name === "status" && value === "any"));
    this.summary.textContent = used.length > 0 ? strings.review.filters.used(used.length) : strings.review.filters.title;
    this.changed(this.filter);
  }
}

// Only with other options: a list that is open would close.
function fill(select, options) {
  const { value } = select;
  const key = JSON.stringify(options);
  if (select.dataset.options === key) return;
  select.dataset.options = key;
  select.replaceChildren(...options.map(([name, text]) => h("option", { value: name }, text)));
  if (options.some(([name]) => name === value)) select.value = value;
}
