// The chosen clip: its spectrogram and sound, its labels, and what the model says about it.
import { h, replaceContent } from "./elements.js";
import { chip } from "./review_grid.js";
import { RangeSpectrogram } from "./review_range.js";
import { addressOf } from "./review_store.js";
import { clock } from "./spectrogram.js";
import { failed, loading } from "./states.js";
import { strings } from "./strings.js";
import { Tiles } from "./tiles.js";

const LABEL_ISSUES = ["swapped label", "wrong label", "missing label"];

export class ClipPanel {
  // `on`: edit(change, numbers), part(start, end), similar(clip), history(clip), go(number), label(name, isUnknown)
  constructor(store, player, on) {
    Object.assign(this, { store, player, on, clip: null, facts: null });
    this.spectrogram = new RangeSpectrogram({
      view: () => {}, play: () => {}, hover: (text) => { this.hover.textContent = text; },
      seek: (seconds) => this.player.play(this.clip, seconds, this.clip.end), range: () => this.showRange(),
    });
    this.title = h("h2", {});
    this.about = h("p", { class: "facts-line" });
    this.hover = h("span", { class: "hover", "aria-hidden": "true" });
    this.playButton = h("button", { type: "button", class: "action play", onclick: () => this.toggle() }, strings.review.play);
    this.markButton = h("button", { type: "button", class: "action", "aria-pressed": "false", "aria-describedby": "review-mark-hint", onclick: () => this.toggleMarking() }, strings.review.mark);
    this.markHint = h("p", { class: "hint", id: "review-mark-hint", hidden: true }, strings.review.markHint);
    this.partButton = h("button", { type: "button", class: "action primary", hidden: true, onclick: () => this.makePart() }, "");
    this.state = h("div", { class: "clip-state" });
    this.sound = h("div", {}, this.spectrogram.element, h("div", { class: "bar" }, this.playButton, this.markButton, this.partButton, this.hover), this.markHint);
    this.labels = h("div", { class: "clip-labels" });
    this.model = h("div", { class: "clip-model" });
    this.field = h("input", { type: "text", id: "review-label", list: "review-labels", autocomplete: "off", maxlength: "200", placeholder: strings.review.addLabelHint, "aria-describedby": "review-label-keys", onkeydown: (event) => this.onLabelKey(event) });
    this.options = h("datalist", { id: "review-labels" });
    this.comment = h("textarea", { id: "review-comment", rows: "2", maxlength: "10000", onchange: () => this.saveComment() });
    this.confirmButton = h("button", { type: "button", class: "action primary", onclick: () => on.edit({ confirmed: !this.clip.is_confirmed }) });
    this.dropButton = h("button", { type: "button", class: "action", onclick: () => on.edit({ dropped: !this.clip.is_dropped }) });
    const more = [[strings.review.similar, () => on.similar(this.clip)], [strings.review.clipHistory, () => on.history(this.clip)]];
    this.buttons = h("div", { class: "buttons" }, this.confirmButton, this.dropButton, ...more.map(([text, onclick]) => h("button", { type: "button", class: "action", onclick }, text)));
    this.full = h("div", {}, this.title, this.about, this.model, this.state, this.sound, this.labels,
      h("div", { class: "field" }, h("label", { for: "review-label" }, strings.review.addLabel), this.field, this.options, h("p", { class: "hint label-keys", id: "review-label-keys" }, strings.review.labelKeys)), this.buttons,
      h("div", { class: "field" }, h("label", { for: "review-comment" }, strings.review.comment), this.comment));
    this.element = h("div", { class: "review-clip", role: "region", "aria-label": strings.review.chosen }, h("p", { class: "hint" }, strings.review.chooseHint));
  }

  get limits() { return { start: this.clip.start, end: this.clip.end ?? this.facts?.duration ?? null }; }

  show(clip) {
    const isOther = clip.number !== this.clip?.number;
    this.clip = clip;
    if (!this.full.isConnected) this.element.replaceChildren(this.full); // what has the focus keeps it
    this.title.textContent = clip.name;
    const facts = [clip.site && strings.review.site(clip.site), clip.recorded && strings.review.recorded(clip.recorded), clip.fold && strings.review.fold(clip.fold), clip.group && strings.review.group(clip.group)];
    this.about.textContent = facts.filter(Boolean).join(" · ");
    this.confirmButton.textContent = clip.is_confirmed ? strings.review.unconfirm : strings.review.confirm;
    this.dropButton.textContent = clip.is_dropped ? strings.review.bringBack : strings.review.drop;
    if (isOther || document.activeElement !== this.comment) this.comment.value = clip.comment;
    this.showLabels();
    this.showModel();
    if (isOther) {
      this.field.value = "";
      this.element.scrollTop = 0; // where a suggestion is
      this.opened = this.open();
    }
  }

  async open() {
    const { clip } = this;
    this.facts = null;
    this.sound.hidden = true;
    this.state.replaceChildren(loading(strings.review.opening));
    try {
      const facts = await this.store.ask(`clips/${clip.number}/facts`);
      if (clip.number !== this.clip.number) return;
      this.state.replaceChildren();
      if (facts.image) { this.state.replaceChildren(h("img", { src: addressOf(clip.number, "thumbnail"), alt: strings.review.pictureOf(clip.name) })); return; }
      this.facts = facts;
      this.sound.hidden = false;
      this.showSpectrogram(clip, facts);
    } catch (error) {
      if (clip.number === this.clip.number) this.state.replaceChildren(failed(strings.review.soundFailed, error.message, () => this.open()));
    }
  }

  showSpectrogram(clip, facts) {
    const load = (level, index, signal) => this.store.request(addressOf(clip.number, `tiles/${facts.sample_rate}/${level}/${index}`), { as: "bytes", signal, patience: 5 });
    const tiles = new Tiles(facts.tiles, load, () => this.spectrogram.redraw(), (reason) => { this.hover.textContent = reason; });
    const end = clip.end ?? facts.duration;
    const isPart = clip.start > 0 || clip.end !== null;
    const around = isPart ? 0.1 * (end - clip.start) : 0;
    this.spectrogram.own = isPart ? { start: clip.start, end } : null;
    this.spectrogram.show(facts, tiles, { start: Math.max(0, clip.start - around), end: Math.min(facts.duration, end + around) });
    this.spectrogram.setOwn(this.spectrogram.own);
    this.spectrogram.setCursor(clip.start, false);
  }

  // Labels of the clip, then those that the model finds likely, then the usual ones with their keys.
  showLabels() {
    const { clip, store } = this;
    const color = (label) => store.state.labels.find((one) => one.label === label)?.color ?? "var(--neutral)";
    const own = clip.labels.map((label) => this.ownLabel(label, color(label), false));
    const unknown = clip.unknown.map((label) => this.ownLabel(label, color(label), true));
    const none = h("span", { class: "hint" }, clip.is_labelled ? strings.review.noLabel : strings.review.notLabelled);
    const likely = (clip.model?.probabilities ?? []).map(({ label, probability }) => this.offered(label, color(label), probability.toFixed(2)));
    const usual = store.keyLabels.map((label, index) => this.offered(label, color(label), null, String(index + 1)));
    const given = own.length + unknown.length > 0 ? [...own, ...unknown] : [none];
    const groups = [[strings.review.labels, given], [strings.review.likely, likely], [strings.review.usual, usual]].filter(([, chips]) => chips.length > 0);
    replaceContent(this.labels, ...groups.flatMap(([title, chips]) => [h("h3", {}, title), h("div", { class: "chips" }, ...chips)]));
    this.options.replaceChildren(...store.state.labels.map(({ label }) => h("option", { value: label })));
  }

  ownLabel(label, color, isUnknown) {
    const { edit } = this.on;
    const change = isUnknown
      ? h("button", { type: "button", title: strings.review.isTrue(label), "aria-label": strings.review.isTrue(label), onclick: () => edit({ add: [label] }) }, "✓")
      : h("button", { type: "button", title: strings.review.toUnknown(label), "aria-label": strings.review.toUnknown(label), onclick: () => edit({ mark_unknown: [label] }) }, "?");
    const remove = h("button", { type: "button", title: strings.review.remove(label), "aria-label": strings.review.remove(label), onclick: () => edit({ remove: [label] }) }, "×");
    return h("span", { class: `own-label${isUnknown ? " unknown" : ""}` }, chip(isUnknown ? strings.review.isUnknown(label) : label, color), change, remove);
  }

  offered(label, color, figure, key = null) {
    const has = this.clip.labels.includes(label);
    return h("button", { type: "button", class: "action label-button", "aria-pressed": String(has), onclick: () => this.on.label(label) },
      key && h("kbd", {}, key), chip(label, color), figure && h("span", { class: "figure" }, figure));
  }

  get suggestion() {
    const { model } = this.clip;
    if (!model) return null;
    if (model.proposed && !this.clip.is_labelled) return model.proposed;
    const isOpen = LABEL_ISSUES.includes(model.kind) && !this.clip.is_confirmed && JSON.stringify(model.seen_labels) === JSON.stringify(this.clip.labels);
    return isOpen ? model.suggested : null;
  }

  showModel() {
    const { clip } = this;
    const { model } = clip;
    const parts = [];
    const { suggestion } = this;
    if (suggestion !== null) {
      const text = model.why && !clip.is_labelled ? strings.review.why(model.why) : strings.review.issue(model.kind, model.label, model.certainty);
      const button = h("button", { type: "button", class: "action primary", onclick: () => this.on.accept() }, h("kbd", {}, "a"), ` ${strings.review.accept(suggestion)}`);
      parts.push(h("div", { class: "suggestion" }, h("p", {}, text), button));
    }
    if (model?.original && !clip.is_dropped) parts.push(this.comparison(model.original));
    const notes = [model?.note && !model.original && strings.review.note(model.note), model?.novelty !== null && model?.novelty !== undefined && strings.review.novelty(model.novelty)].filter(Boolean);
    if (notes.length > 0) parts.push(h("p", { class: "hint" }, notes.join(" ")));
    this.model.replaceChildren(...parts);
  }

  // The clip and the one that it is a copy of, side by side.
  comparison(number) {
    const box = h("div", { class: "comparison", role: "group", "aria-label": strings.review.sameRecording }, h("p", { class: "sentence" }, strings.review.sameRecording));
    const pair = h("div", { class: "pair" });
    box.append(pair);
    const { clip } = this;
    this.store.known(number).then((original) => {
      if (!original || this.clip.number !== clip.number) return;
      pair.replaceChildren(...[[clip, strings.review.thisClip], [original, strings.review.otherClip]].map(([one, title]) => this.side(one, title)));
      const note = clip.model.note ? [h("p", { class: "hint" }, strings.review.note(clip.model.note))] : [];
      box.append(...note, h("button", { type: "button", class: "action", onclick: () => this.on.edit({ confirmed: true }) }, strings.review.keepBoth));
    }, (error) => { pair.replaceChildren(h("p", { class: "problem" }, error.message)); });
    return box;
  }

  side(clip, title) {
    const labels = clip.labels.length > 0 ? clip.labels.join(", ") : strings.review.noLabel;
    const action = (text, onclick, name) => h("button", { type: "button", class: "action", "aria-label": `${text}: ${name}`, onclick }, text);
    return h("div", { class: "side" }, h("b", {}, title), h("span", { class: "name" }, clip.name), h("img", { src: addressOf(clip.number, "thumbnail"), alt: strings.review.pictureOf(clip.name), width: "320", height: "112" }), h("span", { class: "hint" }, labels),
      h("div", { class: "buttons" }, action(strings.review.play, () => this.player.toggle(clip), clip.name), action(strings.review.drop, () => this.on.edit({ dropped: true }, [clip.number]), clip.name)));
  }

  toggle() {
    if (!this.facts) return;
    const { range } = this.spectrogram;
    const { start, end } = range ?? this.limits;
    this.player.toggle(this.clip, start, end);
  }

  showPlaying() {
    const isPlaying = this.clip !== null && this.player.isPlayingClip(this.clip);
    this.playButton.textContent = isPlaying ? strings.review.pause : strings.review.play;
  }

  moved(seconds) {
    if (this.facts && this.player.clip?.number === this.clip?.number) this.spectrogram.setCursor(seconds, true);
  }

  toggleMarking() {
    this.spectrogram.isMarking = !this.spectrogram.isMarking;
    this.markButton.setAttribute("aria-pressed", String(this.spectrogram.isMarking));
    this.markHint.hidden = !this.spectrogram.isMarking;
  }

  showRange() {
    const { range } = this.spectrogram;
    this.partButton.hidden = range === null;
    if (range !== null) this.partButton.textContent = strings.review.makePart(clock(range.start, 0.01), clock(range.end, 0.01));
  }

  setEnd(name) {
    if (!this.facts) return;
    this.spectrogram.setEnd(name, this.spectrogram.cursorSeconds ?? this.clip.start);
  }

  makePart() {
    const { range } = this.spectrogram;
    if (range !== null) this.on.part(range.start, range.end);
  }

  onLabelKey(event) {
    if (event.key === "Escape") { this.field.blur(); return; }
    if (event.key !== "Enter" || this.field.value.trim() === "") return;
    event.preventDefault();
    this.on.label(this.field.value.trim(), true);
    this.field.value = "";
  }

  // The field of labels, in view also when the spectrogram above it has been drawn.
  async focusLabel() {
    this.field.focus();
    await this.opened;
    if (document.activeElement === this.field) this.field.parentElement.scrollIntoView({ block: "nearest" });
  }

  saveComment() {
    if (this.comment.value !== this.clip.comment) this.on.edit({ comment: this.comment.value }, [this.clip.number]);
  }
}
