// Deciding: a card after another, with keys or buttons.
import { storedReviewer, storeReviewer } from "./browser_memory.js";
import { UseAsLabels } from "./check_clips.js";
import { CurvePanel } from "./check_curve.js";
import { figureWithSound } from "./check_figure.js";
import { matches } from "./check_labels.js";
import { CheckState } from "./check_state.js";
import { h } from "./elements.js";
import { chooseFolder } from "./folder_picker.js";
import { failed, loading } from "./states.js";
import { strings } from "./strings.js";

const DECISIONS = ["yes", "no", "unsure"];
const MAX_CARDS = 12; // that are kept for going back
const MAX_LABELS = 12; // without a filter
const SECONDS_TO_POLL = 3;

export class CheckWork {
  // `leave()` goes back to the list. `takeMissing()` is asked what to do if there is no such check: true if something.
  constructor(name, page, { leave, takeMissing }) {
    Object.assign(this, { name, page, takeMissing, current: -1, heard: [], decidedHere: [], answers: new Map(), figure: null, resaving: Promise.resolve(), isDeciding: false });
    this.state = new CheckState(page.request, name);
    this.back = h("button", { type: "button", class: "action", onclick: leave }, strings.check.allChecks);
    this.element = h("div", { class: "check-work" });
    this.keys = {
      y: () => this.decide("yes"), n: () => this.decide("no"), s: () => this.decide("unsure"),
      j: () => this.goOn(this.current), k: () => this.goBack(), u: () => this.undo(),
      o: () => this.other?.focus(), c: () => this.comment?.focus(), space: () => this.playOrPause(),
    };
    this.open();
  }

  async open() {
    this.element.replaceChildren(this.back, loading());
    try {
      await this.state.load();
    } catch (error) {
      if (error.status === 404 && await this.takeMissing()) return;
      this.element.replaceChildren(this.back, failed(strings.check.notOpened(this.name), error.message, () => this.open()));
      return;
    }
    if (this.isClosed) return; // people have gone back meanwhile
    this.build();
    this.timer = setInterval(() => this.poll(), 1000 * SECONDS_TO_POLL);
    this.goOn(-1);
  }

  close() {
    clearInterval(this.timer);
    this.figure?.close();
    this.isClosed = true;
  }

  get isVisible() { return !document.hidden && this.element.checkVisibility(); }

  build() {
    const { state } = this;
    this.curves = new CurvePanel(state, this.page, (label) => this.choose(label));
    this.status = h("output", { class: "progress", role: "status" });
    this.labels = h("div", { class: "kinds label-progress", role: "group", "aria-label": strings.check.labels }, [null, ...state.labels.map(({ label }) => label)].map((label) => this.labelButton(label)));
    this.done = h("section", { class: "card done", tabindex: "-1", hidden: true });
    const panel = state.presence ? h("section", { class: "curve-panel" }, h("p", { class: "hint" }, strings.check.presenceHint)) : this.curves.element;
    this.element.replaceChildren(
      h("div", { class: "check-head" }, this.back, h("h2", {}, state.name), this.status, this.downloads()),
      state.labels.length > MAX_LABELS ? this.labelFilter() : "", this.labels,
      h("div", { class: "check-columns" }, h("div", { class: "check-page" }, this.done, this.cardElement()), h("div", {}, panel, new UseAsLabels(state, this.page).element)));
  }

  downloads() {
    const link = (file, text) => h("a", { href: `${this.state.address}/${file}`, download: file }, text);
    return h("span", { class: "downloads" }, link("decisions.csv", strings.check.decisions), link("protocol.md", strings.check.protocol));
  }

  labelFilter() {
    const text = strings.check.form.filterLabels;
    const hideOthers = ({ target }) => { for (const button of this.labels.children) button.hidden = !matches(button.dataset.label, target.value); };
    return h("input", { type: "search", class: "label-filter", autocomplete: "off", placeholder: text, "aria-label": text, oninput: hideOthers });
  }

  labelButton(label) {
    const swatch = this.page.info.labels.find((each) => each.label === label);
    const dot = swatch && h("i", { class: "dot", "aria-hidden": "true" });
    if (dot) dot.style.background = swatch.color;
    const text = h("span", { class: "text" }, dot, label ?? strings.check.allLabels);
    return h("button", { type: "button", class: "action", "data-label": label ?? "", onclick: () => this.choose(label) }, text, h("span", { class: "figure" }), h("span", { class: "meter" }));
  }

  cardElement() {
    const texts = strings.check;
    this.question = h("h3", { class: "question" });
    this.facts = h("p", { class: "facts-line" });
    this.view = h("div", { class: "sound-of-card" });
    this.buttons = DECISIONS.map((decision) => h("button", { type: "button", class: "action", "data-decision": decision, onclick: () => this.decide(decision) }, texts.answers[decision], " ", h("kbd", {}, texts.answerKeys[decision])));
    const button = (text, key, action) => h("button", { type: "button", class: "action", onclick: action }, text, " ", h("kbd", {}, key));
    this.decision = h("p", { class: "decision", hidden: true });
    this.heardList = h("ul", { class: "heard", "aria-label": texts.otherLabels });
    const field = (id, attributes) => h("input", { id, autocomplete: "off", onkeydown: (event) => this.onFieldKey(event), ...attributes });
    this.other = field("check-other", { list: "check-labels", maxlength: 200, onchange: () => this.addHeard() });
    this.comment = field("check-comment", { maxlength: 2000, onchange: () => this.resave() });
    this.reviewer = field("check-reviewer", { autocomplete: "name", maxlength: 100, value: storedReviewer(), oninput: () => storeReviewer(this.reviewer.value) });
    this.autoplay = h("input", { type: "checkbox", checked: true });
    this.scores = h("input", { type: "checkbox", onchange: () => this.showFacts() });
    this.card = h("article", { class: "card review", tabindex: "-1", "aria-labelledby": "check-question" },
      this.question, this.facts, this.view,
      h("div", { class: "buttons answers" }, this.buttons, h("span", { class: "gap" }), button(texts.undo, "u", () => this.undo()), button(texts.previous, "k", () => this.goBack()), button(texts.next, "j", () => this.goOn(this.current))),
      this.decision,
      h("div", { class: "card-fields" },
        h("label", { for: "check-other" }, texts.otherLabel), h("div", {}, this.other, this.heardList),
        h("label", { for: "check-comment" }, texts.comment), this.comment,
        h("label", { for: "check-reviewer" }, texts.reviewer), this.reviewer),
      h("p", { class: "card-options" }, h("label", {}, this.autoplay, " ", texts.autoplay), h("label", {}, this.scores, " ", texts.showScores)),
      h("datalist", { id: "check-labels" }, this.state.modelLabels.map((label) => h("option", { value: label }))));
    this.question.id = "check-question";
    return this.card;
  }

  choose(label) {
    this.state.shownLabel = label;
    if (this.current >= 0 && this.state.isShown(this.current)) this.goOn(this.current, { isFromOn: true });
    else this.goOn(-1);
  }

  goOn(from, options = {}) {
    if (!this.card) return;
    const index = this.state.nextOpen(from, options);
    if (index >= 0) this.show(index);
    else this.showDone();
  }

  goBack() {
    if (!this.card) return;
    const index = this.state.previous(this.current);
    if (index >= 0) this.show(index);
  }

  async show(index) {
    this.current = index;
    this.done.hidden = true;
    this.card.hidden = false;
    const { label } = this.state.cards[index];
    this.question.textContent = strings.check.question(label);
    this.showFacts();
    this.showState();
    this.showProgress();
    this.focusCard();
    this.page.announce(strings.check.question(label));
    if (!this.state.presence) this.curves.show(label);
    await this.showSound(index);
  }

  async showSound(index) {
    this.figure?.close();
    this.figure = null;
    this.view.replaceChildren(loading());
    let answer = null;
    try {
      answer = await this.fetchCard(index);
    } catch (error) {
      if (this.current === index) this.view.replaceChildren(this.noSound(error.message, () => this.showSound(index)));
    }
    if (this.current !== index || answer === null || this.isClosed) return;
    if (answer.problem) {
      this.answers.delete(index);
      this.view.replaceChildren(this.noSound(answer.problem, () => this.showSound(index)));
      return;
    }
    this.figure = figureWithSound(answer, this.state.cards[index].facts);
    this.view.replaceChildren(this.figure.element);
    if (this.autoplay.checked && this.isVisible) this.figure.audio.play().catch(() => {}); // browsers want a click or key first
    const following = this.state.nextOpen(index);
    if (following >= 0 && following !== index) this.fetchCard(following).catch(() => {}); // it is asked for again when it is shown
  }

  fetchCard(index) {
    const { answers } = this;
    if (!answers.has(index)) {
      const answer = this.page.request(`${this.state.address}/cards/${index}`, { patience: 3 });
      answers.set(index, answer);
      answer.catch(() => answers.delete(index));
      while (answers.size > MAX_CARDS) answers.delete(answers.keys().next().value);
    }
    return answers.get(index);
  }

  noSound(reason, retry) {
    const state = failed(strings.check.noSound, reason, retry);
    state.append(h("button", { type: "button", class: "action", onclick: () => this.chooseRecordings(retry) }, strings.check.chooseRecordings));
    return state;
  }

  async chooseRecordings(retry) {
    const recordings = await chooseFolder({ title: strings.check.chooseRecordings, start: this.state.recordings || null });
    if (recordings === null) return;
    try {
      await this.page.request(`${this.state.address}/recordings`, { method: "POST", body: { recordings } });
      this.state.recordings = recordings;
      this.answers.clear();
      retry();
    } catch (error) {
      this.report(error.message, true);
    }
  }

  showDone() {
    this.current = -1;
    this.figure?.close();
    this.showProgress();
    const counts = this.state.counts();
    const label = this.state.shownLabel;
    const { nDecided, n } = counts.get(label ?? "");
    const left = counts.get("").nOpen;
    const texts = strings.check;
    this.card.hidden = true;
    this.done.hidden = false;
    this.done.replaceChildren(
      h("h3", {}, n === 0 ? texts.nothingToCheck : nDecided === n ? texts.allChecked(n, label) : texts.nothingLeft(n, nDecided, label)),
      left > 0 && h("p", {}, h("button", { type: "button", class: "action primary", onclick: () => this.choose(null) }, texts.otherLabelsLeft)) || "",
      left === 0 && n > 0 && !this.state.presence && h("p", {}, texts.finished) || "",
      nDecided > 0 && h("p", {}, h("button", { type: "button", class: "action", onclick: () => this.goBack() }, texts.lookBack)) || "");
    this.done.focus({ preventScroll: true });
    if (!this.state.presence && n > 0) this.curves.show(label ?? this.curves.label ?? this.state.labels[0].label);
  }

  showFacts() {
    if (this.current < 0) return;
    const { facts, score } = this.state.cards[this.current];
    this.facts.textContent = this.scores.checked && score ? strings.check.withScore(facts, score) : facts;
  }

  showState() {
    const { decision, reviewer, other_labels: others, comment } = this.state.states[this.current];
    this.heard = [...others];
    if (document.activeElement !== this.comment) this.comment.value = comment; // what is being typed stays
    if (document.activeElement !== this.other) this.other.value = "";
    this.showHeard();
    for (const button of this.buttons) button.setAttribute("aria-pressed", String(button.dataset.decision === decision));
    this.card.classList.toggle("decided", decision !== "");
    this.decision.hidden = decision === "";
    this.decision.textContent = decision === "" ? "" : strings.check.decided(strings.check.answers[decision], reviewer);
  }

  showHeard() {
    this.heardList.replaceChildren(...this.heard.map((label) => h("li", {}, h("button", { type: "button", class: "chip", "aria-label": strings.check.removeLabel(label), onclick: () => this.removeHeard(label) }, `${label} ×`))));
  }

  showProgress() {
    const counts = this.state.counts();
    for (const button of this.labels.children) {
      const { nOpen, n } = counts.get(button.dataset.label);
      button.querySelector(".figure").textContent = strings.check.progress(n - nOpen, n);
      button.querySelector(".meter").style.setProperty("--value", n === 0 ? "0%" : `${(100 * (n - nOpen)) / n}%`);
      button.setAttribute("aria-pressed", String(button.dataset.label === (this.state.shownLabel ?? "")));
    }
    const { nDecided, nOpen, n } = counts.get(this.state.shownLabel ?? "");
    this.report(strings.check.checked(nDecided, n, n - nDecided - nOpen));
  }

  report(text, isProblem = false) {
    this.status.textContent = text;
    this.status.classList.toggle("problem", isProblem);
  }

  focusCard() {
    if (this.isVisible && !document.querySelector("dialog[open]")) this.card.focus({ preventScroll: true });
  }

  // A name is not needed for a decision.
  valuesOf(decision) {
    const values = { reviewer: this.reviewer.value.trim() };
    return decision === "" ? values : { ...values, other_labels: [...this.heard], comment: this.comment.value.trim() };
  }

  async save(index, decision, values = this.valuesOf(decision)) {
    try {
      await this.state.save(index, decision, values);
      return true;
    } catch (error) {
      if (error.status === 409 && index === this.current) this.showState();
      this.showProgress();
      this.report(strings.check.notSaved(error.message), true);
      return false;
    }
  }

  async decide(decision) {
    if (!this.card || this.current < 0 || this.isDeciding) return; // such as a key that is pressed twice
    this.isDeciding = true;
    await this.resaving;
    const index = this.current;
    const isSaved = index >= 0 && await this.save(index, decision);
    this.isDeciding = false;
    if (!isSaved) return;
    this.decidedHere.push(index);
    this.goOn(index);
  }

  async undo() {
    if (!this.card || this.isDeciding) return;
    await this.resaving;
    if (this.state.isSaving) return;
    let index = this.current;
    if (index < 0 || !this.state.isDecided(index)) {
      index = this.decidedHere.pop() ?? -1;
      while (index >= 0 && !this.state.isDecided(index)) index = this.decidedHere.pop() ?? -1;
    }
    if (index < 0) { this.report(strings.check.nothingToUndo); return; }
    if (!(await this.save(index, ""))) return;
    if (!this.state.isShown(index)) this.state.shownLabel = null;
    this.show(index);
  }

  // Labels and comments that are added to a decision later are saved, too, one after another.
  resave() {
    const index = this.current;
    if (index < 0 || !this.state.isDecided(index)) return;
    const { decision } = this.state.states[index];
    const values = this.valuesOf(decision);
    this.resaving = this.resaving.then(async () => { if (await this.save(index, decision, values)) this.showProgress(); });
  }

  addHeard() {
    const label = this.other.value.trim();
    this.other.value = "";
    if (label === "" || label === this.state.cards[this.current].label || this.heard.includes(label)) return;
    this.heard.push(label);
    this.showHeard();
    this.resave();
  }

  removeHeard(label) {
    this.heard = this.heard.filter((other) => other !== label);
    this.showHeard();
    this.resave();
    this.focusCard();
  }

  onFieldKey(event) {
    if (event.key === "Enter" || event.key === "Escape") { event.preventDefault(); this.focusCard(); } // which saves the field
  }

  playOrPause() {
    const audio = this.figure?.audio;
    if (!audio) return;
    if (audio.paused) audio.play().catch(() => {}); // the player shows why it can't play
    else audio.pause();
  }

  // Two people who go through the same cards should not decide about the same ones.
  showOthersDecision(wasOpen) {
    const isTyping = document.activeElement?.matches("input:not([type=checkbox])");
    if (!wasOpen || isTyping || !this.state.isDecided(this.current)) { this.showState(); return; }
    this.goOn(this.current);
    this.report(strings.check.decidedByOthers);
  }

  // Others may decide, too: in another browser, or with spectag check.
  async poll() {
    if (!this.isVisible || this.state.isSaving || this.isPolling) return;
    this.isPolling = true;
    const wasOpen = this.current >= 0 && !this.state.isDecided(this.current);
    try {
      const changed = await this.state.poll();
      if (changed.length > 0 || this.isUnconnected) this.showProgress();
      this.isUnconnected = false;
      if (changed.includes(this.current)) this.showOthersDecision(wasOpen);
      if (changed.some((index) => this.state.cards[index].label === this.curves.label)) this.curves.update();
    } catch (error) {
      this.isUnconnected = true;
      this.report(strings.check.notConnected(error.message), true);
    } finally {
      this.isPolling = false;
    }
  }
}
