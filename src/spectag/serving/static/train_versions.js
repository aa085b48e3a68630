// The versions of the model: what each is, whether it is better than the one it was made from, and which is in use.
import { h } from "./elements.js";
import { failed, loading } from "./states.js";
import { strings } from "./strings.js";

const texts = strings.train;

export class TrainVersions {
  constructor(page, { show, use, remove }) {
    Object.assign(this, { page, on: { show, use, remove } });
    this.body = h("tbody", {});
    const head = h("tr", {}, ...[texts.version, texts.when, texts.how, texts.scoreColumn, texts.gain, texts.actions].map((name) => h("th", { scope: "col" }, name)));
    this.title = h("h2", { id: "train-versions-title", tabindex: "-1" }, texts.versions);
    this.problem = h("p", { class: "problem", role: "alert" });
    this.element = h("section", { class: "train-versions", "aria-labelledby": "train-versions-title" }, this.title, this.problem,
      h("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": texts.versionsTable }, h("table", {}, h("caption", { class: "unseen" }, texts.versions), h("thead", {}, head), this.body)));
  }

  focus() { this.title.focus(); this.element.scrollIntoView({ block: "start" }); }

  update(state) {
    const key = JSON.stringify([state.versions, state.current]);
    if (this.key === key) return;
    this.key = key;
    this.problem.textContent = "";
    this.body.replaceChildren(...state.versions.toReversed().map((version) => this.row(version, state.current)));
  }

  row(version, current) {
    const { number } = version;
    const isCurrent = number === current;
    const button = (text, label, action) => h("button", { type: "button", class: "action", "aria-label": label, onclick: (event) => this.act(event.currentTarget, action) }, text);
    const actions = h("div", { class: "buttons" },
      button(texts.results, texts.resultsOf(number), () => this.on.show(number)),
      button(texts.card, texts.cardOf(number), () => this.showCard(number)),
      isCurrent ? null : button(texts.useShort, texts.use(number), () => this.on.use(number)),
      isCurrent ? null : button(texts.remove, texts.removeVersion(number), () => this.askToRemove(number)));
    return h("tr", { class: isCurrent ? "current" : null, "aria-current": isCurrent ? "true" : null },
      h("th", { scope: "row" }, String(number), isCurrent ? h("span", { class: "badge" }, texts.inUse) : null),
      h("td", {}, texts.time(new Date(version.created))), h("td", {}, texts.origins[version.origin] ?? version.origin, version.parent === null ? null : h("small", {}, texts.from(version.parent))),
      h("td", {}, this.score(version)), h("td", {}, this.gain(version)), h("td", {}, actions));
  }

  score({ scores, metric }) {
    if (!scores || !metric) return "–";
    const { value, low, high } = scores[metric];
    return h("span", {}, texts.scoreOf(texts.metrics[metric], value), low === null ? null : h("small", {}, texts.interval(low, high)));
  }

  gain({ comparison }) {
    if (!comparison?.differences) return "–";
    return texts.gainOf(comparison.differences[comparison.metric]);
  }

  async act(button, action) {
    this.problem.textContent = "";
    button.disabled = true;
    try {
      await action();
    } catch (error) {
      this.problem.textContent = error.message;
    } finally {
      button.disabled = false;
      if (document.activeElement === document.body) (button.isConnected ? button : this.title).focus();
    }
  }

  // Asks whether a version is really to be deleted.
  askToRemove(number) {
    return this.dialog(texts.removeVersion(number), [h("p", {}, texts.removeHint)], h("button", { type: "button", class: "action", value: "yes" }, texts.removeNow)).then((answer) => (answer === "yes" ? this.on.remove(number) : null));
  }

  async showCard(number) {
    const content = h("div", { class: "card-text" }, loading());
    const closed = this.dialog(texts.cardOf(number), [content]);
    try {
      const { card } = await this.page.request(`/views/train/versions/${number}/card`);
      content.replaceChildren(card === "" ? h("p", {}, texts.noCard) : h("pre", { tabindex: "0", "aria-label": texts.cardOf(number) }, card));
    } catch (error) {
      content.replaceChildren(failed(texts.cardFailed, error.message));
    }
    await closed;
  }

  // Shows a dialog; the promise gives the value of the button that closed it, or "".
  dialog(title, children, ...buttons) {
    const close = h("button", { type: "button", class: "action primary", value: "" }, strings.shell.close);
    const element = h("dialog", { class: "train-dialog", "aria-label": title }, h("h2", {}, title), ...children, h("div", { class: "buttons" }, ...buttons, close));
    for (const button of [...buttons, close]) button.addEventListener("click", () => element.close(button.value));
    document.body.append(element);
    const before = document.activeElement;
    element.showModal();
    return new Promise((resolve) => {
      element.addEventListener("close", () => { element.remove(); before?.focus?.(); resolve(element.returnValue); });
    });
  }
}
