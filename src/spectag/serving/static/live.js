// The Live view: the microphone, its rolling spectrogram, labels as they are heard, and clips of them.
import { download } from "./blobs.js";
import { h } from "./elements.js";
import { LiveControls } from "./live_controls.js";
import { LiveDetections } from "./live_detections.js";
import { LiveList } from "./live_list.js";
import { clipArchive, clipName, SoundMemory, wavBytes } from "./live_memory.js";
import { canListen, microphones, openMicrophone } from "./live_microphone.js";
import { LivePicture } from "./live_picture.js";
import { LiveSession } from "./live_session.js";
import { LiveStream } from "./live_stream.js";
import { emptyView, failed, loading } from "./states.js";
import { strings } from "./strings.js";

const THRESHOLD_DELAY = 400; // milliseconds after the last change
const LIST_MILLISECONDS = 250;
const SILENT_SECONDS = 3;
const LEAST_PEAK = 1e-4; // below: the microphone gives nothing
const TOO_MANY = 1013; // status of a closed WebSocket

export function mount(element, page) {
  return new LiveView(element, page).interface;
}

class LiveView {
  constructor(element, page) {
    this.page = page;
    this.element = element;
    this.detections = new LiveDetections();
    this.colors = new Map();
    this.session = null;
    this.delays = [];
    this.wanted = new Set(); // detections to save when they and their context are complete
    this.controls = new LiveControls({
      start: () => this.start(), pause: () => this.togglePause(), stop: () => this.stop(), device: () => this.changeDevice(),
      threshold: () => this.changeThreshold(), span: (seconds) => { this.picture.span = seconds; }, saveAll: () => this.saveAll(),
    });
    this.picture = new LivePicture((start, end) => this.detections.all.filter((one) => one.session === this.session && one.start < end && (one.end ?? end) > start), this.colors);
    this.list = new LiveList((detection) => this.save(detection), (label) => this.picture.colorOf(label));
    this.state = h("div", { class: "live-state" });
    this.facts = h("p", { class: "facts-line" });
    this.note = h("p", { class: "problem", role: "status" });
    this.full = h("div", { class: "live-full", hidden: true }, this.note, this.picture.element, this.facts, this.list.element);
    this.list.head.append(this.controls.saveAll);
    element.append(this.state, this.controls.element, this.full);
    this.readColors();
    this.controls.setDevices([]);
    this.setPhase("empty", emptyView("live", strings.live.empty, strings.live.emptyHint));
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.listDevices());
    addEventListener("pagehide", () => this.stop());
  }

  get interface() {
    return {
      shown: () => this.picture.resize(),
      hidden: () => this.stop(),
      changed: () => this.changeModel(),
      keys: {
        space: () => (this.microphone ? this.togglePause() : this.start()),
        x: () => this.stop(), s: () => this.saveAll(),
      },
    };
  }

  readColors() {
    this.colors.clear();
    for (const { label, color } of this.page.info.labels) this.colors.set(label, color);
  }

  // "empty", "loading", "failed", "running", "paused" or "stopped", with what is shown above the rest.
  setPhase(phase, shown = null) {
    this.phase = phase;
    this.element.dataset.phase = phase;
    this.state.replaceChildren(...(shown ? [shown] : []));
    this.controls.setPhase(phase);
    this.full.hidden = !this.session;
    if (phase === "running") this.picture.run();
    else this.picture.stop();
    this.update();
  }

  fail(reason) {
    this.release();
    this.setPhase("failed", failed(strings.live.failed, reason, () => this.start()));
  }

  // The microphone.

  async start() {
    if (this.microphone || this.phase === "loading") return;
    if (!canListen()) { this.fail(strings.live.insecure); return; }
    const attempt = {};
    this.attempt = attempt;
    const isStale = () => this.attempt !== attempt;
    let microphone = null;
    this.setPhase("loading", loading(strings.live.asking));
    try {
      microphone = await openMicrophone(this.controls.device.value, { block: (block) => this.add(block), ended: () => this.fail(strings.live.unplugged) });
      if (isStale()) { microphone.close(); return; }
      this.setPhase("loading", loading(strings.live.connecting));
      const settings = await this.page.request(`/views/live/stream?sample_rate=${microphone.rate}`);
      if (isStale()) { microphone.close(); return; }
      this.begin(microphone, settings);
    } catch (error) {
      microphone?.close();
      if (!isStale()) this.fail(strings.live.reasons[error.name] ?? error.message);
    }
  }

  begin(microphone, { windows, spectrogram }) {
    this.microphone = microphone;
    this.windows = windows;
    this.step = windows.step;
    this.silentSeconds = 0;
    if (this.session?.rate !== spectrogram.sample_rate) {
      this.detections.forgetSound();
      this.session = new LiveSession(spectrogram);
      this.picture.show(this.session);
    }
    this.session.begin();
    this.listDevices();
    this.connect();
  }

  connect() {
    const { window } = this.windows;
    const parameters = { sample_rate: this.session.rate, encoding: "s16le", window, overlap: window - this.step };
    if (this.controls.minConfidence !== null) parameters.min_confidence = this.controls.minConfidence;
    this.stream?.end();
    this.detections.closeAll(this.session.seconds);
    const base = this.session.seconds;
    this.stream = new LiveStream(parameters, {
      opened: () => { if (this.phase === "loading") this.setPhase("running"); },
      event: (event) => this.take(event, base),
      closed: (status, reason) => this.lose(status, reason),
      slow: () => this.slowDown(),
    });
  }

  add(block) {
    if (!this.session || !this.stream) return;
    this.stream.send(this.session.add(block));
    this.controls.showLevel(block);
    const isSilent = block.every((sample) => Math.abs(sample) < LEAST_PEAK);
    this.silentSeconds = isSilent ? this.silentSeconds + block.length / this.session.rate : 0;
    this.updateSoon();
  }

  take(event, base) {
    this.delays = [...this.delays.slice(-19), event.latency_seconds];
    const detection = this.detections.take(event, base, this.session);
    if (detection) this.page.announce(strings.live.announced(detection.label, detection.probability));
    this.update();
  }

  // The server tags more slowly than the sound comes: it gets fewer windows.
  slowDown() {
    const step = Math.min(2 * this.step, this.windows.window);
    if (step === this.step) { this.fail(strings.live.tooSlow); return; }
    this.step = step;
    this.connect();
  }

  async lose(status, reason) {
    this.release();
    this.setPhase("loading", loading(strings.live.connecting));
    const attempt = {};
    this.attempt = attempt;
    let why = status === TOO_MANY ? strings.live.tooMany(reason) : reason;
    if (!why) why = await this.page.request("/healthz").then(() => strings.live.lost, (error) => error.message);
    if (attempt === this.attempt) this.fail(why);
  }

  async togglePause() {
    if (this.phase === "running") {
      this.stream.end();
      this.stream = null;
      this.detections.closeAll(this.session.seconds);
      this.setPhase("paused");
      await this.microphone.pause();
    } else if (this.phase === "paused") {
      this.session.begin();
      this.setPhase("loading", loading(strings.live.connecting));
      this.connect();
      await this.microphone.resume();
    }
  }

  stop() {
    if (!this.microphone && this.phase !== "loading") return;
    this.release();
    if (this.session) this.setPhase("stopped");
    else this.setPhase("empty", emptyView("live", strings.live.empty, strings.live.emptyHint));
  }

  // The microphone is free, the connection closed.
  release() {
    this.attempt = null;
    this.stream?.end();
    this.stream = null;
    this.microphone?.close();
    this.microphone = null;
    if (this.session) this.detections.closeAll(this.session.seconds);
    this.savePending();
  }

  changeDevice() {
    if (!this.microphone) return;
    this.stop();
    this.start();
  }

  changeThreshold() {
    clearTimeout(this.changing);
    this.changing = setTimeout(() => { if (this.stream) this.connect(); }, THRESHOLD_DELAY);
  }

  changeModel() {
    this.readColors();
    if (!this.microphone) return;
    this.stop();
    this.start();
  }

  async listDevices() {
    this.controls.setDevices(await microphones(), this.microphone?.deviceId ?? this.controls.device.value);
  }

  // What is shown.

  updateSoon() {
    const now = performance.now();
    if (now - (this.updatedAt ?? 0) > LIST_MILLISECONDS) this.update();
  }

  update() {
    this.updatedAt = performance.now();
    if (!this.session) return;
    this.savePending();
    this.note.textContent = this.phase === "running" && this.silentSeconds > SILENT_SECONDS ? strings.live.silent : "";
    const delays = this.delays.toSorted((a, b) => a - b);
    const delay = delays.length > 0 ? delays[delays.length >> 1] : null;
    this.facts.textContent = strings.live.facts(this.session.rate, this.windows.window, this.step, delay, SoundMemory.minutes);
    this.list.update(this.detections.all, this.session, this.phase, this.wanted);
    this.controls.saveAll.disabled = !this.detections.all.some((one) => this.hasClip(one));
  }

  // Clips.

  hasClip(detection) { return detection.end !== null && Boolean(detection.session?.keeps(detection)); }

  // The bytes of a wav file.
  clipOf(detection) {
    const { session } = detection;
    return wavBytes(session.clip(detection, ...this.controls.context), session.rate);
  }

  // At once, or as soon as the detection and the context after it are over.
  save(detection) {
    this.wanted.add(detection);
    this.update();
  }

  isComplete(detection) {
    if (!this.stream || !detection.session) return true;
    return detection.end !== null && this.session.seconds >= detection.end + this.controls.context[1];
  }

  savePending() {
    for (const detection of this.wanted) {
      if (!this.isComplete(detection)) continue;
      this.wanted.delete(detection);
      if (this.hasClip(detection)) download(new Blob([this.clipOf(detection)], { type: "audio/wav" }), this.nameOf(detection));
    }
  }

  nameOf(detection) { return clipName(detection.probability, detection.time, detection.label); }

  saveAll() {
    const files = this.detections.all.filter((one) => this.hasClip(one)).map((one) => ({ name: this.nameOf(one), bytes: this.clipOf(one) }));
    if (files.length === 0) return;
    download(clipArchive(files), strings.live.archive);
    this.page.announce(strings.live.saved(files.length));
  }
}
