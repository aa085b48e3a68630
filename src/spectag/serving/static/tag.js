// The Tag view: sounds in, spectrograms with detections, thresholds that act at once, tables out.
import { differentColors } from "./colors.js";
import { AUDIO, filesOf } from "./dropped_files.js";
import { h } from "./elements.js";
import { Player } from "./player.js";
import { canRecord, MicrophoneRecording } from "./recorder.js";
import { findSegments } from "./segments.js";
import { clock, Spectrogram } from "./spectrogram.js";
import { emptyView, failed, loading } from "./states.js";
import { strings } from "./strings.js";
import { SoundList } from "./sound_list.js";
import { GONE, PATIENCE, SoundQueue } from "./sound_queue.js";
import { downloadTable } from "./table_download.js";
import { TagControls } from "./tag_controls.js";
import { Tiles } from "./tiles.js";

const MAX_LANES = 30;
const MAX_ROWS = 500;
const LIST_DELAY = 150; // milliseconds after the last change of a setting

export function mount(element, page) {
  return new TagView(element, page).interface;
}

class TagView {
  constructor(element, page) {
    this.page = page;
    this.queue = new SoundQueue(page, (sound) => this.changed(sound));
    this.shown = null;
    this.detections = [];
    this.element = element;
    this.player = new Player(() => this.updatePlayer(), (seconds) => this.onMove(seconds), (error) => this.report(error?.message ?? strings.tag.unplayable));
    this.spectrogram = new Spectrogram({
      view: () => this.updateView(), seek: (seconds) => this.player.seek(seconds),
      play: (detection) => this.playDetection(detection), hover: (text) => { this.hover.textContent = text; },
    });
    this.controls = new TagControls(() => this.find(), (format, all) => this.download(format, all), (decibels) => this.setContrast(decibels));
    this.list = new SoundList((sound) => this.show(sound), (sound) => this.remove(sound));
    this.build();
    page.request("/views/tag/formats").then((formats) => this.controls.setFormats(formats), (error) => this.report(error.message));
    addEventListener("pagehide", (event) => { if (!event.persisted) this.queue.forget(); });
  }

  get interface() {
    const move = (fraction) => () => this.shown && this.spectrogram.scroll(fraction);
    const zoom = (factor) => () => this.shown && this.spectrogram.zoom(factor);
    return {
      shown: () => this.spectrogram.resize(),
      hidden: () => this.player.pause(),
      changed: () => this.queue.tagAgain(),
      keys: {
        space: () => this.shown && this.player.toggle(),
        "←": move(-0.2), "→": move(0.2), "+": zoom(0.5), "-": zoom(2), 0: () => this.spectrogram.fit(),
        n: () => this.step(1), p: () => this.step(-1), "↓": () => this.other(1), "↑": () => this.other(-1),
        e: () => this.explain(), o: () => this.fileInput.click(), del: () => this.shown && this.remove(this.shown),
      },
    };
  }

  build() {
    const choose = (input) => h("button", { type: "button", class: "action primary", onclick: () => input.click() }, strings.tag.choose);
    this.fileInput = h("input", { type: "file", multiple: true, hidden: true, "aria-label": strings.tag.choose, onchange: () => this.takeInput(this.fileInput) });
    this.folderInput = h("input", { type: "file", webkitdirectory: true, hidden: true, "aria-label": strings.tag.chooseFolder, onchange: () => this.takeInput(this.folderInput, true) });
    this.record = h("button", { type: "button", class: "action", onclick: () => this.toggleRecording(), disabled: !canRecord(), title: canRecord() ? null : strings.tag.noMicrophone }, strings.tag.record);
    const folder = h("button", { type: "button", class: "action", onclick: () => this.folderInput.click() }, strings.tag.chooseFolder);
    this.buttons = h("div", { class: "buttons" }, choose(this.fileInput), folder, this.record);
    this.hover = h("output", { class: "hover", "aria-hidden": "true" });
    this.problem = h("p", { class: "problem", role: "alert" });
    this.stage = h("div", { class: "stage" });
    this.intro = emptyView("tag", strings.tag.empty, strings.tag.emptyHint, this.page.info.views.includes("jobs") && h("p", { class: "hint" }, strings.tag.many, h("a", { href: "#jobs/new" }, strings.tag.manyLink)));
    this.element.append(this.fileInput, this.folderInput, this.intro, h("div", { class: "workplace" }, h("div", { class: "side" }, this.buttons, this.list.element), h("div", { class: "main" }, this.problem, this.stage)));
    this.buildStage();
    this.listen();
    this.update();
  }

  // Files may be dropped anywhere: beside the view, the browser would open them and leave the page.
  listen() {
    const isShown = () => this.element.checkVisibility();
    const onFiles = (name, act) => addEventListener(name, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      act(event);
    });
    onFiles("dragover", () => this.element.classList.toggle("dropping", isShown()));
    onFiles("drop", (event) => { if (isShown()) this.takeDrop(event); });
    addEventListener("dragleave", (event) => { if (!event.relatedTarget) this.element.classList.remove("dropping"); });
  }

  buildStage() {
    this.title = h("h2");
    this.facts = h("p", { class: "facts-line" });
    [this.whole, this.explanation] = [1, 2].map(() => h("p", { class: "whole" }));
    this.playButton = h("button", { type: "button", class: "action play", onclick: () => this.player.toggle() });
    this.time = h("span", { class: "figure" });
    const button = (text, label, act) => h("button", { type: "button", class: "action", "aria-label": label, title: label, onclick: act }, text);
    this.explainButton = h("button", { type: "button", class: "action", title: strings.tag.explainHint, onclick: () => this.explain() }, strings.tag.explain);
    this.bar = h("div", { class: "bar" }, this.playButton,
      button("−", strings.tag.zoomOut, () => this.spectrogram.zoom(2)), button("+", strings.tag.zoomIn, () => this.spectrogram.zoom(0.5)),
      button(strings.tag.fit, strings.tag.fitHint, () => this.spectrogram.fit()), this.explainButton, this.time, this.hover);
    this.summary = h("p", { class: "sentence", role: "status" });
    this.rows = h("tbody");
    this.more = h("p", { class: "hint" });
    const head = [strings.tag.label, strings.tag.start, strings.tag.end, strings.tag.probability].map((text) => h("th", { scope: "col" }, text));
    this.table = h("details", { class: "detections", ontoggle: () => this.showRows() }, h("summary", {}, strings.tag.list), h("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": strings.tag.list }, h("table", {}, h("thead", {}, h("tr", {}, head)), this.rows)), this.more);
    this.tagging = h("div", { class: "tagging" });
    this.settings = h("details", { open: innerWidth > 640 }, h("summary", {}, strings.tag.settings), this.controls.element);
    this.full = h("div", { class: "full" }, this.title, this.facts, this.bar, this.explanation, this.settings, this.tagging, this.summary, this.whole, this.spectrogram.element, this.table);
    this.updatePlayer();
  }

  // Sounds come in.

  takeInput(input, onlySounds = false) {
    this.take([...input.files].filter((file) => !onlySounds || AUDIO.test(file.name)));
    input.value = "";
  }

  async takeDrop(event) {
    this.element.classList.remove("dropping");
    const { files, unreadable } = await filesOf(event.dataTransfer);
    if (files.length > 0 || unreadable.length === 0) this.take(files);
    if (unreadable.length > 0) this.report(strings.tag.unreadable(unreadable));
  }

  take(files) {
    if (files.length === 0) { this.report(strings.tag.noSounds); return; }
    this.report("");
    const added = this.queue.add(files);
    this.page.announce(strings.tag.added(added.length));
    this.show(added[0]);
    this.queue.work();
  }

  async toggleRecording() {
    if (this.recording) { this.recording.stop(); return; }
    this.recording = new MicrophoneRecording(
      (seconds) => { this.record.textContent = strings.tag.stop(clock(seconds, 1)); },
      (file) => { this.take([file]); },
    );
    try {
      await this.recording.start();
      this.recording.stop = this.stopOf(this.recording);
      this.record.classList.add("recording");
      this.record.textContent = strings.tag.stop(clock(0, 1));
    } catch (error) {
      this.recording = null;
      this.report(strings.tag.microphoneFailed(error.message));
    }
  }

  // The end of a recording, which may come by itself.
  stopOf(recording) {
    const stop = recording.stop.bind(recording);
    return () => {
      stop();
      this.recording = null;
      this.record.classList.remove("recording");
      this.record.textContent = strings.tag.record;
    };
  }

  // A sound has another state.
  changed(sound) {
    this.update();
    if (sound !== this.shown) return;
    if (sound.state !== "ready" || !this.full.isConnected) { this.showStage(); return; }
    this.endExplanation();
    this.showDetections();
  }

  remove(sound) {
    const { sounds } = this.queue;
    const index = sounds.indexOf(sound);
    this.queue.remove(sound);
    if (sound === this.shown) this.show(sounds[Math.min(index, sounds.length - 1)] ?? null);
    this.update();
  }

  // What is shown.

  update() {
    this.element.classList.toggle("has-sounds", this.queue.sounds.length > 0);
    this.intro.hidden = this.queue.sounds.length > 0;
    this.list.update(this.queue.sounds, this.shown, (sound) => this.tops(sound));
    this.controls.setReady(this.queue.ready.length, this.shown?.state === "ready");
  }

  // The most probable labels, for the list; kept until a setting changes.
  tops(sound) {
    if (sound.state !== "ready") return "";
    const key = JSON.stringify(this.controls.values);
    if (sound.topsKey !== key) Object.assign(sound, { topsKey: key, tops: this.findTops(sound) });
    return sound.tops;
  }

  findTops(sound) {
    const found = this.segmentsOf(sound).map(([label, segments]) => [label.label, Math.max(...segments.map((segment) => segment.probability))]);
    return found.sort((a, b) => b[1] - a[1]).slice(0, 2).map(([label]) => label).join(" · ") || strings.tag.nothing;
  }

  report(text) { this.problem.textContent = text; }

  show(sound) {
    if (this.shown) this.shown.view = this.shown.facts && { ...this.spectrogram.view };
    this.shown = sound;
    this.report("");
    this.player.close();
    this.showStage();
    this.update();
  }

  other(step) {
    const next = this.queue.sounds[this.queue.sounds.indexOf(this.shown) + step];
    if (next) this.show(next);
  }

  showStage() {
    const sound = this.shown;
    if (!sound) { this.stage.replaceChildren(); return; }
    if (sound.state === "failed") this.stage.replaceChildren(failed(strings.tag.failed(sound.name), sound.reason, () => this.queue.retry(sound)));
    else if (!sound.facts) this.stage.replaceChildren(loading(strings.tag.sending(sound.name)));
    else this.showSpectrogram();
  }

  showSpectrogram() {
    const sound = this.shown;
    if (!this.full.isConnected) this.stage.replaceChildren(this.full); // otherwise the focus stays where it is
    this.endExplanation();
    this.title.textContent = sound.name;
    const { duration, sample_rate: rate, channels, format } = sound.facts;
    this.facts.textContent = strings.tag.facts(clock(duration), rate, channels, format);
    sound.tiles ??= this.tilesOf(sound);
    sound.tiles.setRange(this.controls.contrast);
    this.player.open(sound.file, () => this.addressOf(sound));
    this.spectrogram.show(sound.facts, sound.tiles, sound.view);
    this.spectrogram.setCursor(0, false);
    this.showDetections();
  }

  // The address of the sound as wav, when the server has made it.
  async addressOf(sound) {
    const address = () => `/views/tag/sounds/${sound.facts.id}/wav`;
    await this.queue.again(sound, () => this.page.request(address(), { method: "HEAD", as: "response", patience: PATIENCE }));
    return address();
  }

  tilesOf(sound) {
    const load = (level, index, signal) => this.queue.again(sound, () => this.page.request(`/views/tag/sounds/${sound.facts.id}/tiles/${level}/${index}`, { as: "bytes", signal, patience: PATIENCE }));
    return new Tiles(sound.facts.tiles, load, () => this.spectrogram.redraw(), (reason) => { if (sound === this.shown) this.reportTile(reason); });
  }

  reportTile(reason) {
    if (reason) this.report(strings.tag.tileFailed(reason));
    else if (this.isTileMissing) this.report("");
    this.isTileMissing = Boolean(reason);
  }

  segmentsOf(sound) {
    const { threshold, smoothing, minSeconds } = this.controls.values;
    const found = sound.labels.map((label) => [label, findSegments(sound.windows, label.values, { threshold: threshold ?? label.threshold, smoothing, minSeconds })]);
    return found.filter(([, segments]) => segments.length > 0);
  }

  // The controls have changed.
  find() {
    if (this.shown?.state === "ready") this.showDetections();
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.update(), LIST_DELAY);
  }

  showDetections() {
    const sound = this.shown;
    const isReady = sound.state === "ready";
    this.tagging.replaceChildren(...(isReady ? [] : [loading(strings.tag.tagging)]));
    for (const part of [this.summary, this.whole, this.settings, this.table]) part.hidden = !isReady;
    if (!isReady) return;
    const peak = ([, segments]) => Math.max(...segments.map((segment) => segment.probability));
    const found = this.segmentsOf(sound).sort((a, b) => peak(b) - peak(a));
    const drawn = found.slice(0, MAX_LANES), colors = differentColors(drawn.map(([label]) => label), (label) => label.color);
    const lanes = drawn.map(([label, segments]) => ({ label: label.label, color: colors.get(label), count: segments.length }));
    this.detections = drawn.flatMap(([label, segments], lane) => segments.map((segment) => ({ ...segment, label: label.label, color: colors.get(label), lane })));
    this.detections.sort((a, b) => a.start - b.start || a.lane - b.lane);
    this.spectrogram.selected = null;
    this.spectrogram.setDetections(lanes, this.detections);
    const count = found.reduce((sum, [, segments]) => sum + segments.length, 0);
    this.summary.textContent = count === 0 ? this.nothing(sound) : strings.tag.found(count, found.length, found.length - lanes.length);
    this.whole.textContent = [sound.whole && strings.tag.whole(sound.whole, this.controls.values.threshold === null), sound.notes && strings.tag.notes(sound.notes)].filter(Boolean).join(" ");
    this.count = count;
    this.showRows();
  }

  nothing(sound) {
    const tops = sound.labels.map((label) => [label.label, label.values.reduce((most, value) => Math.max(most, value), 0)]);
    tops.sort((a, b) => b[1] - a[1]);
    return tops.length > 0 ? strings.tag.none(...tops[0]) : strings.tag.noneAtAll;
  }

  showRows() {
    if (!this.table.open) return; // hundreds of rows for each step of a slider
    this.rows.replaceChildren(...this.detections.slice(0, MAX_ROWS).map((one) => {
      const play = h("button", { type: "button", class: "action", onclick: () => this.playDetection(one), "aria-label": strings.tag.playOne(one.label, clock(one.start)) }, one.label);
      play.style.setProperty("--label", one.color);
      return h("tr", {}, h("td", {}, play), h("td", {}, clock(one.start, 0.01)), h("td", {}, clock(one.end, 0.01)), h("td", {}, one.probability.toFixed(3)));
    }));
    const shown = Math.min(MAX_ROWS, this.detections.length);
    this.more.textContent = this.count > shown ? strings.tag.more(shown, this.count) : "";
  }

  updateView() {
    if (this.time) this.updateTime();
  }

  updatePlayer() {
    if (!this.playButton) return;
    this.playButton.textContent = this.player.isPlaying ? strings.tag.pause : strings.tag.play;
  }

  onMove(seconds) {
    this.spectrogram.setCursor(seconds, this.player.isPlaying);
    this.updateTime();
  }

  updateTime() {
    const { start, end } = this.spectrogram.view;
    const times = [this.player.audio.currentTime || 0, start, end];
    this.time.textContent = strings.tag.at(...times.map((seconds) => this.spectrogram.clock(seconds)));
  }

  playDetection(one) {
    if (!one) return;
    this.spectrogram.selected = one;
    this.spectrogram.reveal(one.start, one.end);
    this.spectrogram.redraw();
    this.player.play(one.start, one.end);
    this.page.announce(strings.tag.playing(one.label, clock(one.start), clock(one.end), one.probability));
  }

  step(direction) {
    if (this.detections.length === 0) return;
    const at = this.detections.indexOf(this.spectrogram.selected);
    const next = at < 0 ? (direction > 0 ? 0 : this.detections.length - 1) : at + direction;
    this.playDetection(this.detections[Math.min(this.detections.length - 1, Math.max(0, next))]);
  }

  setContrast(decibels) {
    this.shown?.tiles?.setRange(decibels);
    this.spectrogram.redraw();
  }

  async explain() {
    if (this.shown?.state !== "ready") return;
    if (this.spectrogram.map) { this.endExplanation(); return; }
    const sound = this.shown;
    const one = this.spectrogram.selected ?? this.detections.find((detection) => detection.end > this.spectrogram.view.start && detection.start < this.spectrogram.view.end);
    if (!one) { this.report(strings.tag.nothingToExplain); return; }
    const { start, end } = this.spectrogram.view;
    this.explainButton.disabled = true;
    this.explainButton.textContent = strings.tag.explaining;
    this.report("");
    try {
      const body = { label: one.label, start, end };
      const map = await this.queue.again(sound, () => this.page.request(`/views/tag/sounds/${sound.facts.id}/explanation`, { method: "POST", body, patience: PATIENCE }));
      if (sound === this.shown) this.showExplanation(map);
    } catch (error) {
      if (sound !== this.shown) return;
      this.endExplanation();
      this.report(error.message);
    }
  }

  showExplanation(map) {
    this.spectrogram.setMap(map);
    this.explainButton.disabled = false;
    this.explainButton.textContent = strings.tag.endExplanation(map.label);
    this.explanation.textContent = strings.tag.explained(map.label);
    this.page.announce(strings.tag.explained(map.label));
  }

  endExplanation() {
    this.spectrogram.setMap(null);
    this.explanation.textContent = "";
    this.explainButton.disabled = this.shown?.state !== "ready";
    this.explainButton.textContent = strings.tag.explain;
  }

  async download(format, isAll) {
    const sounds = isAll ? this.queue.ready : [this.shown];
    this.report("");
    try {
      const settings = { format, ...this.controls.values, template: await this.controls.templateContent() };
      const name = await downloadTable(this.page, this.queue, sounds, settings, (text) => this.controls.setBusy(text));
      this.page.announce(strings.tag.downloaded(name));
    } catch (error) {
      this.report(error.status === GONE && sounds.length > 1 ? strings.tag.tooMany(sounds.length) : error.message);
    }
    this.controls.setBusy(null);
  }
}
