// The list of sounds with their states. Failed ones have their reason.
import { h } from "./elements.js";
import { strings } from "./strings.js";

const MAX_SHOWN = 1000;

export class SoundList {
  constructor(show, remove) {
    this.on = { show, remove };
    this.items = new Map();
    this.state = h("p", { class: "hint", role: "status" });
    this.list = h("ul", { class: "sounds" });
    this.element = h("div", { class: "sound-list" }, this.state, this.list);
  }

  update(sounds, shown, tops) {
    const counts = (state) => sounds.filter((sound) => sound.state === state).length;
    this.state.textContent = sounds.length > 1 ? strings.tag.progress(counts("ready"), sounds.length, counts("failed")) : "";
    const listed = new Set(sounds.slice(0, MAX_SHOWN));
    for (const sound of this.items.keys()) if (!listed.has(sound)) this.forget(sound);
    for (const sound of listed) this.updateItem(sound, sound === shown, tops(sound));
  }

  // The focus goes to the next sound.
  forget(sound) {
    const { item } = this.items.get(sound);
    if (item.contains(document.activeElement)) (item.nextElementSibling ?? item.previousElementSibling)?.querySelector("button").focus();
    item.remove();
    this.items.delete(sound);
  }

  updateItem(sound, isShown, tops) {
    if (!this.items.has(sound)) this.add(sound);
    const { item, name, note } = this.items.get(sound);
    item.className = sound.state;
    if (isShown) name.setAttribute("aria-current", "true");
    else name.removeAttribute("aria-current");
    const text = sound.state === "failed" ? sound.reason : sound.state === "ready" ? tops : strings.tag.states[sound.state];
    if (note.textContent !== text) note.textContent = text;
  }

  add(sound) {
    const note = h("small");
    const name = h("button", { type: "button", class: "name", onclick: () => this.on.show(sound) }, h("span", {}, sound.name), note);
    const remove = h("button", { type: "button", class: "remove", "aria-label": strings.tag.remove(sound.name), title: strings.tag.remove(sound.name), onclick: () => this.on.remove(sound) }, "×");
    const item = h("li", {}, name, remove);
    this.list.append(item);
    this.items.set(sound, { item, name, note });
  }
}
