// The Explore view: a map of all clips, coloured by what is known about them. Listen, select, and label.
import { h } from "./elements.js";
import { ClipCards } from "./explore_cards.js";
import { colouring, MODES, timeOf } from "./explore_colors.js";
import { MapCanvas } from "./explore_map.js";
import { Selection } from "./explore_selection.js";
import { emptyView, failed, loading } from "./states.js";
import { strings } from "./strings.js";

const POLL = 1000; // milliseconds between two questions about the job that draws the map
const HOVER_DELAY = 200; // milliseconds before the spectrogram of the clip under the pointer is asked for
const N_NEAR = 20; // clips in the list of those near the focused one

export function mount(element, page) {
  return new ExploreView(element, page).interface;
}

class ExploreView {
  constructor(element, page) {
    Object.assign(this, { element, page, map: null, isShown: false, shownCard: 0, run: 0 });
    this.cards = new ClipCards(page, () => this.updatePlaying(), (problem) => { this.problem.textContent = problem; });
    this.canvas = new MapCanvas({ hover: (row, x, y) => this.hover(row, x, y), choose: (row) => this.choose(row), lasso: (rows) => this.select(rows) });
    this.selection = new Selection(page, { play: (rows) => this.playAll(rows), stop: () => this.cards.stop(), show: (row) => this.choose(row), changed: () => this.showSelection(), edited: (clips) => this.takeEdit(clips) });
    this.build();
    element.append(loading());
  }

  get interface() {
    const move = (dx, dy) => () => this.map && this.move(dx, dy);
    const zoom = (factor) => () => this.map && this.canvas.zoom(factor);
    return {
      shown: () => { this.isShown = true; this.load(); },
      hidden: () => { this.isShown = false; clearTimeout(this.timer); this.cards.stop(); },
      changed: () => { this.forget(); if (this.isShown) this.load(); },
      keys: {
        space: () => this.togglePlay(), "←": move(-1, 0), "→": move(1, 0), "↑": move(0, 1), "↓": move(0, -1),
        "+": zoom(1.5), "-": zoom(1 / 1.5), 0: () => this.canvas.fit(),
        l: () => this.lassoButton.click(), x: () => this.canvas.focused !== null && this.selection.toggle(this.canvas.focused),
        s: () => this.canvas.focused !== null && this.selectNear(), esc: () => this.selection.set([]),
      },
    };
  }

  build() {
    const button = (text, label, act) => h("button", { type: "button", class: "action", "aria-label": label, title: label, onclick: act }, text);
    this.mode = h("select", { id: "explore-mode", onchange: () => this.recolor() }, MODES.map((mode) => h("option", { value: mode }, strings.explore.modes[mode])));
    this.lassoButton = h("button", { type: "button", class: "action", "aria-pressed": "false", title: strings.explore.lassoHint, onclick: () => this.toggleLasso() }, strings.explore.lasso);
    this.bar = h("div", { class: "bar" }, h("label", { for: "explore-mode" }, strings.explore.mode), this.mode, this.lassoButton,
      button("−", strings.explore.zoomOut, () => this.canvas.zoom(1 / 1.5)), button("+", strings.explore.zoomIn, () => this.canvas.zoom(1.5)),
      button(strings.explore.fit, strings.explore.fitHint, () => this.canvas.fit()));
    this.legend = h("ul", { class: "legend", "aria-label": strings.explore.legend });
    this.note = h("p", { class: "hint" });
    this.again = h("button", { type: "button", class: "action", onclick: () => this.draw() }, strings.explore.again);
    this.tip = h("div", { class: "tip", hidden: true, "aria-hidden": "true" });
    this.stage = h("div", { class: "stage" }, this.canvas.element, this.tip);
    this.problem = h("p", { class: "problem", role: "alert" });
    this.card = h("section", { class: "clip-card", "aria-label": strings.explore.clip }, h("p", { class: "hint" }, strings.explore.chooseOne));
    this.nearList = h("ul", { class: "clips" });
    this.near = h("details", { hidden: true }, h("summary", {}, strings.explore.near(N_NEAR)), h("button", { type: "button", class: "action", onclick: () => this.selectNear() }, strings.explore.selectNear), this.nearList);
    this.side = h("div", { class: "side" }, this.problem, this.card, this.near, this.selection.element);
    this.full = h("div", { class: "workplace" }, h("div", { class: "main" }, this.bar, this.stage, this.legend, h("div", { class: "note" }, this.note, this.again)), this.side);
  }

  // The map comes from the server.

  async load() {
    clearTimeout(this.timer);
    const run = (this.run += 1);
    let answer;
    try {
      answer = await this.page.request("/views/explore/map");
      if (run !== this.run) return;
    } catch (error) {
      if (run !== this.run) return;
      if (this.map === null) this.element.replaceChildren(failed(strings.explore.failed, error.message, () => this.load()));
      else this.problem.textContent = error.message;
      return;
    }
    this.answer = answer;
    const isDrawing = ["waiting", "running"].includes(answer.job?.state);
    if (answer.map !== null) this.showMap(answer);
    else if (!isDrawing) this.showNothing(answer);
    if (isDrawing) this.follow(answer);
  }

  // The map of another version: nothing of it is shown any more.
  forget() {
    this.map = null;
    this.run += 1;
    clearTimeout(this.hoverTimer);
    this.cards.stop();
    this.element.replaceChildren(loading());
  }

  showNothing({ n_clips: count, job, problem }) {
    this.map = null;
    this.canvas.show([], []);
    this.selection.set([]);
    const start = h("button", { type: "button", class: "action primary", onclick: () => this.draw() }, strings.explore.draw);
    const reason = problem || (job?.state === "failed" ? job.problem : "");
    if (count === 0) this.element.replaceChildren(emptyView("explore", strings.explore.noClips, strings.explore.noClipsHint, this.page.info.views.includes("review") && h("a", { href: "#review" }, strings.views.review)));
    else if (reason) this.element.replaceChildren(failed(strings.explore.notDrawn, reason, () => this.draw()));
    else this.element.replaceChildren(emptyView("explore", strings.explore.notYet, strings.explore.notYetHint(count), start));
  }

  async draw() {
    this.again.disabled = true;
    this.problem.textContent = "";
    try {
      await this.page.request("/views/explore/map", { method: "POST" });
      await this.load();
    } catch (error) {
      if (this.map === null) this.element.replaceChildren(failed(strings.explore.notDrawn, error.message, () => this.draw()));
      else this.problem.textContent = error.message;
    } finally {
      this.again.disabled = false;
    }
  }

  // The job that draws the map; an older map stays meanwhile.
  async follow({ job }) {
    const { run } = this;
    try {
      const { state, progress } = await this.page.request(`/project/jobs/${job.number}`);
      if (run !== this.run) return; // the map is asked for again
      if (!["waiting", "running"].includes(state)) { await this.load(); return; }
      const text = progress?.total > 0 ? strings.jobs.counted(progress.step, progress.done, progress.total) : progress?.step || (state === "waiting" ? strings.explore.waiting : strings.explore.starting);
      if (this.map !== null) this.note.textContent = strings.explore.drawing(text);
      else this.showDrawing(job, text);
    } catch (error) {
      if (run !== this.run) return;
      this.problem.textContent = error.message;
    }
    if (this.isShown) this.timer = setTimeout(() => this.follow({ job }), POLL);
  }

  showDrawing(job, text) {
    const paragraph = this.element.querySelector(".state.drawing p");
    if (paragraph) { paragraph.textContent = strings.explore.drawing(text); return; }
    const state = loading(strings.explore.drawing(text));
    state.classList.add("drawing");
    state.append(h("a", { href: `#jobs/${job.number}` }, strings.views.jobs));
    this.element.replaceChildren(state);
  }

  showMap({ map, missing }) {
    const focused = this.map === null || this.canvas.focused === null ? null : this.map.numbers[this.canvas.focused];
    this.map = map;
    if (this.full.parentElement !== this.element) this.element.replaceChildren(this.full);
    this.labelColors = new Map(this.page.info.labels.map(({ label, color }) => [label, color]));
    this.canvas.show(map.x, map.y);
    this.recolor();
    this.selection.show(map);
    const isNew = map.n_new > 0 ? strings.explore.newClips(map.n_new) : "";
    const isSimple = map.method === "PCA" && missing !== "" ? strings.explore.simple(missing) : "";
    this.note.textContent = [strings.explore.counts(map.numbers.length, map.method), isNew, isSimple].filter(Boolean).join(" ");
    const row = focused === null ? -1 : map.numbers.indexOf(focused);
    if (row >= 0) this.focus(row);
    else this.clearCard();
  }

  // Clips with other labels: only they are changed on the map, which may have thousands of others.
  async takeEdit(clips) {
    const { map } = this;
    if (map === null) return; // another version was opened meanwhile
    const rows = new Map(map.numbers.map((number, row) => [number, row]));
    if (clips === null || clips.some((clip) => clip.dropped || !rows.has(clip.number))) { await this.load(); return; }
    const columns = new Map(map.label_names.map((name, column) => [name, column]));
    for (const clip of clips) {
      for (const name of clip.labels) if (!columns.has(name)) columns.set(name, map.label_names.push(name) - 1);
      const row = rows.get(clip.number);
      map.revisions[row] = clip.revision;
      map.labelled[row] = clip.labelled;
      map.labels[row] = clip.labels.map((name) => columns.get(name));
      map.errors[row] = clip.error ?? map.errors[row];
    }
    this.recolor();
    this.selection.show(map);
    if (this.canvas.focused !== null) this.focus(this.canvas.focused);
  }

  // Colours and the legend.

  recolor() {
    const { codes, groups } = colouring(this.mode.value, this.map, this.labelColors);
    this.canvas.highlighted = null;
    this.canvas.color({ codes, groups });
    this.legend.replaceChildren(...groups.flatMap((group, index) => (group.count > 0 ? [this.legendItem(group, index)] : [])));
  }

  legendItem({ name, color, count }, index) {
    const dot = h("span", { class: "dot", "aria-hidden": "true" });
    dot.style.background = color;
    const button = h("button", { type: "button", "aria-pressed": "false", onclick: () => this.highlight(index) }, dot, h("span", { class: "text" }, name), h("span", { class: "figure" }, count.toLocaleString("en")));
    button.dataset.group = index;
    return h("li", {}, button);
  }

  highlight(index) {
    this.canvas.highlighted = this.canvas.highlighted === index ? null : index;
    for (const button of this.legend.querySelectorAll("button")) button.setAttribute("aria-pressed", String(Number(button.dataset.group) === this.canvas.highlighted));
    this.canvas.redraw();
  }

  // One clip.

  hover(row, x, y) {
    clearTimeout(this.hoverTimer);
    this.tip.hidden = row === null;
    if (row === null) { this.tipRow = null; return; }
    const isLeft = x > this.canvas.width / 2;
    Object.assign(this.tip.style, { left: isLeft ? "" : `${x + 16}px`, right: isLeft ? `${this.canvas.width - x + 16}px` : "", top: `${Math.max(0, y - 20)}px` });
    if (row === this.tipRow) { if (!this.tip.querySelector("img")) this.hoverLater(row); return; }
    this.tipRow = row;
    this.tip.replaceChildren(h("strong", {}, this.map.names[row]), h("span", {}, this.labelsOf(row)));
    this.hoverLater(row);
  }

  hoverLater(row) {
    this.hoverTimer = setTimeout(async () => {
      try {
        const card = await this.cards.get(this.map.numbers[row]);
        if (row === this.tipRow && card.figure && !this.tip.querySelector("img")) this.tip.append(h("img", { src: card.figure.image, alt: "" }));
      } catch { /* the card of a chosen clip says why */ }
    }, HOVER_DELAY);
  }

  labelsOf(row) {
    const names = this.map.labels[row].map((label) => this.map.label_names[label]);
    return names.join(", ") || (this.map.labelled[row] ? strings.explore.noLabel : strings.explore.notLabelled);
  }

  choose(row) {
    this.focus(row);
    this.playAll([row]);
  }

  move(dx, dy) {
    const { focused } = this.canvas;
    const next = focused === null ? 0 : this.canvas.next(focused, dx, dy);
    if (next === null) return;
    this.focus(next);
    this.page.announce(strings.explore.focused(this.map.names[next], this.labelsOf(next)));
  }

  focus(row) {
    this.canvas.focus(row);
    this.showCard(row);
    this.near.hidden = false;
    this.nearRows = this.canvas.near(row, N_NEAR);
    this.nearList.replaceChildren(...this.nearRows.map((one) => h("li", { "data-row": one },
      h("button", { type: "button", class: "name", onclick: () => this.playAll([one]) }, h("span", {}, this.map.names[one]), h("small", {}, this.labelsOf(one))),
      h("button", { type: "button", class: "action", "aria-label": strings.explore.toggle(this.map.names[one]), "aria-pressed": String(this.selection.rows.includes(one)), onclick: () => this.selection.toggle(one) }, "✓"))));
  }

  clearCard() {
    this.near.hidden = true;
    this.card.replaceChildren(h("p", { class: "hint" }, strings.explore.chooseOne));
  }

  async showCard(row) {
    const number = (this.shownCard += 1);
    const time = timeOf(this.map, row);
    const [kind, label, probability] = this.map.errors[row];
    const facts = [this.map.sites[row], time && strings.explore.time(time), strings.explore.error(kind, label, probability)].filter(Boolean);
    this.playButton = h("button", { type: "button", class: "action primary", onclick: () => this.togglePlay() });
    const picture = h("div", { class: "picture", "aria-busy": "true" });
    this.card.replaceChildren(h("h2", {}, this.map.names[row]), h("p", { class: "labels" }, this.labelsOf(row)), ...facts.map((text) => h("p", { class: "hint" }, text)), picture, h("div", { class: "buttons" }, this.playButton));
    this.updatePlaying();
    try {
      const card = await this.cards.get(this.map.numbers[row]);
      if (number !== this.shownCard) return;
      picture.replaceChildren(card.figure ? h("img", { src: card.figure.image, alt: card.figure.title }) : h("p", { class: "problem" }, card.problem));
      picture.removeAttribute("aria-busy");
    } catch (error) {
      if (number === this.shownCard) picture.replaceChildren(failed(strings.explore.cardFailed, error.message, () => this.showCard(row)));
    }
  }

  // Sounds.

  async playAll(rows) {
    this.problem.textContent = "";
    const row = new Map(rows.map((one) => [this.map.numbers[one], one]));
    const started = (number) => { if (rows.length > 1) this.focus(row.get(number)); };
    const problem = await this.cards.play(rows.map((one) => this.map.numbers[one]), started);
    if (problem) this.problem.textContent = problem;
  }

  togglePlay() {
    if (this.cards.playing !== null) this.cards.stop();
    else if (this.map && this.canvas.focused !== null) this.playAll([this.canvas.focused]);
  }

  updatePlaying() {
    if (this.map === null) return;
    const row = this.map.numbers.indexOf(this.cards.playing);
    const isPlaying = this.cards.playing !== null;
    if (this.playButton) this.playButton.textContent = isPlaying ? strings.explore.stop : strings.explore.play;
    this.selection.setPlaying(isPlaying, row, this.cards.isOneOfMany);
  }

  // Many clips.

  toggleLasso() {
    const isOn = this.lassoButton.getAttribute("aria-pressed") !== "true";
    this.lassoButton.setAttribute("aria-pressed", String(isOn));
    this.canvas.setLasso(isOn);
  }

  select(rows) {
    this.selection.set(rows);
    this.page.announce(strings.explore.count(rows.length));
  }

  selectNear() {
    this.select([...new Set([...this.selection.rows, ...this.nearRows])]);
  }

  showSelection() {
    this.canvas.chosen = new Set(this.selection.rows);
    this.canvas.redraw();
    for (const item of this.nearList.children) item.lastElementChild.setAttribute("aria-pressed", String(this.canvas.chosen.has(Number(item.dataset.row))));
  }
}
