// What a training has achieved: scores with intervals, what is better than before, and which clips changed.
import { h } from "./elements.js";
import { failed, loading } from "./states.js";
import { strings } from "./strings.js";
import { drawCurve } from "./train_curve.js";

const texts = strings.train;
const WEAKEST_SHOWN = 10;
const CLIPS_SHOWN = 30;
const METRICS = ["lwlrap", "mean_average_precision", "top1_accuracy", "f1_macro"];

export class TrainResults {
  // `use(number)` puts a version into use.
  constructor(page, use) {
    Object.assign(this, { page, use, number: null, run: 0, playing: null });
    this.audio = new Audio();
    for (const name of ["pause", "ended"]) this.audio.addEventListener(name, () => this.showPlaying(null));
    this.audio.addEventListener("error", () => { if (this.playing) this.page.announce(texts.unplayable); this.showPlaying(null); });
    this.title = h("h2", { id: "train-results-title", tabindex: "-1" });
    this.content = h("div", {});
    this.element = h("section", { class: "train-results", "aria-labelledby": "train-results-title", hidden: true }, this.title, this.content);
  }

  focus() { this.title.focus(); this.element.scrollIntoView({ block: "start" }); }
  pause() { this.audio.pause(); }

  async open(number, state) {
    const key = JSON.stringify([number, state.current, state.versions.length]);
    if (this.key === key) return;
    const run = (this.run += 1);
    this.pause();
    this.element.hidden = number === null;
    if (number === null) return;
    this.title.textContent = texts.resultsTitle(number);
    if (this.number !== number) this.content.replaceChildren(loading());
    this.number = number;
    try {
      const version = await this.page.request(`/views/train/versions/${number}`);
      if (run !== this.run) return;
      this.key = key;
      this.show(version, state);
    } catch (error) {
      if (run !== this.run) return;
      this.content.replaceChildren(failed(texts.resultsFailed, error.message, () => { this.number = null; this.open(number, state); }));
    }
  }

  show(version, state) {
    const { results } = version;
    const problem = h("p", { class: "problem", role: "alert" });
    const use = h("button", { type: "button", class: "action primary", onclick: () => this.useIt(version.number, use, problem) }, texts.use(version.number));
    const inUse = version.number === state.current ? h("p", { class: "in-use" }, texts.isInUse) : use;
    if (!results.scores) {
      this.content.replaceChildren(h("p", {}, texts.noScores), h("div", { class: "buttons" }, inUse), problem);
      return;
    }
    this.content.replaceChildren(
      h("p", { class: "sentence compared" }, this.comparison(version)),
      h("div", { class: "buttons" }, inUse), problem,
      ...this.scores(results), ...this.changed(version), ...this.labels(results), ...this.rest(results));
  }

  async useIt(number, button, problem) {
    button.disabled = true;
    button.textContent = texts.switching;
    try {
      await this.use(number);
    } catch (error) {
      problem.textContent = error.message;
      button.disabled = false;
      button.textContent = texts.use(number);
    }
  }

  // Whether it is better than its parent, in words.
  comparison({ parent, origin, results: { comparison } }) {
    if (parent === null) return texts.firstVersion;
    if (comparison === undefined && origin !== "trained" && origin !== "refitted") return texts.madeFrom(parent);
    if (!comparison) return texts.notComparable(parent);
    return texts.compared(comparison, parent);
  }

  scores({ scores, metric, folds, n_scored }) {
    const columns = [metric, ...METRICS.filter((name) => name !== metric && scores[name]?.value !== null && scores[name] !== undefined)];
    const head = h("tr", {}, h("th", { scope: "col" }, texts.heldOut), h("th", { scope: "col" }, texts.clipsColumn), ...columns.map((name) => h("th", { scope: "col" }, texts.metrics[name])));
    const rows = folds.map((fold) => h("tr", {}, h("th", { scope: "row" }, texts.fold(fold.name)), h("td", {}, String(fold.n_clips)), ...columns.map((name) => h("td", {}, score(fold[name])))));
    const all = h("tr", { class: "all" }, h("th", { scope: "row" }, texts.allHeldOut), h("td", {}, n_scored > 0 ? String(n_scored) : "–"), ...columns.map((name) => h("td", {}, score(scores[name].value), interval(scores[name]))));
    return [h("h3", {}, texts.scores), scrolls(h("table", {}, h("caption", { class: "unseen" }, texts.scores), h("thead", {}, head), h("tbody", {}, all, ...rows)), texts.scores), h("p", { class: "hint" }, n_scored > 0 ? texts.scoresHint : texts.publishedHint)];
  }

  labels({ labels }) {
    const shown = labels.filter(({ value }) => value !== null).slice(0, WEAKEST_SHOWN);
    if (shown.length < 2) return [];
    const rows = shown.map((label) => h("tr", {}, h("th", { scope: "row" }, label.label), h("td", {}, String(label.n_clips)), h("td", {}, score(label.value), interval(label))));
    const head = h("tr", {}, h("th", { scope: "col" }, strings.tag.label), h("th", { scope: "col" }, texts.clipsColumn), h("th", { scope: "col" }, texts.averagePrecision));
    return [h("h3", {}, texts.weakest), scrolls(h("table", {}, h("caption", { class: "unseen" }, texts.weakest), h("thead", {}, head), h("tbody", {}, ...rows)), texts.weakest), h("p", { class: "hint" }, texts.weakestHint(shown.length, labels.length))];
  }

  changed({ number, parent, results: { comparison } }) {
    if (!comparison) return [];
    const title = h("h3", {}, texts.changedTitle(parent));
    if (comparison.n_changed === 0) return [title, h("p", {}, texts.nothingChanged(comparison.n_clips))];
    const list = h("tbody", {});
    const rows = comparison.changed.map((clip, index) => () => this.clip(clip, number, index));
    const more = h("button", { type: "button", class: "action" }, texts.showAll(rows.length));
    const add = (first, last) => list.append(...rows.slice(first, last).map((row) => row()));
    add(0, CLIPS_SHOWN);
    more.addEventListener("click", () => { add(CLIPS_SHOWN); more.remove(); list.rows[CLIPS_SHOWN].querySelector("button")?.focus(); });
    const names = [texts.playColumn, texts.clip, texts.truth, texts.before, texts.after, texts.change];
    const head = h("tr", {}, ...names.map((name) => h("th", { scope: "col" }, name)));
    const cut = comparison.n_changed > rows.length ? h("p", { class: "hint" }, texts.cut(rows.length, comparison.n_changed)) : null;
    return [title, h("p", {}, texts.changedCount(comparison)), scrolls(h("table", { class: "clips" }, h("caption", { class: "unseen" }, texts.changedTitle(parent)), h("thead", {}, head), list), texts.changedTitle(parent)), rows.length > CLIPS_SHOWN ? more : null, cut].filter((one) => one !== null);
  }

  clip(clip, version, index) {
    const name = texts.clipName(clip.fname, clip.start_seconds, clip.end_seconds);
    const play = clip.path === null ? null : h("button", { type: "button", class: "action play", "aria-label": texts.play(name), onclick: () => this.play(play, `/views/train/versions/${version}/clips/${index}/wav`) }, "▶");
    const truth = names(clip.truth);
    const wasOther = names(clip.truth_before) !== truth;
    const change = clip.n_right > 0 ? "better" : clip.n_right < 0 ? "worse" : "other";
    return h("tr", {}, h("td", {}, play), h("td", { class: "name" }, name),
      h("td", {}, truth, wasOther ? h("small", {}, texts.was(names(clip.truth_before))) : null),
      h("td", {}, names(clip.detected_before)), h("td", {}, names(clip.detected)), h("td", { class: change }, texts.changeNames[change]));
  }

  play(button, address) {
    const isPlaying = this.playing === button;
    this.pause();
    if (isPlaying) return;
    this.audio.src = address;
    this.showPlaying(button);
    this.audio.play().catch(() => {}); // an error has its own event
  }

  showPlaying(button) {
    if (this.playing) this.playing.textContent = "▶";
    this.playing = button;
    if (button) button.textContent = "❚❚";
  }

  rest({ learning_curve: learning, metric, skipped = [], n_skipped = 0, members = [], epochs = [], seconds = null }) {
    const parts = [];
    if (learning) parts.push(h("h3", {}, texts.learningCurve), h("p", {}, texts.learning(learning, texts.metrics[metric])));
    if (members.length > 1) parts.push(h("h3", {}, texts.members), h("ul", {}, ...members.map((member) => h("li", {}, texts.member(member)))));
    if (epochs.length > 0) {
      const curve = h("figure", { class: "epoch-curve" });
      drawCurve(curve, epochs);
      parts.push(h("h3", {}, texts.epochsTitle), curve);
    }
    if (n_skipped > 0) {
      const items = skipped.map(([name, reason]) => h("li", {}, texts.skippedClip(name, reason)));
      parts.push(h("details", { class: "skipped" }, h("summary", {}, texts.skipped(n_skipped)), h("ul", {}, ...items)));
    }
    if (seconds !== null) parts.push(h("p", { class: "hint" }, texts.trainedIn(seconds)));
    return parts;
  }
}

const names = (labels) => (labels.length === 0 ? texts.none : labels.join(", "));
const score = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));
const interval = ({ low, high }) => (low === null || low === undefined ? null : h("small", {}, texts.interval(low, high)));
const scrolls = (table, name) => h("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": name }, table);
