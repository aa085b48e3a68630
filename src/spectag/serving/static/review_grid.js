// The gallery: only the cards in sight exist, however many clips there are.
import { h } from "./elements.js";
import { addressOf } from "./review_store.js";
import { strings } from "./strings.js";

const LEAST_WIDTH = 168, HEIGHT = 146; // CSS pixels of a card, with its gap
const ROWS_AROUND = 2;

export class ReviewGrid {
  // `on`: choose(number, { play, extend, toggle }), hover(number or null)
  constructor(store, on) {
    Object.assign(this, { store, on, current: null, cards: new Map() });
    this.content = h("div", { class: "review-cards" });
    this.element = h("div", { class: "review-grid", role: "listbox", tabindex: "0", "aria-multiselectable": "true", "aria-label": strings.review.clips }, this.content);
    this.element.addEventListener("scroll", () => this.redraw());
    this.element.addEventListener("click", (event) => this.onClick(event));
    this.element.addEventListener("pointerover", (event) => on.hover(numberOf(event)));
    this.element.addEventListener("pointerleave", () => on.hover(null));
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  get columns() { return Math.max(1, Math.floor(this.element.clientWidth / LEAST_WIDTH)); }
  get rowsInSight() { return Math.max(1, Math.floor(this.element.clientHeight / HEIGHT)); }

  onClick(event) {
    const number = numberOf(event);
    if (number !== null) this.on.choose(number, { play: !event.shiftKey && !event.ctrlKey && !event.metaKey, extend: event.shiftKey, toggle: event.ctrlKey || event.metaKey });
  }

  reset() {
    for (const card of this.cards.values()) card.element.remove();
    this.cards.clear();
    this.element.scrollTop = 0;
    this.draw();
  }

  setCurrent(number) {
    this.current = number;
    const index = this.store.positions?.get(number);
    if (index !== undefined) this.reveal(index);
    this.draw();
  }

  reveal(index) {
    const top = Math.floor(index / this.columns) * HEIGHT;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + HEIGHT > scrollTop + clientHeight) this.element.scrollTop = top + HEIGHT - clientHeight;
  }

  redraw() { this.frame ??= requestAnimationFrame(() => { this.frame = null; this.draw(); }); }

  draw() {
    const { numbers } = this.store;
    const { columns, element } = this;
    if (element.clientWidth === 0) return;
    this.content.style.height = `${Math.ceil(numbers.length / columns) * HEIGHT}px`;
    const first = Math.max(0, Math.floor(element.scrollTop / HEIGHT) - ROWS_AROUND) * columns;
    const end = Math.min(numbers.length, (Math.ceil((element.scrollTop + element.clientHeight) / HEIGHT) + ROWS_AROUND) * columns);
    this.store.want(first, end);
    const shown = new Set(numbers.slice(first, end));
    for (const [number, card] of this.cards) {
      if (shown.has(number)) continue;
      card.picture.removeAttribute("src"); // a picture that is still asked for is not needed any more
      card.element.remove();
      this.cards.delete(number);
    }
    const width = element.clientWidth / columns;
    for (let index = first; index < end; index += 1) this.place(numbers[index], index, columns, width);
    if (this.cards.has(this.current)) element.setAttribute("aria-activedescendant", `clip-${this.current}`);
    else element.removeAttribute("aria-activedescendant");
  }

  place(number, index, columns, width) {
    let card = this.cards.get(number);
    if (!card) {
      card = newCard(number);
      this.cards.set(number, card);
      this.content.append(card.element);
    }
    const { element } = card;
    element.style.transform = `translate(${(index % columns) * width}px, ${Math.floor(index / columns) * HEIGHT}px)`;
    element.style.width = `${width}px`;
    element.setAttribute("aria-posinset", index + 1);
    element.setAttribute("aria-setsize", this.store.numbers.length);
    element.setAttribute("aria-selected", String(this.store.selected.has(number)));
    element.classList.toggle("current", number === this.current);
    const clip = this.store.clip(number);
    if (clip && card.shown !== clip) this.fill(card, clip);
  }

  fill(card, clip) {
    card.shown = clip;
    card.element.classList.toggle("dropped", clip.is_dropped);
    card.element.classList.toggle("waiting", false);
    card.name.textContent = clip.name;
    const color = (label) => this.store.state.labels.find((one) => one.label === label)?.color ?? "var(--neutral)";
    const labels = [...clip.labels.map((label) => chip(label, color(label))), ...clip.unknown.map((label) => chip(strings.review.isUnknown(label), color(label)))];
    const none = clip.is_labelled ? strings.review.noLabel : strings.review.notLabelled;
    card.labels.replaceChildren(...(labels.length > 0 ? labels : [h("small", {}, none)]));
    card.mark.textContent = clip.is_dropped ? strings.review.droppedMark : clip.is_confirmed ? strings.review.confirmedMark : "";
    card.status.textContent = clip.is_dropped ? strings.review.dropped : clip.is_confirmed ? strings.review.confirmed : "";
  }
}

function newCard(number) {
  const picture = h("img", { src: addressOf(number, "thumbnail"), alt: "", width: "320", height: "112" });
  picture.addEventListener("error", () => picture.classList.add("failed"));
  const name = h("span", { class: "name" }), labels = h("span", { class: "labels" }), mark = h("span", { class: "mark", "aria-hidden": "true" }), status = h("span", { class: "unseen" });
  const element = h("div", { class: "review-card waiting", role: "option", id: `clip-${number}` }, h("div", { class: "inner" }, picture, mark, name, labels, status));
  element.dataset.number = number;
  return { element, picture, name, labels, mark, status, shown: null };
}

export function chip(label, color) {
  const dot = h("span", { class: "dot" });
  dot.style.setProperty("--label", color);
  return h("span", { class: "label-name" }, dot, label);
}

function numberOf(event) {
  const card = event.target.closest(".review-card");
  return card ? Number(card.dataset.number) : null;
}
