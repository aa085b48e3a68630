// Elements from names, attributes and children. Strings become text, never HTML.

export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  set(element, attributes);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  set(element, attributes);
  element.append(...children.flat(Infinity));
  return element;
}

// Replaces what is in an element. A control that was reached with the keyboard keeps the focus, or hands it to the one in
// its place. After a click, keys are for the view again.
export function replaceContent(element, ...children) {
  const controls = () => [...element.querySelectorAll("button, input, select, a")];
  const before = controls();
  const index = before.findIndex((control) => control.matches(":focus-visible"));
  const name = index < 0 ? "" : nameOf(before[index]);
  element.replaceChildren(...children);
  if (index < 0 || element.contains(document.activeElement)) return;
  const after = controls();
  (after.find((control) => nameOf(control) === name) ?? after[Math.min(index, after.length - 1)])?.focus();
}

const nameOf = (control) => control.ariaLabel ?? control.textContent;

// "onclick" adds a listener; true and false add or remove an attribute; other values become its text.
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === false || value === null || value === undefined) element.removeAttribute(name);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  return element;
}
