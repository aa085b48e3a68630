// A dialog to choose a folder or a file on the computer of the server, in the folders that the page may read.
import { request } from "./api.js";
import { h } from "./elements.js";
import { empty, failed, loading } from "./states.js";
import { strings } from "./strings.js";

const FOLDERS = ["folder", "project", "model"];
const MAX_SHOWN = 2000; // more make the browser slow; the filter finds the others
let lastFolder = null; // where the next dialog starts

// The path of the chosen file, or null if the dialog was closed without a choice.
// `kinds`: what can be chosen, of "sound", "table", "model" and "project" (the last two are folders).
// `start`: the folder that is shown first.
export function chooseFile({ title, kinds = ["sound"], start = null }) {
  return new FolderPicker({ title, kinds, start, takesFolder: false }).choose();
}

// The path of the chosen folder, or null. It is the folder that is shown when the button is pressed.
// `kinds`: files that are shown in it, so that people recognise the folder; they can't be chosen.
export function chooseFolder({ title, kinds = ["sound", "table"], start = null }) {
  return new FolderPicker({ title, kinds, start, takesFolder: true }).choose();
}

class FolderPicker {
  constructor({ title, kinds, start, takesFolder }) {
    Object.assign(this, { kinds, start, takesFolder, listing: null, chosen: null, request: 0 });
    this.filter = h("input", { type: "search", id: "picker-filter", autocomplete: "off", spellcheck: "false", placeholder: strings.picker.filterHint, oninput: () => this.showEntries(), onkeydown: (event) => this.onFilterKey(event) });
    this.places = h("ul", { class: "places", "aria-label": strings.picker.places });
    this.parents = h("ol", { class: "parents", "aria-label": strings.picker.parents });
    this.content = h("div", { class: "picker-content" });
    this.note = h("p", { class: "hint", role: "status" });
    this.button = h("button", { type: "button", class: "action primary", onclick: () => this.take() }, takesFolder ? strings.picker.takeFolder : strings.picker.take);
    const cancel = h("button", { type: "button", class: "action", onclick: () => this.dialog.close() }, strings.picker.cancel);
    this.dialog = h("dialog", { class: "picker", "aria-labelledby": "picker-title" },
      h("h2", { id: "picker-title" }, title),
      this.places, this.parents,
      h("div", { class: "picker-filter" }, h("label", { for: "picker-filter" }, strings.picker.filter), this.filter),
      this.content,
      h("div", { class: "picker-end" }, this.note, h("div", { class: "picker-buttons" }, cancel, this.button)));
  }

  choose() {
    document.body.append(this.dialog);
    const before = document.activeElement;
    const chosen = new Promise((resolve) => {
      this.dialog.addEventListener("close", () => {
        this.request += 1; // an answer that comes later is not shown
        this.dialog.remove();
        before?.focus?.();
        resolve(this.result ?? null);
      });
    });
    this.dialog.showModal();
    this.open(this.start ?? lastFolder);
    return chosen;
  }

  async open(path, isSecondTry = false) {
    const number = (this.request += 1);
    Object.assign(this, { listing: null, chosen: null });
    this.content.replaceChildren(loading());
    this.update();
    try {
      const listing = await request(path === null ? "/folders" : `/folders?path=${encodeURIComponent(path)}`);
      if (number !== this.request) return;
      this.show(listing);
    } catch (error) {
      if (number !== this.request) return;
      const isGone = path !== null && !isSecondTry && path === lastFolder && this.start === null;
      if (isGone) { this.open(null, true); return; } // a folder of another project, or a deleted one
      this.content.replaceChildren(failed(strings.picker.failed, error.message, () => this.open(path)));
      if (this.places.childElementCount === 0 && path !== null) this.content.firstElementChild.append(h("button", { type: "button", class: "action", onclick: () => this.open(null) }, strings.picker.first));
    }
  }

  show(listing) {
    this.listing = listing;
    lastFolder = listing.path;
    const link = ({ name, path }, isCurrent) => h("li", {}, h("button", { type: "button", "aria-current": isCurrent ? "true" : null, onclick: () => this.open(path) }, name));
    this.places.replaceChildren(...listing.places.map((place) => link(place, place.path === listing.parents[0].path)));
    this.places.hidden = listing.places.length < 2;
    this.parents.replaceChildren(...listing.parents.map((parent) => link(parent, parent.path === listing.path)));
    this.filter.value = "";
    this.showEntries();
    this.filter.focus();
  }

  get entries() {
    const wanted = this.filter.value.trim().toLowerCase();
    const shown = this.listing.entries.filter((entry) => FOLDERS.includes(entry.kind) || this.kinds.includes(entry.kind));
    return wanted === "" ? shown : shown.filter((entry) => entry.name.toLowerCase().includes(wanted));
  }

  showEntries() {
    if (this.listing === null) return;
    const entries = this.entries;
    if (!entries.includes(this.chosen)) this.chosen = null;
    if (entries.length === 0) {
      const isFiltered = this.filter.value.trim() !== "";
      this.content.replaceChildren(empty(isFiltered ? strings.picker.noMatch : strings.picker.nothing, isFiltered ? strings.picker.noMatchHint : strings.picker.nothingHint(this.kinds)));
    } else {
      const shown = entries.slice(0, MAX_SHOWN);
      this.rows = new Map(shown.map((entry) => [entry, this.row(entry)]));
      this.list = h("ul", { class: "entries", role: "listbox", tabindex: "0", "aria-label": strings.picker.entries, onkeydown: (event) => this.onListKey(event) }, ...this.rows.values());
      this.content.replaceChildren(this.list);
    }
    this.update();
  }

  row(entry) {
    const size = entry.bytes === undefined ? "" : strings.picker.size(entry.bytes);
    return h("li", { role: "option", id: `entry-${this.listing.entries.indexOf(entry)}`, class: `entry ${entry.kind}`, "aria-selected": "false", onclick: () => this.mark(entry), ondblclick: () => this.enter(entry) },
      h("span", { class: "name" }, entry.name),
      h("span", { class: "kind" }, strings.picker.kinds[entry.kind]),
      h("span", { class: "figure" }, size),
      h("span", { class: "figure" }, entry.changed === "" ? "" : strings.picker.time(new Date(entry.changed))));
  }

  mark(entry) {
    this.chosen = entry;
    this.update();
    this.rows.get(entry).scrollIntoView({ block: "nearest" });
  }

  // Opens a folder, or takes what can be chosen.
  enter(entry) {
    if (this.canTake(entry)) this.finish(entry.path);
    else if (FOLDERS.includes(entry.kind)) this.open(entry.path);
  }

  canTake(entry) { return !this.takesFolder && this.kinds.includes(entry.kind); }

  take() {
    if (this.chosen !== null && this.canTake(this.chosen)) this.finish(this.chosen.path);
    else if (this.chosen !== null && FOLDERS.includes(this.chosen.kind)) this.takesFolder ? this.finish(this.chosen.path) : this.open(this.chosen.path);
    else if (this.takesFolder && this.listing !== null) this.finish(this.listing.path);
  }

  finish(path) {
    this.result = path;
    this.dialog.close();
  }

  update() {
    const { chosen, listing } = this;
    for (const [entry, row] of this.rows ?? []) row.setAttribute("aria-selected", String(entry === chosen));
    if (chosen) this.list.setAttribute("aria-activedescendant", this.rows.get(chosen).id);
    const isFolder = chosen !== null && FOLDERS.includes(chosen.kind);
    this.button.disabled = listing === null || (this.takesFolder ? chosen !== null && !isFolder : chosen === null);
    this.button.textContent = this.takesFolder ? strings.picker.takeFolder : isFolder && !this.canTake(chosen) ? strings.picker.enter : strings.picker.take;
    this.note.textContent = listing === null ? "" : this.notes(chosen, listing);
  }

  notes(chosen, listing) {
    if (this.takesFolder) return strings.picker.willTake(chosen !== null && FOLDERS.includes(chosen.kind) ? chosen.path : listing.path);
    const isCut = !listing.complete || this.entries.length > MAX_SHOWN;
    return chosen !== null ? chosen.path : isCut ? strings.picker.cut(Math.min(MAX_SHOWN, this.entries.length)) : "";
  }

  onFilterKey(event) {
    const typed = this.filter.value.trim();
    if (event.key === "ArrowDown" && this.list?.isConnected) { event.preventDefault(); this.list.focus(); this.move(1); }
    if (event.key !== "Enter") return;
    event.preventDefault();
    if (/^(\/|[a-z]:[\\/])/i.test(typed)) this.open(typed); // a path that was pasted
    else if (this.listing !== null && this.entries.length > 0) this.enter(this.chosen ?? this.entries[0]);
  }

  onListKey(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
    const parent = this.listing.parents.at(-2);
    if (event.key in steps) this.move(steps[event.key]);
    else if (event.key === "Enter" && this.chosen) this.enter(this.chosen);
    else if (event.key === "ArrowRight" && this.chosen && FOLDERS.includes(this.chosen.kind)) this.open(this.chosen.path);
    else if ((event.key === "ArrowLeft" || event.key === "Backspace") && parent) this.open(parent.path);
    else if (event.key.length === 1 && event.key !== " " && !event.ctrlKey && !event.metaKey && !event.altKey) { this.filter.focus(); return; } // which gets the letter
    else return;
    event.preventDefault();
  }

  move(step) {
    const shown = [...this.rows.keys()];
    const position = this.chosen === null ? (step === Infinity ? step : 0) : shown.indexOf(this.chosen) + step;
    this.mark(shown[Math.min(shown.length - 1, Math.max(0, position))]);
  }
}
