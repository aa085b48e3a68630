// The states of a view that has nothing to show yet.
import { h } from "./elements.js";
import { strings } from "./strings.js";

export function loading(text = strings.shell.loading) {
  return h("div", { class: "state", "aria-busy": "true" }, h("span", { class: "spinner", "aria-hidden": "true" }), h("p", {}, text));
}

export function failed(title, reason, retry = null) {
  const again = retry && h("button", { type: "button", class: "action primary", onclick: retry }, strings.shell.again);
  return h("div", { class: "state failed", role: "alert" }, h("h2", {}, title), h("p", {}, reason), again);
}

// That of a whole view, with what the view is for.
export function emptyView(name, title, text, ...more) {
  const element = empty(title, text, ...more);
  element.firstElementChild.after(h("p", { class: "hint" }, `${strings.viewHints[name]}.`));
  return element;
}

export function empty(title, text, ...more) {
  return h("div", { class: "state empty" }, h("h2", {}, title), h("p", {}, text), ...more);
}
