// The selected clips: listen to them one after another, give them a label or take one away.
import { storedReviewer, storeReviewer } from "./browser_memory.js";
import { h, replaceContent } from "./elements.js";
import { strings } from "./strings.js";

const MAX_LISTED = 200;

export class Selection {
  // `on`: play(rows), stop(), show(row), changed() after the selection has changed, edited(clips) after labels
  // have: the clips as they are now, or null if they have to be asked for.
  constructor(page, on) {
    Object.assign(this, { page, on, rows: [], map: null });
    const button = (text, act, kind = "") => h("button", { type: "button", class: `action ${kind}`, onclick: act }, text);
    this.title = h("h2", { "aria-live": "polite" });
    this.playButton = button(strings.explore.playAll, () => (this.isPlaying ? on.stop() : on.play(this.rows)));
    this.clearButton = button(strings.explore.clear, () => this.set([]));
    this.label = h("input", { type: "text", id: "explore-label", maxlength: "200", autocomplete: "off", list: "explore-labels", onkeydown: (event) => { if (event.key === "Enter") this.edit("add"); } });
    this.names = h("datalist", { id: "explore-labels" });
    this.reviewer = h("input", { type: "text", id: "explore-reviewer", maxlength: "100", autocomplete: "name", value: storedReviewer(), oninput: () => storeReviewer(this.reviewer.value) });
    this.buttons = [button(strings.explore.add, () => this.edit("add"), "primary"), button(strings.explore.remove, () => this.edit("remove"))];
    this.undoButton = button(strings.explore.undo, () => this.undo());
    this.problem = h("p", { class: "problem", role: "alert" });
    this.done = h("p", { class: "hint", role: "status" });
    this.list = h("ul", { class: "clips", "aria-label": strings.explore.selected });
    this.more = h("p", { class: "hint" });
    this.tools = h("div", {},
      h("div", { class: "buttons" }, this.playButton, this.clearButton),
      h("div", { class: "field" }, h("label", { for: "explore-label" }, strings.explore.label), this.label, this.names),
      h("div", { class: "buttons" }, this.buttons),
      h("div", { class: "field" }, h("label", { for: "explore-reviewer" }, strings.explore.reviewer), this.reviewer));
    this.element = h("section", { class: "selection", "aria-label": strings.explore.selected }, this.title, this.tools, this.problem, this.done, this.undoButton, this.list, this.more);
    this.hasEdits = false;
    this.update();
  }

  // The answer of the server, after the map was loaded: selected clips stay selected.
  show(map) {
    const numbers = new Set(this.rows.map((row) => this.map.numbers[row]));
    this.map = map;
    this.names.replaceChildren(...map.label_names.map((name) => h("option", { value: name })));
    this.set(map.numbers.flatMap((number, row) => (numbers.has(number) ? [row] : [])));
  }

  set(rows) {
    this.rows = rows;
    this.problem.textContent = "";
    this.update();
    this.on.changed();
  }

  toggle(row) {
    this.set(this.rows.includes(row) ? this.rows.filter((one) => one !== row) : [...this.rows, row]);
  }

  setPlaying(isPlaying, row, isOneOfMany) {
    this.isPlaying = isOneOfMany;
    this.playButton.textContent = isOneOfMany ? strings.explore.stop : strings.explore.playAll;
    for (const item of this.list.children) item.classList.toggle("playing", isPlaying && Number(item.dataset.row) === row);
  }

  update() {
    const { rows } = this;
    this.title.textContent = rows.length === 0 ? strings.explore.nothingSelected : strings.explore.count(rows.length);
    this.tools.hidden = rows.length === 0;
    this.undoButton.hidden = !this.hasEdits;
    replaceContent(this.list, ...rows.slice(0, MAX_LISTED).map((row) => this.item(row)));
    this.more.textContent = rows.length > MAX_LISTED ? strings.explore.more(MAX_LISTED, rows.length) : "";
  }

  item(row) {
    const name = this.map.names[row];
    const labels = this.map.labels[row].map((label) => this.map.label_names[label]).join(", ");
    const play = h("button", { type: "button", class: "name", onclick: () => this.on.show(row) }, h("span", {}, name), h("small", {}, labels || (this.map.labelled[row] ? strings.explore.noLabel : strings.explore.notLabelled)));
    const remove = h("button", { type: "button", class: "remove", "aria-label": strings.explore.unselect(name), onclick: () => this.toggle(row) }, "×");
    return h("li", { "data-row": row }, play, remove);
  }

  async edit(action) {
    if (this.isSending) return;
    const label = this.label.value.trim();
    if (label === "") { this.problem.textContent = strings.explore.needsLabel; this.label.focus(); return; }
    const clips = this.rows.map((row) => [this.map.numbers[row], this.map.revisions[row]]);
    const text = action === "add" ? strings.explore.added(label, clips.length) : strings.explore.removed(label, clips.length);
    await this.send("/views/explore/edit", { clips, label, action, reviewer: this.reviewer.value }, text);
  }

  undo() {
    return this.send("/views/explore/undo", { reviewer: this.reviewer.value }, strings.explore.undone);
  }

  async send(path, body, text) {
    const before = this.element.querySelector(":focus-visible");
    this.isSending = true;
    for (const button of [...this.buttons, this.undoButton]) button.disabled = true;
    let problem = "", clips = null;
    try {
      ({ clips } = await this.page.request(path, { method: "POST", body }));
      this.hasEdits = true;
      this.done.textContent = text;
    } catch (error) {
      problem = error.message;
      this.done.textContent = "";
    }
    await this.on.edited(clips);
    this.problem.textContent = problem;
    for (const button of [...this.buttons, this.undoButton]) button.disabled = false;
    this.isSending = false;
    if (document.activeElement === document.body) before?.focus(); // a button loses the focus when it is disabled
  }
}
