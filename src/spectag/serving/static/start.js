// The start page: open a project, create one, or open a model without a project.
import { h } from "./elements.js";
import { chooseFile, chooseFolder } from "./folder_picker.js";
import { failed, loading } from "./states.js";
import { strings } from "./strings.js";

const MILLISECONDS = 300; // between questions how far the opening is
const NO_NAME = /[<>:"/\\|?*]|^\.|\.$/; // of a folder, on some computers

export function mount(element, page) {
  const view = new StartView(element, page);
  view.load();
  return { keys: { o: () => view.openOther(), n: () => view.newName?.focus() } };
}

class StartView {
  constructor(element, page) {
    Object.assign(this, { element, page, choices: null, newName: null, typedName: "" });
  }

  async load() {
    this.element.replaceChildren(loading());
    try {
      this.choices = await this.page.request("/views/start/choices");
      const opening = await this.page.request("/views/start/opening");
      if (opening.state === "opening") await this.follow(null);
      else this.show();
    } catch (error) {
      this.element.replaceChildren(failed(strings.start.failed, error.message, () => this.load()));
    }
  }

  show() {
    const isFirst = this.choices.recent.length === 0;
    const cards = isFirst ? [this.newCard(), this.recentCard(), this.modelCard()] : [this.recentCard(), this.newCard(), this.modelCard()];
    this.element.replaceChildren(
      h("div", { class: "welcome" }, h("h2", {}, isFirst ? strings.start.welcome : strings.start.welcomeBack), h("p", {}, strings.start.about)),
      h("div", { class: "start-cards" }, ...cards));
  }

  recentCard() {
    const items = this.choices.recent.map((project) => h("li", {}, h("button", { type: "button", class: "recent", onclick: () => this.open({ project: project.folder }) },
      h("strong", {}, project.name), h("span", {}, project.folder), h("small", {}, strings.start.opened(new Date(project.opened))))));
    const list = items.length > 0 ? h("ul", { class: "recents" }, ...items) : h("p", { class: "hint" }, strings.start.noRecent);
    const other = h("button", { type: "button", class: "action", onclick: () => this.openOther() }, strings.start.other);
    return this.card(strings.start.recent, list, other);
  }

  newCard() {
    this.newName = h("input", { id: "new-name", required: true, maxlength: 200, autocomplete: "off", placeholder: strings.start.nameExample, value: this.typedName, oninput: () => this.checkName() });
    const folder = this.pathField("new-folder", this.choices.folder, () => chooseFolder({ title: strings.start.chooseFolder }));
    const model = this.modelField("new-model");
    const submit = (event) => {
      event.preventDefault();
      if (folder.value() === null) folder.button.focus();
      else this.open({ project: folder.value(), name: this.newName.value, model: model.value() });
    };
    return this.card(strings.start.create, h("form", { onsubmit: submit },
      this.field("new-name", strings.start.name, this.newName),
      this.field("new-folder", strings.start.folder, ...folder.parts),
      this.field("new-model", strings.start.firstModel, ...model.parts),
      h("button", { class: "action primary" }, strings.start.createButton)));
  }

  // Also keeps the name while something else is shown, such as why the project could not be created.
  checkName() {
    this.typedName = this.newName.value;
    this.newName.setCustomValidity(NO_NAME.test(this.typedName.trim()) ? strings.start.badName : "");
  }

  modelCard() {
    const model = this.modelField("only-model");
    const submit = (event) => { event.preventDefault(); this.open({ model: model.value() }); };
    return this.card(strings.start.withoutProject, h("p", { class: "hint" }, strings.start.withoutProjectHint),
      h("form", { onsubmit: submit }, this.field("only-model", strings.start.model, ...model.parts), h("button", { class: "action" }, strings.start.openModel)));
  }

  card(title, ...content) { return h("section", { class: "start-card", "aria-label": title }, h("h3", {}, title), ...content); }

  field(id, text, ...parts) { return h("div", { class: "field" }, h("label", { for: id }, text), ...parts); }

  // A chosen path, with a button that opens the dialog.
  pathField(id, path, choose) {
    const output = h("output", { id, class: "path" }, path ?? strings.start.noFolder);
    let value = path;
    const button = h("button", { type: "button", class: "action", "aria-describedby": id, onclick: async () => {
      value = (await choose()) ?? value;
      output.textContent = value ?? strings.start.noFolder;
    } }, strings.start.change);
    return { parts: [output, button], button, value: () => value };
  }

  modelField(id) {
    const option = (model) => h("option", { value: model.name }, strings.start.published(model.name, model.labels, model.bytes, model.ready));
    const select = h("select", { id }, ...this.choices.models.map(option));
    const choose = async () => {
      const path = await chooseFile({ title: strings.start.chooseModel, kinds: ["model"] });
      if (path === null) return;
      select.append(h("option", { value: path }, path));
      select.value = path;
    };
    const button = h("button", { type: "button", class: "action", onclick: choose }, strings.start.modelFolder);
    return { parts: [select, h("p", { class: "hint" }, strings.start.modelHint), button], value: () => select.value };
  }

  async openOther() {
    const project = await chooseFile({ title: strings.start.chooseProject, kinds: ["project"] });
    if (project !== null) this.open({ project });
  }

  async open(wanted) {
    this.element.replaceChildren(loading(strings.start.opening));
    try {
      await this.page.request("/views/start/open", { method: "POST", body: wanted });
      await this.follow(wanted);
    } catch (error) {
      this.showProblem(error.message, wanted);
    }
  }

  // Shows how far the opening is until the page of the project or model can be loaded.
  async follow(wanted) {
    const text = h("p", { role: "status" }, strings.start.opening);
    const bar = h("progress", { hidden: true, "aria-label": strings.start.downloading });
    const cancel = h("button", { type: "button", class: "action", hidden: true, onclick: () => this.page.request("/views/start/stop", { method: "POST" }).catch(() => {}) }, strings.start.cancel);
    this.element.replaceChildren(h("div", { class: "state" }, h("span", { class: "spinner", "aria-hidden": "true" }), text, bar, h("p", {}, cancel)));
    for (;;) {
      const opening = await this.ask();
      if (opening.state === "open") { location.assign(location.pathname); return; }
      if (opening.state === "stopped") { this.load(); return; }
      if (opening.state !== "opening") { this.showProblem(opening.problem, wanted, opening.needs_model); return; }
      const isDownload = opening.n_total > 0;
      bar.hidden = cancel.hidden = !isDownload;
      if (isDownload) Object.assign(bar, { max: opening.n_total, value: opening.n_done });
      const line = isDownload ? strings.start.progress(opening.step, Math.floor(100 * opening.n_done / opening.n_total)) : strings.start.opening;
      if (text.textContent !== line) text.textContent = line;
      await new Promise((resolve) => { setTimeout(resolve, MILLISECONDS); });
    }
  }

  // When something is open, the server has no start page any more.
  async ask() {
    try {
      return await this.page.request("/views/start/opening");
    } catch (error) {
      if (error.status === 404) return { state: "open" };
      throw error;
    }
  }

  showProblem(reason, wanted, needsModel = false) {
    const back = () => this.load();
    if (needsModel && wanted !== null) {
      const model = this.modelField("first-model");
      const submit = (event) => { event.preventDefault(); this.open({ ...wanted, model: model.value() }); };
      const form = h("form", { class: "first-model", onsubmit: submit }, this.field("first-model", strings.start.firstModel, ...model.parts), h("button", { class: "action primary" }, strings.start.openWith));
      this.element.replaceChildren(h("div", { class: "state" }, h("h2", {}, strings.start.needsModel), form, h("button", { type: "button", class: "action", onclick: back }, strings.start.back)));
      return;
    }
    const box = failed(strings.start.notOpened, reason, wanted === null ? null : () => this.open(wanted));
    box.append(" ", h("button", { type: "button", class: "action", onclick: back }, strings.start.back));
    this.element.replaceChildren(box);
  }
}
