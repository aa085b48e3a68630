// The dialogs of the Review view: adding clips, conflicts with others, the history, and the key for unknown labels.
import { h } from "./elements.js";
import { chooseFile, chooseFolder } from "./folder_picker.js";
import { failed, loading } from "./states.js";
import { strings } from "./strings.js";

// What people choose to import: a path, or a file that was dropped. `done(answer)` when it is imported.
export class ImportForm {
  constructor(store, done) {
    Object.assign(this, { store, done, path: null, file: null, audioDir: null });
    this.chosen = h("p", { class: "chosen-path" });
    this.sounds = h("p", { class: "chosen-path" });
    this.empty = h("input", { type: "checkbox", id: "review-empty" });
    this.name = h("input", { type: "text", id: "review-name", maxlength: "100", autocomplete: "name", value: store.reviewer === "page" ? "" : store.reviewer });
    this.problem = h("div", { "aria-live": "polite" });
    this.button = h("button", { type: "submit", class: "action primary", disabled: true }, strings.review.importNow);
    const button = (text, onclick, isMain = false) => h("button", { type: "button", class: `action${isMain ? " primary" : ""}`, onclick }, text);
    this.element = h("form", { class: "import-form", onsubmit: (event) => this.submit(event) },
      h("div", { class: "buttons" }, button(strings.review.chooseTable, () => this.choose("table"), true), button(strings.review.chooseFolder, () => this.choose("folder"))),
      h("p", { class: "hint" }, strings.review.dropTable), this.chosen,
      h("div", { class: "buttons" }, button(strings.review.chooseSounds, () => this.chooseSounds())), this.sounds,
      h("p", { class: "check" }, this.empty, h("label", { for: "review-empty" }, strings.review.emptyIsUnlabelled)),
      h("p", { class: "field" }, h("label", { for: "review-name" }, strings.review.yourName), this.name),
      this.button, this.problem);
  }

  async choose(kind) {
    const path = kind === "table" ? await chooseFile({ title: strings.review.chooseTable, kinds: ["table"] }) : await chooseFolder({ title: strings.review.chooseFolder });
    if (path !== null) this.take({ path, file: null });
  }

  async chooseSounds() {
    const path = await chooseFolder({ title: strings.review.chooseSounds, kinds: ["sound"] });
    if (path === null) return;
    this.audioDir = path;
    this.sounds.textContent = strings.review.soundsIn(path);
  }

  take({ path, file }) {
    Object.assign(this, { path, file });
    this.chosen.textContent = path ?? file.name;
    this.button.disabled = false;
    this.problem.replaceChildren();
    this.button.focus();
  }

  async submit(event) {
    event?.preventDefault();
    if (this.name.value.trim() !== "") this.store.reviewer = this.name.value;
    this.button.disabled = true;
    this.problem.replaceChildren(loading(strings.review.importing));
    try {
      this.done(await this.send());
      this.problem.replaceChildren();
    } catch (error) {
      this.problem.replaceChildren(failed(strings.review.importFailed, error.message, () => this.submit()));
    }
    this.button.disabled = false;
  }

  send() {
    const settings = { empty_is_unlabelled: this.empty.checked, reviewer: this.store.reviewer };
    if (this.path !== null) return this.store.ask("import", { path: this.path, audio_dir: this.audioDir, ...settings });
    const query = new URLSearchParams({ name: this.file.name, ...settings });
    if (this.audioDir !== null) query.set("audio_dir", this.audioDir);
    return this.store.request(`/views/review/table?${query}`, { method: "POST", body: new Blob([this.file], { type: "application/octet-stream" }), headers: { "content-type": "application/octet-stream" } });
  }
}

export function showDialog(title, ...content) {
  const close = h("button", { type: "button", class: "action", onclick: () => dialog.close() }, strings.shell.close);
  const dialog = h("dialog", { class: "review-dialog", "aria-labelledby": "review-dialog-title" }, h("h2", { id: "review-dialog-title" }, title), ...content, h("div", { class: "buttons" }, close));
  dialog.addEventListener("close", () => dialog.remove());
  document.querySelector(".review-view").append(dialog);
  dialog.showModal();
  return dialog;
}

const labelsOf = (clip) => {
  const names = [...clip.labels, ...clip.unknown.map(strings.review.isUnknown)];
  const text = names.length > 0 ? names.join(", ") : clip.is_labelled === false ? strings.review.notLabelled : strings.review.noLabel;
  return clip.is_dropped ? `${text} (${strings.review.dropped})` : text;
};

// Somebody else has changed clips meanwhile. Resolves to whether to change them nevertheless.
export function askAboutConflict(clips, change) {
  return new Promise((resolve) => {
    let answer = false;
    const rows = clips.map((clip) => h("tr", {}, h("th", { scope: "row" }, clip.name), h("td", {}, labelsOf(clip)), h("td", {}, strings.review.changeText(change))));
    const table = h("div", { class: "scrolls" }, h("table", {}, h("thead", {}, h("tr", {}, ...strings.review.conflictColumns.map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, ...rows)));
    const button = (text, isApplied) => h("button", { type: "button", class: `action${isApplied ? "" : " primary"}`, onclick: () => { answer = isApplied; dialog.close(); } }, text);
    const dialog = h("dialog", { class: "review-dialog conflict", "aria-labelledby": "conflict-title" }, h("h2", { id: "conflict-title" }, strings.review.conflict), h("p", {}, strings.review.conflictHint(clips.length)), table, h("div", { class: "buttons" }, button(strings.review.keepTheirs, false), button(strings.review.applyMine, true)));
    dialog.addEventListener("close", () => { dialog.remove(); resolve(answer); });
    document.querySelector(".review-view").append(dialog);
    dialog.showModal();
  });
}

// The last steps, each with a button to undo it. `undo(step)` returns a promise.
export async function showHistory(store, clip, undo) {
  const content = h("div", { class: "history" }, loading());
  const dialog = showDialog(clip === null ? strings.review.history : strings.review.historyOf(clip.name), content);
  const load = async () => {
    try {
      const steps = await store.ask(clip === null ? "history" : `history?clip=${clip.number}`);
      content.replaceChildren(steps.length === 0 ? h("p", {}, strings.review.noHistory) : h("ul", {}, ...steps.map((step) => stepItem(step, undo, load))));
    } catch (error) {
      content.replaceChildren(failed(strings.review.historyFailed, error.message, load));
    }
  };
  await load();
  return dialog;
}

function stepItem(step, undo, reload) {
  const before = step.before === null ? "" : `${labelsOf(step.before)} → `;
  const what = h("div", {}, h("b", {}, strings.review.actions[step.action] ?? step.action), ` ${step.n_clips === 1 ? step.clip_name : strings.review.nClips(step.n_clips)}`,
    h("div", { class: "hint" }, `${before}${labelsOf(step.after)}`), h("div", { class: "hint" }, strings.review.byAt(step.reviewer, new Date(step.time))));
  const problem = h("p", { class: "problem", role: "alert" });
  const button = h("button", { type: "button", class: "action", disabled: step.is_undone, onclick: async () => { try { await undo(step.number); await reload(); } catch (error) { problem.textContent = error.message; } } }, step.is_undone ? strings.review.undone : strings.review.undo);
  return h("li", {}, what, button, problem);
}
