// What is heard now, and what was heard: time, label, probability, duration, and a button to save the clip.
import { h, set } from "./elements.js";
import { strings } from "./strings.js";

const MAX_ROWS = 200;

const two = (number) => String(number).padStart(2, "0");
const clockText = (time) => `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;

export class LiveList {
  constructor(save, colorOf) {
    this.save = save;
    this.colorOf = colorOf;
    this.rows = new Map(); // by detection
    this.now = h("ul", { class: "live-now" });
    this.nothing = h("p", { class: "hint" });
    this.body = h("tbody");
    this.more = h("p", { class: "hint" });
    const titles = [strings.live.time, strings.live.label, strings.live.probability, strings.live.duration, strings.live.clip];
    this.table = h("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": strings.live.wasHeard },
      h("table", {}, h("thead", {}, h("tr", {}, titles.map((title) => h("th", { scope: "col" }, title)))), this.body));
    this.head = h("div", { class: "live-head" }, h("h2", {}, strings.live.wasHeard));
    this.element = h("div", { class: "live-list" }, h("h2", {}, strings.live.isHeard), this.now, this.nothing, this.head, this.table, this.more);
  }

  update(detections, session, phase, wanted) {
    const on = detections.filter((detection) => detection.end === null);
    this.updateNow(on, session);
    this.nothing.textContent = on.length > 0 ? "" : phase === "running" ? strings.live.nothingNow : strings.live.notListening;
    const shown = new Set(detections.slice(-MAX_ROWS));
    for (const [detection, row] of this.rows) if (!shown.has(detection)) { row.element.remove(); this.rows.delete(detection); }
    for (const detection of shown) this.updateRow(detection, session, wanted.has(detection));
    this.table.hidden = this.head.hidden = detections.length === 0;
    this.more.textContent = detections.length > MAX_ROWS ? strings.live.more(MAX_ROWS, detections.length) : "";
  }

  updateNow(on, session) {
    const texts = on.map((detection) => [detection, strings.live.lasting(detection.probability, session.seconds - detection.start)]);
    while (this.now.children.length > texts.length) this.now.lastChild.remove();
    while (this.now.children.length < texts.length) this.now.append(h("li", {}, h("strong"), " ", h("span")));
    texts.forEach(([{ label }, text], i) => {
      const item = this.now.children[i];
      item.style.setProperty("--label", this.colorOf(label));
      item.firstChild.textContent = label;
      item.lastChild.textContent = text;
    });
  }

  updateRow(detection, session, isWanted) {
    if (!this.rows.has(detection)) this.addRow(detection);
    const { duration, button } = this.rows.get(detection);
    const isOn = detection.end === null;
    duration.textContent = strings.live.lasted((isOn ? session.seconds : detection.end) - detection.start);
    const isKept = detection.session?.keeps(detection) ?? false;
    button.disabled = !isKept || isWanted;
    const text = isWanted ? strings.live.saving : isKept ? strings.live.save : strings.live.gone;
    if (button.textContent !== text) button.textContent = text;
  }

  addRow(detection) {
    const time = clockText(detection.time);
    const duration = h("td");
    const button = h("button", { type: "button", class: "action", onclick: () => this.save(detection) });
    set(button, { "aria-label": strings.live.saveOne(detection.label, time) });
    const label = h("td", { class: "label" }, h("span", { class: "dot" }), detection.label);
    label.style.setProperty("--label", this.colorOf(detection.label));
    const element = h("tr", {}, h("td", {}, time), label, h("td", {}, detection.probability.toFixed(3)), duration, h("td", {}, button));
    this.body.prepend(element);
    this.rows.set(detection, { element, duration, button });
  }
}
