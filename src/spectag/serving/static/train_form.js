// The form of a new training: which clips, which recipe, and the few options that people need.
import { h, set } from "./elements.js";
import { chooseFile, chooseFolder } from "./folder_picker.js";
import { strings } from "./strings.js";

const texts = strings.train;
const FEWEST_SHOWN = 5; // labels with few clips

export class TrainForm {
  // `start(path, body)` sends the request.
  constructor(page, start) {
    Object.assign(this, { page, start, state: null, manifest: null, preview: null, run: 0 });
    const radio = (value, text, id) => h("label", { class: "choice" }, h("input", { type: "radio", name: "train-source", value, id, onchange: () => this.look() }), h("span", {}, text));
    this.ownSource = radio("project", texts.ownLabels, "train-own");
    this.otherSource = radio("other", texts.otherLabels, "train-other");
    const table = h("button", { type: "button", class: "action", onclick: () => this.choose(chooseFile({ title: texts.chooseTable, kinds: ["table"] })) }, texts.table);
    const folder = h("button", { type: "button", class: "action", onclick: () => this.choose(chooseFolder({ title: texts.chooseFolder })) }, texts.folder);
    this.path = h("p", { class: "path" });
    this.content = h("div", { class: "preview", role: "status" });
    this.recipes = h("fieldset", { class: "recipes" });
    this.budget = h("input", { type: "number", id: "train-budget", min: "1", max: "43200", step: "1", oninput: () => this.showPlan() });
    this.budgetField = field("train-budget", texts.budget, this.budget, texts.budgetHint);
    this.folds = h("select", { id: "train-folds", onchange: () => this.showPlan() }, ...texts.folds.map(([value, text]) => h("option", { value }, text)));
    this.columns = h("datalist", { id: "train-columns" });
    this.group = h("input", { type: "text", id: "train-group", list: "train-columns", autocomplete: "off", spellcheck: "false", onchange: () => this.look() });
    this.seed = h("input", { type: "number", id: "train-seed", min: "0", max: "4294967295", step: "1", placeholder: "0" });
    this.plan = h("p", { class: "plan" });
    this.problem = h("p", { class: "problem", role: "alert" });
    this.button = h("button", { class: "action primary" }, texts.start);
    const options = h("details", { class: "options" }, h("summary", {}, texts.options),
      field("train-folds", texts.foldsLabel, this.folds, texts.foldsHint),
      field("train-group", texts.group, h("span", {}, this.group, this.columns), texts.groupHint),
      field("train-seed", texts.seed, this.seed, texts.seedHint));
    this.element = h("form", { class: "train-form", "aria-labelledby": "train-title", onsubmit: (event) => this.submit(event) },
      h("h2", { id: "train-title", tabindex: "-1" }, texts.newVersion),
      h("fieldset", {}, h("legend", {}, texts.clips), this.ownSource, this.otherSource, h("div", { class: "buttons" }, table, folder), this.path, this.content),
      this.recipes, this.budgetField, options, this.plan, this.problem, this.button);
  }

  update(state, isFirst) {
    const isOther = JSON.stringify(state.labels) !== JSON.stringify(this.state?.labels);
    const hadOwn = Boolean(this.state?.labels.path);
    this.state = state;
    const hasOwn = state.labels.path !== null;
    const own = this.ownSource.firstElementChild;
    own.disabled = !hasOwn;
    if (isFirst) this.showRecipes(state.recipes);
    if (isFirst || (hasOwn && !hadOwn && this.manifest === null)) {
      if (hasOwn) own.checked = true;
      else this.otherSource.firstElementChild.checked = true;
      this.look();
    } else if (isOther && !this.usesOther) {
      this.look(); // clips or labels were changed
    }
    this.updateButton();
  }

  focus() { this.element.querySelector("h2").focus(); this.element.scrollIntoView({ block: "start" }); }

  showRecipes(recipes) {
    const choices = recipes.map(({ name, missing }, index) => h("label", { class: "choice" },
      h("input", { type: "radio", name: "train-recipe", value: name, checked: index === 0, disabled: missing !== null, onchange: () => this.showPlan() }),
      h("span", {}, h("b", {}, name), " ", texts.recipes[name] ?? "", missing === null ? null : h("small", {}, texts.missing(missing)))));
    this.recipes.replaceChildren(h("legend", {}, texts.recipe), ...choices);
    this.showPlan();
  }

  get usesOther() { return this.otherSource.firstElementChild.checked; }
  get recipe() { return this.recipes.querySelector("input:checked")?.value ?? null; }
  get hasBudget() { return this.state.recipes.find(({ name }) => name === this.recipe)?.budget ?? false; }

  async choose(chosen) {
    const path = await chosen;
    if (path === null) return;
    this.manifest = path;
    this.otherSource.firstElementChild.checked = true;
    this.look();
  }

  // Asks what is in the chosen table.
  async look() {
    const run = (this.run += 1);
    this.preview = null;
    this.path.textContent = this.usesOther ? this.manifest ?? texts.nothingChosen : this.state.labels.path ?? "";
    this.content.replaceChildren();
    this.updateButton();
    if (this.usesOther ? this.manifest === null : this.state.labels.path === null) { this.showPlan(); return; }
    this.content.replaceChildren(h("p", { class: "hint" }, texts.reading));
    try {
      const body = { manifest: this.usesOther ? this.manifest : null, group_column: this.group.value.trim() || null };
      const found = await this.page.request("/views/train/preview", { method: "POST", body });
      if (run !== this.run) return;
      this.preview = found;
      this.showPreview(found);
    } catch (error) {
      if (run !== this.run) return;
      const again = h("button", { type: "button", class: "action", onclick: () => this.look() }, strings.shell.again);
      this.content.replaceChildren(h("p", { class: "problem" }, error.message), again);
    }
    this.updateButton();
    this.showPlan();
  }

  showPreview(found) {
    const fewest = found.labels.slice(0, FEWEST_SHOWN).map(([label, count]) => texts.labelCount(label, count)).join(", ");
    const items = [texts.content(found), texts.fewest(fewest, found.n_labels), found.n_unlabelled > 0 ? texts.unlabelled(found.n_unlabelled) : null].filter((text) => text !== null);
    this.content.replaceChildren(...items.map((text) => h("p", {}, text)), ...found.notes.map((note) => h("p", { class: "note" }, texts.note(note))));
    this.columns.replaceChildren(...found.columns.map((column) => h("option", { value: column })));
  }

  showPlan() {
    if (this.state === null) return;
    this.budgetField.hidden = !this.hasBudget;
    const minutes = this.hasBudget && this.budget.value !== "" ? Number(this.budget.value) : null;
    this.plan.textContent = this.preview === null || this.recipe === null ? "" : texts.plan(this.recipe, this.preview, this.folds.value, minutes);
  }

  updateButton() {
    const isBusy = this.isBusy ?? false;
    set(this.button, { disabled: this.preview === null || isBusy });
    this.button.textContent = isBusy ? texts.busy : texts.start;
  }

  setBusy(isBusy) {
    this.isBusy = isBusy;
    this.updateButton();
  }

  async submit(event) {
    event.preventDefault();
    this.problem.textContent = "";
    const folds = this.folds.value;
    const body = {
      manifest: this.usesOther ? this.manifest : null,
      group_column: this.group.value.trim() || null,
      recipe: this.recipe,
      folds: folds === "" ? null : /^\d+$/.test(folds) ? Number(folds) : folds,
      seed: this.seed.value === "" ? null : Number(this.seed.value),
      budget_minutes: this.hasBudget && this.budget.value !== "" ? Number(this.budget.value) : null,
    };
    this.setBusy(true);
    try {
      await this.start("/views/train/start", body);
    } catch (error) {
      this.problem.textContent = error.message;
    } finally {
      this.setBusy(false);
    }
  }
}

function field(id, text, input, hint) {
  const control = input.id === id ? input : input.querySelector(`#${id}`);
  control.setAttribute("aria-describedby", `${id}-hint`);
  return h("div", { class: "field" }, h("label", { for: id }, text), input, h("p", { class: "hint", id: `${id}-hint` }, hint));
}
