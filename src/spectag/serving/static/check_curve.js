// Precision against threshold of a label, drawn while decisions come in, and the thresholds of all labels.
import { store, stored } from "./browser_memory.js";
import { h, svg } from "./elements.js";
import { failed, loading } from "./states.js";
import { strings } from "./strings.js";

const WIDTH = 420;
const HEIGHT = 270;
const PLOT = { left: 46, top: 10, right: 410, bottom: 226 };
const x = (value) => PLOT.left + (PLOT.right - PLOT.left) * value;
const y = (value) => PLOT.bottom - (PLOT.bottom - PLOT.top) * value;
const point = (threshold, value) => `${x(threshold).toFixed(1)} ${y(value).toFixed(1)}`;
const CHOICES = { precision: [0.5, 0.7, 0.8, 0.9, 0.95, 0.99], confidence: [0.8, 0.9, 0.95, 0.99], width: [0.05, 0.1, 0.2, 0.3] };
const DEFAULTS = { precision: 0.9, confidence: 0.9, width: 0.1 };

// What was chosen last.
function storedGoal() {
  const chosen = (name) => CHOICES[name].find((value) => String(value) === stored(`spectag check ${name}`)) ?? DEFAULTS[name];
  return Object.fromEntries(Object.keys(CHOICES).map((name) => [name, chosen(name)]));
}

export class CurvePanel {
  // `state`: the CheckState. `goOn(label)` shows the cards of a label. `page`: that of the view.
  constructor(state, page, goOn) {
    Object.assign(this, { state, page, goOn, goal: storedGoal(), label: null, number: 0 });
    this.heading = h("h2", {});
    this.drawing = h("div", { class: "drawing-of-curve" });
    this.verdict = h("p", { class: "verdict", role: "status" });
    this.next = h("button", { type: "button", class: "action", hidden: true, onclick: () => this.goOn(this.nextLabel) });
    this.all = h("div", { class: "all-thresholds" });
    this.details = h("details", { ontoggle: () => this.showAll() }, h("summary", {}, strings.check.allThresholds), this.all);
    this.use = h("button", { type: "button", class: "action primary", onclick: () => this.makeVersion() }, strings.check.useThresholds);
    this.whyNot = h("p", { class: "hint", id: "check-why-not", hidden: true }, strings.check.otherModel);
    this.result = h("p", { class: "result", role: "status" });
    this.element = h("section", { class: "curve-panel", "aria-label": strings.check.precision }, this.heading, this.drawing, this.verdict, this.next,
      h("div", { class: "goal" }, Object.keys(CHOICES).map((name) => this.choice(name))), this.details, this.use, this.whyNot, this.result);
    this.showUse();
  }

  choice(name) {
    const options = CHOICES[name].map((value) => h("option", { value, selected: value === this.goal[name] }, strings.check.percent(value)));
    const select = h("select", { id: `goal-${name}`, onchange: (event) => this.choose(name, Number(event.target.value)) }, options);
    return h("div", { class: "field" }, h("label", { for: select.id }, strings.check.goals[name]), select);
  }

  choose(name, value) {
    this.goal[name] = value;
    store(`spectag check ${name}`, value);
    this.update();
  }

  get query() { return new URLSearchParams(this.goal); }

  // Shows a label as it is now. Decisions that come in meanwhile are waited for.
  async show(label) {
    if (label !== this.label) {
      this.label = label;
      this.heading.textContent = strings.check.precisionOf(label);
      this.found = null;
      this.drawing.replaceChildren(loading());
      this.verdict.textContent = "";
      this.next.hidden = true;
    }
    await this.update();
  }

  // Thresholds are only for labels of the model in use.
  showUse() {
    const known = new Set(this.page.info.labels.map(({ label }) => label));
    const canUse = this.state.labels.some(({ label }) => known.has(label));
    this.use.disabled = !canUse || this.isMaking === true;
    this.whyNot.hidden = canUse;
    if (canUse) this.use.removeAttribute("aria-describedby");
    else this.use.setAttribute("aria-describedby", this.whyNot.id);
  }

  async update() {
    this.showUse();
    if (this.label === null) return;
    this.needsUpdate = true;
    if (this.isUpdating) return;
    this.isUpdating = true;
    while (this.needsUpdate) {
      this.needsUpdate = false;
      await this.ask(this.label);
    }
    this.isUpdating = false;
    this.showAll();
  }

  async ask(label) {
    const query = this.query;
    query.set("label", label);
    try {
      const found = await this.page.request(`${this.state.address}/curve?${query}`, { patience: 3 });
      if (label === this.label) this.draw(found);
    } catch (error) {
      if (label !== this.label) return;
      this.found = null;
      this.drawing.replaceChildren(failed(strings.check.noCurve, error.message, () => this.update()));
      this.verdict.textContent = "";
      this.next.hidden = true;
    }
  }

  draw(found) {
    this.found = found;
    const text = verdictOf(found, this.goal);
    this.drawing.replaceChildren(curveDrawing(found, this.goal.precision, text), legend(found));
    this.verdict.textContent = text;
    this.verdict.classList.toggle("enough", found.is_enough === true);
    this.nextLabel = found.is_enough ? this.state.nextLabel(this.label) : null;
    this.next.hidden = this.nextLabel === null;
    this.next.textContent = this.nextLabel === null ? "" : strings.check.goOnWith(this.nextLabel);
  }

  async showAll() {
    if (!this.details.open) return;
    const number = (this.number += 1);
    if (this.all.childElementCount === 0) this.all.replaceChildren(loading());
    try {
      const { labels } = await this.page.request(`${this.state.address}/thresholds?${this.query}`, { patience: 3 });
      if (number === this.number) this.showRows(labels);
    } catch (error) {
      if (number !== this.number) return;
      this.rows = null;
      this.all.replaceChildren(h("p", { class: "problem" }, error.message));
    }
  }

  showRows(rows) {
    this.rows = rows;
    this.all.replaceChildren(thresholdTable(rows));
  }

  // The thresholds of the new version are shown at once: its processes take a while to start.
  takeThresholds(labels) {
    const now = new Map(labels.map(({ label, threshold }) => [label, threshold]));
    const taken = (row) => (now.has(row.label) ? { ...row, old_threshold: now.get(row.label) } : row);
    if (this.found && now.has(this.label)) this.draw({ ...this.found, old_threshold: now.get(this.label) });
    if (this.rows) this.showRows(this.rows.map(taken));
  }

  async makeVersion() {
    if (this.use.disabled) return;
    this.isMaking = true;
    this.showUse();
    this.result.classList.remove("problem");
    this.result.textContent = strings.check.makingVersion;
    try {
      const { version, labels } = await this.page.request(`${this.state.address}/version`, { method: "POST", body: this.goal });
      this.takeThresholds(labels);
      this.result.textContent = strings.check.versionMade(version, labels.length);
      await this.page.refresh();
      await this.state.poll(); // the model of this session is another one now
      await this.update();
    } catch (error) {
      this.result.classList.add("problem");
      this.result.textContent = error.message;
    } finally {
      this.isMaking = false;
      this.showUse();
    }
  }
}

function verdictOf(found, goal) {
  const texts = strings.check.verdicts;
  if (found.curve === null) return texts.nothing;
  if (found.problem === "reversed") return texts.reversed;
  if (found.problem === "too many errors") return texts.tooManyErrors(goal.precision, found.best_precision);
  if (found.problem !== "") return found.n_undecided === 0 ? texts.sampleTooSmall(goal.precision) : texts.tooFewChecks(goal.precision, found.best_precision);
  const known = texts.reached(found.threshold, found.precision, found.lower, found.upper);
  if (found.is_enough) return texts.enough(known);
  return found.n_undecided === 0 ? texts.wideAtTheEnd(known, goal.width) : texts.wide(known, goal.width, Math.min(found.n_more_checks, found.n_undecided));
}

function curveDrawing(found, goal, text) {
  const drawing = svg("svg", { class: "curve-drawing", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": text }, axes(), goalLine(goal));
  if (found.curve !== null) drawing.append(...curve(found.curve));
  if (found.old_threshold !== null) drawing.append(thresholdLine(found.old_threshold, "now"));
  if (found.curve !== null && found.problem === "") drawing.append(thresholdLine(found.threshold, "fitted"));
  return drawing;
}

function axes() {
  const values = [0, 0.2, 0.4, 0.6, 0.8, 1];
  return [
    values.map((value) => [
      svg("path", { class: "grid", d: `M${PLOT.left} ${y(value)}H${PLOT.right}` }),
      svg("text", { class: "end", x: PLOT.left - 6, y: y(value) + 4 }, strings.check.percent(value)),
      svg("path", { class: "axis", d: `M${x(value)} ${PLOT.bottom}v4` }),
      svg("text", { x: x(value), y: PLOT.bottom + 17 }, value.toFixed(1)),
    ]),
    svg("path", { class: "axis", d: `M${PLOT.left} ${PLOT.top}V${PLOT.bottom}H${PLOT.right}` }),
    svg("text", { class: "name", x: (PLOT.left + PLOT.right) / 2, y: PLOT.bottom + 36 }, strings.check.threshold),
  ];
}

function goalLine(goal) {
  return svg("path", { class: "goal-line", d: `M${PLOT.left} ${y(goal)}H${PLOT.right}` });
}

function thresholdLine(value, kind) {
  return svg("path", { class: `threshold-line ${kind}`, d: `M${x(value)} ${PLOT.top}V${PLOT.bottom}` });
}

function curve({ thresholds, precision, lower, upper }) {
  const along = (values) => thresholds.map((threshold, index) => point(threshold, values[index]));
  const band = [...along(upper), ...along(lower).reverse()].join("L");
  const parts = [svg("path", { class: "band", d: `M${band}Z` }), svg("path", { class: "line", d: `M${along(precision).join("L")}` })];
  if (thresholds.length === 1) parts.push(svg("circle", { class: "mark", cx: x(thresholds[0]), cy: y(precision[0]), r: 3.5 }));
  return parts;
}

function legend(found) {
  const hasCurve = found.curve !== null;
  const shown = { curve: hasCurve, goal: true, now: found.old_threshold !== null, fitted: hasCurve && found.problem === "" };
  const known = Object.keys(shown).filter((name) => shown[name]);
  return h("ul", { class: "line-key" }, known.map((name) => h("li", {}, h("span", { class: `key-of key-${name}`, "aria-hidden": "true" }), strings.check.legend[name](found))));
}

function thresholdText({ problem, old_threshold: before, threshold }) {
  const texts = strings.check;
  if (before === null) return problem === "" ? texts.onlyFitted(threshold) : texts.noThreshold;
  return problem === "" ? texts.change(before, threshold) : texts.same(before);
}

function thresholdTable(rows) {
  const texts = strings.check;
  const head = texts.columns.map((name) => h("th", { scope: "col" }, name));
  const body = rows.map((row) => h("tr", {},
    h("th", { scope: "row" }, row.label),
    h("td", {}, String(row.n_checked)),
    h("td", {}, thresholdText(row)),
    h("td", {}, texts.interval(row.precision, row.lower, row.upper)),
    h("td", {}, row.problem === "" ? (row.is_enough ? texts.isEnough : texts.isReached) : texts.problems[row.problem])));
  return h("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": texts.allThresholds }, h("table", { class: "checked-thresholds" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}
