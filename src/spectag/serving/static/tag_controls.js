// Thresholds, smoothing and shortest duration, which act at once; the contrast; and the download of tables.
import { asBase64 } from "./blobs.js";
import { h } from "./elements.js";
import { strings } from "./strings.js";

export class TagControls {
  constructor(changed, download, contrastChanged) {
    this.changed = changed;
    this.own = h("input", { type: "checkbox", id: "own-thresholds", checked: true, onchange: () => this.toggleOwn() });
    this.threshold = this.range("threshold", 0.02, 0.99, 0.01, 0.5, (value) => value.toFixed(2), () => this.useThreshold());
    this.smoothing = h("select", { id: "smoothing", onchange: changed }, h("option", { value: "" }, strings.tag.automatic), [1, 3, 5, 7, 9, 15, 21].map((size) => h("option", { value: size }, strings.tag.windows(size))));
    this.least = this.range("least", 0, 10, 0.5, 0, (value) => strings.tag.seconds(value), changed);
    this.decibels = this.range("contrast", 30, 110, 5, 80, (value) => strings.tag.decibels(value), () => contrastChanged(this.contrast));
    this.format = h("select", { id: "format", onchange: () => this.updateButtons() });
    this.template = h("input", { type: "file", id: "template", accept: ".csv", onchange: () => this.updateButtons() });
    this.templateField = h("div", { class: "field", hidden: true }, h("label", { for: "template" }, strings.tag.template), this.template);
    this.one = h("button", { type: "button", class: "action primary", onclick: () => download(this.format.value, false) }, strings.tag.download);
    this.all = h("button", { type: "button", class: "action", onclick: () => download(this.format.value, true) });
    const field = (id, text, ...inputs) => h("div", { class: "field" }, h("label", { for: id }, text), ...inputs);
    this.element = h("div", { class: "tag-controls" },
      field("threshold", strings.tag.threshold, ...this.threshold.parts, h("label", { class: "check" }, this.own, strings.tag.ownThresholds)),
      field("smoothing", strings.tag.smoothing, this.smoothing),
      field("least", strings.tag.least, ...this.least.parts),
      field("contrast", strings.tag.contrast, ...this.decibels.parts),
      field("format", strings.tag.format, this.format, this.templateField, this.one, this.all));
    this.toggleOwn(true);
    this.updateButtons();
  }

  range(id, min, max, step, value, text, changed) {
    const output = h("output", { for: id, class: "figure" }, text(value));
    const input = h("input", { type: "range", id, min, max, step, value, oninput: () => { output.textContent = text(Number(input.value)); changed(); } });
    return { input, output, parts: [input, output] };
  }

  get contrast() { return Number(this.decibels.input.value); }

  // threshold: null for the model's own ones; smoothing: null for the default.
  get values() {
    return {
      threshold: this.own.checked ? null : Number(this.threshold.input.value),
      smoothing: this.smoothing.value === "" ? null : Number(this.smoothing.value),
      minSeconds: Number(this.least.input.value),
    };
  }

  useThreshold() {
    this.own.checked = false;
    this.toggleOwn();
  }

  toggleOwn(isFirst = false) {
    this.threshold.output.classList.toggle("unused", this.own.checked);
    if (!isFirst) this.changed();
  }

  setFormats(formats) {
    this.ofOne = new Set(formats.filter((format) => format.one).map((format) => format.name));
    this.format.replaceChildren(...formats.map(({ name }) => h("option", { value: name }, strings.tag.formatName(name))));
    this.updateButtons();
  }

  setReady(count, isShownReady) {
    this.count = count;
    this.isShownReady = isShownReady;
    this.updateButtons();
  }

  // The template of a submission as it is on the disk, as base64; "" for other formats.
  async templateContent() {
    return this.format.value === "submission" ? asBase64(this.template.files[0]) : "";
  }

  // While a table comes: how far it is; null when it is there.
  setBusy(text) {
    this.busy = text;
    this.updateButtons();
  }

  updateButtons() {
    const isOfOne = Boolean(this.ofOne?.has(this.format.value));
    const needsTemplate = this.format.value === "submission";
    this.templateField.hidden = !needsTemplate;
    const isWaiting = Boolean(this.busy) || (needsTemplate && this.template.files.length === 0);
    this.one.textContent = this.busy ?? strings.tag.download;
    this.one.disabled = isWaiting || !this.isShownReady;
    this.all.hidden = !(this.count > 1);
    this.all.textContent = strings.tag.downloadAll(this.count ?? 0);
    this.all.disabled = isWaiting || isOfOne;
    this.all.title = isOfOne ? strings.tag.oneRecording : "";
  }
}
