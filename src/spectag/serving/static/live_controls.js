// Start, pause and stop; the microphone and its level; the threshold, the part that is shown, and the context of clips.
import { h } from "./elements.js";
import { strings } from "./strings.js";

const LOWEST_LEVEL = -60; // dB of full scale
const HOLD_MILLISECONDS = 1000;

export class LiveControls {
  // `on`: start(), pause(), stop(), device(), threshold(), span(seconds), saveAll()
  constructor(on) {
    this.on = on;
    const button = (text, act, kind = "") => h("button", { type: "button", class: `action ${kind}`, onclick: act }, text);
    this.startButton = button(strings.live.start, on.start, "primary");
    this.pauseButton = button(strings.live.pause, on.pause);
    this.stopButton = button(strings.live.stop, on.stop);
    this.saveAll = button(strings.live.saveAll, on.saveAll);
    this.device = h("select", { id: "live-device", onchange: on.device });
    this.bar = h("span", { class: "level-bar" });
    this.meter = h("div", { class: "level", role: "meter", "aria-label": strings.live.level, "aria-valuemin": LOWEST_LEVEL, "aria-valuemax": 0 }, this.bar);
    this.levelText = h("span", { class: "figure level-text" });
    this.build();
    this.loudest = 0;
  }

  build() {
    const { live } = strings;
    this.own = h("input", { type: "checkbox", id: "live-own-thresholds", checked: true, onchange: () => this.changeThreshold() });
    this.thresholdText = h("output", { for: "live-threshold", class: "figure unused" }, "0.50");
    this.threshold = h("input", { type: "range", id: "live-threshold", min: 0.02, max: 0.99, step: 0.01, value: 0.5, oninput: () => { this.own.checked = false; this.changeThreshold(); } });
    this.span = h("select", { id: "live-span", onchange: () => this.on.span(Number(this.span.value)) }, [10, 20, 60].map((seconds) => h("option", { value: seconds, selected: seconds === 20 }, live.seconds(seconds))));
    this.before = h("input", { type: "number", id: "live-before", min: 0, max: 60, step: 0.5, value: 2 });
    this.after = h("input", { type: "number", id: "live-after", min: 0, max: 60, step: 0.5, value: 2 });
    const field = (id, text, ...inputs) => h("div", { class: "field" }, h("label", { for: id }, text), ...inputs);
    this.buttons = h("div", { class: "live-bar" }, this.startButton, this.pauseButton, this.stopButton, field("live-device", live.device, this.device), this.meter, this.levelText);
    this.settings = h("div", { class: "live-settings" },
      field("live-threshold", live.threshold, this.threshold, this.thresholdText, h("label", { class: "check" }, this.own, live.ownThresholds)),
      field("live-span", live.span, this.span),
      field("live-before", live.before, this.before), field("live-after", live.after, this.after));
    this.element = h("div", { class: "live-controls" }, this.buttons, this.settings);
  }

  changeThreshold() {
    this.thresholdText.textContent = Number(this.threshold.value).toFixed(2);
    this.thresholdText.classList.toggle("unused", this.own.checked);
    this.on.threshold();
  }

  // null: the model's own ones.
  get minConfidence() { return this.own.checked ? null : Number(this.threshold.value); }

  // Seconds before and after a detection.
  get context() { return [this.before, this.after].map((input) => Math.min(60, Math.max(0, Number(input.value) || 0))); }

  setPhase(phase) {
    this.startButton.hidden = phase === "running" || phase === "paused" || phase === "failed"; // which has a button of its own
    this.startButton.disabled = phase === "loading";
    this.startButton.textContent = phase === "stopped" ? strings.live.startAgain : strings.live.start;
    this.pauseButton.hidden = this.stopButton.hidden = phase !== "running" && phase !== "paused";
    this.pauseButton.textContent = phase === "paused" ? strings.live.resume : strings.live.pause;
    this.pauseButton.setAttribute("aria-pressed", String(phase === "paused"));
    this.meter.hidden = this.levelText.hidden = phase !== "running";
  }

  setDevices(devices, chosen) {
    const names = devices.map((device, number) => h("option", { value: device.deviceId }, device.label || strings.live.unnamed(number + 1)));
    this.device.replaceChildren(...(names.length > 0 ? names : [h("option", { value: "" }, strings.live.defaultDevice)]));
    if (devices.some((device) => device.deviceId === chosen)) this.device.value = chosen;
  }

  // The level of a block, with the loudest of the last second in words.
  showLevel(block) {
    const peak = block.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
    const now = performance.now();
    if (peak >= this.loudest || now - this.loudestAt > HOLD_MILLISECONDS) { this.loudest = peak; this.loudestAt = now; }
    const decibels = Math.max(LOWEST_LEVEL, 20 * Math.log10(Math.max(peak, 1e-6)));
    this.bar.style.width = `${100 * (1 - decibels / LOWEST_LEVEL)}%`;
    this.meter.setAttribute("aria-valuenow", decibels.toFixed(0));
    this.meter.classList.toggle("clipped", this.loudest >= 0.999);
    const text = strings.live.decibels(Math.max(LOWEST_LEVEL, 20 * Math.log10(Math.max(this.loudest, 1e-6))), this.loudest >= 0.999);
    if (this.levelText.textContent !== text) this.levelText.textContent = text;
  }
}
