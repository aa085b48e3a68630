// The Review view: a gallery of clips, the chosen one with its labels, and queues of what needs a look.
import { filesOf } from "./dropped_files.js";
import { h } from "./elements.js";
import { ClipPanel } from "./review_clip.js";
import { askAboutConflict, ImportForm, showDialog, showHistory } from "./review_dialogs.js";
import { ReviewFilters } from "./review_filters.js";
import { ReviewGrid } from "./review_grid.js";
import { ReviewJobs } from "./review_jobs.js";
import { ClipPlayer } from "./review_player.js";
import { ReviewStore } from "./review_store.js";
import { empty, emptyView, failed, loading } from "./states.js";
import { strings } from "./strings.js";

const N_KEYS = 9;
const MAX_SELECTED = 10_000;
const SECONDS = { working: 1.5, idle: 15 }; // between questions for the state

class ReviewView {
  constructor(element, page) {
    Object.assign(this, { element, page, current: null, hovered: null, marksUnknown: false, isShown: false, isLoaded: false, nWaiting: 0 });
    this.going = Promise.resolve(); // until the chosen clip is shown
    this.actions = Promise.resolve();
    this.store = new ReviewStore(page.request, () => this.clipsChanged(), (error) => this.showMessage(error.message, true));
    this.store.keyLabels = [];
    this.player = new ClipPlayer(() => this.panel.showPlaying(), (seconds) => this.panel.moved(seconds), () => this.showMessage(strings.review.unplayable, true));
    this.panel = new ClipPanel(this.store, this.player, {
      edit: (change, numbers) => this.edit(change, numbers), part: (start, end) => this.addPart(start, end), similar: (clip) => this.filters.setQueue("similar", clip.number),
      history: (clip) => showHistory(this.store, clip, (step) => this.undo(step)), label: (label, isNew) => this.useLabel(label, isNew), accept: () => this.accept(),
    });
    this.grid = new ReviewGrid(this.store, { choose: (number, how) => this.choose(number, how), hover: (number) => { this.hovered = number; } });
    this.filters = new ReviewFilters((filter) => this.find(filter));
    this.jobs = new ReviewJobs(this.store, () => this.refresh());
    this.build();
    this.load();
  }

  build() {
    const button = (text, onclick) => h("button", { type: "button", class: "action", onclick }, text);
    this.summary = h("p", { class: "sentence" });
    this.notice = h("div", { class: "notice" });
    this.message = h("p", { class: "message", role: "status" });
    this.selection = h("div", { class: "selection", hidden: true });
    this.nothing = h("div", {});
    const buttons = h("div", { class: "buttons" }, button(strings.review.add, () => this.showImport()), button(strings.review.undoLast, () => this.undoLast()), button(strings.review.history, () => showHistory(this.store, null, (step) => this.undo(step))));
    this.head = h("div", { class: "review-head" }, this.summary, buttons, this.jobs.element);
    this.workplace = h("div", { class: "review-workplace" }, h("div", { class: "review-list" }, this.selection, this.nothing, this.grid.element), this.panel.element);
    this.full = h("div", {}, this.head, this.notice, this.filters.element, this.message, this.workplace);
    const hasFiles = (event) => event.dataTransfer.types.includes("Files"); // not a text that is moved into a field
    this.element.addEventListener("dragover", (event) => { if (hasFiles(event)) { event.preventDefault(); this.element.classList.add("dropping"); } });
    this.element.addEventListener("dragleave", () => this.element.classList.remove("dropping"));
    this.element.addEventListener("drop", (event) => hasFiles(event) && this.onDrop(event));
  }

  async load() {
    this.element.replaceChildren(loading());
    try {
      await this.store.loadState();
    } catch (error) {
      this.element.replaceChildren(failed(strings.review.failed, error.message, () => this.load()));
      return;
    }
    this.isLoaded = true;
    this.showState();
    if (this.store.state.counts.n_all > 0) await this.find(this.filters.filter);
    this.poll();
  }

  showState() {
    const { state } = this.store;
    this.chooseKeys();
    if (state.counts.n_all === 0) {
      if (!this.form?.element.isConnected) {
        this.form = new ImportForm(this.store, (answer) => this.imported(answer));
        this.element.replaceChildren(emptyView("review", strings.review.empty, strings.review.emptyHint, this.form.element), this.message);
      }
      return;
    }
    if (!this.full.isConnected) this.element.replaceChildren(this.full);
    if (this.message.parentElement !== this.full) this.full.insertBefore(this.message, this.workplace);
    this.summary.textContent = strings.review.summary(state.counts, state.changed, state.trained);
    this.filters.update(state);
    this.jobs.update(state);
    this.showNotice(state.table);
  }

  showNotice({ problem, changes }) {
    if (changes) this.showMessage(strings.review.tableChanged(changes));
    const overwrite = async () => { try { await this.store.request("/views/review/overwrite", { method: "POST", as: "response" }); await this.refresh(); } catch (error) { this.showMessage(error.message, true); } };
    this.notice.replaceChildren(...(problem ? [h("p", { class: "problem", role: "alert" }, problem), h("button", { type: "button", class: "action", onclick: overwrite }, strings.review.overwrite)] : []));
  }

  // The labels of the keys 1 to 9: the most frequent ones. They stay while the page is open; new ones come to the end.
  chooseKeys() {
    const { state, keyLabels } = this.store;
    const own = state.labels.filter(({ own: isOwn }) => isOwn).sort((one, other) => other.clips - one.clips);
    if (own.length > 0 && !this.hasOwnKeys) keyLabels.length = 0; // those of the model were for a project without labels
    this.hasOwnKeys = own.length > 0;
    for (const { label } of own.length > 0 ? own : state.labels) if (keyLabels.length < N_KEYS && !keyLabels.includes(label)) keyLabels.push(label);
  }

  poll() {
    clearTimeout(this.timer);
    if (!this.isShown) return;
    this.timer = setTimeout(async () => { await this.refresh(); this.poll(); }, 1000 * (this.jobs.isWorking ? SECONDS.working : SECONDS.idle));
  }

  async refresh() {
    if (!this.isLoaded) return;
    const before = this.modelResults;
    try {
      await this.store.loadState();
    } catch (error) {
      this.showMessage(error.message, true);
      this.lost = error.message;
      return;
    }
    if (this.lost && this.message.textContent === this.lost) this.showMessage("");
    this.lost = null;
    this.showState();
    if (before !== this.modelResults) this.store.forget();
  }

  // Changes when a job has found something new about clips.
  get modelResults() {
    const { predictions, jobs } = this.store.state;
    return JSON.stringify([predictions, jobs.suggest?.ended]);
  }

  async find(filter) {
    this.nothing.replaceChildren(this.store.numbers.length === 0 ? loading() : "");
    try {
      if (!(await this.store.find(filter))) return;
    } catch (error) {
      this.nothing.replaceChildren(failed(strings.review.findFailed, error.message, () => this.find(filter)));
      return;
    }
    const { numbers } = this.store;
    this.filters.update(this.store.state);
    this.nothing.replaceChildren(...(numbers.length === 0 ? [empty(strings.review.nothing, strings.review.nothingHints[filter.queue] ?? strings.review.nothingHint)] : []));
    this.grid.element.hidden = numbers.length === 0;
    this.showSelection();
    this.grid.reset();
    this.page.announce(strings.review.found(numbers.length));
    if (numbers.length > 0 && !this.store.positions.has(this.current)) await this.go(numbers[0]);
    else this.grid.setCurrent(this.current);
  }

  // Makes a clip the chosen one.
  go(number) {
    this.current = number;
    this.grid.setCurrent(number);
    this.going = this.showCurrent(number);
    return this.going;
  }

  // Does what a key stands for when the chosen clip is shown, in the order of the keys.
  act(action) {
    this.nWaiting += 1;
    this.actions = this.actions.then(() => this.going).then(() => {
      this.nWaiting -= 1;
      const isShown = this.current === null || this.panel.clip?.number === this.current; // not if it could not be loaded
      if (isShown) action();
    }).catch((error) => this.showMessage(error.message, true));
  }

  async showCurrent(number) {
    try {
      const clip = await this.store.known(number);
      if (clip && number === this.current) this.panel.show(clip);
    } catch (error) {
      this.showMessage(error.message, true);
    }
  }

  move(step) {
    const { numbers, positions } = this.store;
    if (numbers.length === 0) return;
    const index = (positions.get(this.current) ?? -step) + step;
    const wanted = numbers[Math.min(numbers.length - 1, Math.max(0, index))];
    if (wanted !== this.current) this.go(wanted);
  }

  choose(number, { play = false, extend = false, toggle = false }) {
    if (extend) this.extendSelection(number);
    if (toggle) this.toggleSelected(number);
    this.go(number).then(() => { if (play && this.panel.clip?.number === number) this.player.toggle(this.panel.clip); });
  }

  toggleSelected(number) {
    const { selected } = this.store;
    if (!selected.delete(number)) selected.add(number);
    this.showSelection();
  }

  extendSelection(number) {
    const { numbers, positions, selected } = this.store;
    const [first, last] = [positions.get(this.current) ?? 0, positions.get(number)].sort((one, other) => one - other);
    for (const one of numbers.slice(first, last + 1).slice(0, MAX_SELECTED - selected.size)) selected.add(one);
    this.showSelection();
  }

  selectAll() {
    this.store.selected = new Set(this.store.numbers.slice(0, MAX_SELECTED));
    this.showSelection();
  }

  showSelection() {
    const { selected } = this.store;
    this.selection.hidden = selected.size === 0;
    const clear = () => { selected.clear(); this.showSelection(); };
    this.selection.replaceChildren(h("span", {}, strings.review.selected(selected.size)), h("button", { type: "button", class: "action", onclick: () => this.selectAll() }, strings.review.selectAll(Math.min(MAX_SELECTED, this.store.numbers.length))), h("button", { type: "button", class: "action", onclick: clear }, strings.review.selectNone));
    this.grid.redraw();
  }

  get targets() { return this.store.selected.size > 0 ? [...this.store.selected] : this.current === null ? [] : [this.current]; }

  clipsChanged() {
    this.grid.redraw();
    const clip = this.store.clip(this.current);
    if (clip && clip !== this.panel.clip) this.panel.show(clip);
    else if (!clip && this.current !== null && this.isLoaded) this.store.want(this.store.positions?.get(this.current) ?? 0, (this.store.positions?.get(this.current) ?? -1) + 1);
  }

  async edit(change, numbers = this.targets) {
    if (numbers.length === 0) return;
    try {
      const answer = await this.store.edit(numbers, change, this.panel.clip, (clips) => askAboutConflict(clips, change));
      if (answer === null) { this.showMessage(strings.review.keptTheirs); return; }
      this.showMessage(strings.review.did(change, numbers.length === 1 ? (this.store.clip(numbers[0])?.name ?? "") : strings.review.nClips(numbers.length)));
      await this.refresh();
    } catch (error) {
      this.showMessage(error.message, true);
    }
  }

  useLabel(label, isNew = false) {
    const { clip } = this.panel;
    if (clip === null) return;
    const isMany = this.store.selected.size > 0;
    const has = !isMany && clip.labels.includes(label);
    const change = this.marksUnknown ? { mark_unknown: [label] } : has && !isNew ? { remove: [label] } : { add: [label] };
    this.marksUnknown = false;
    this.edit(change);
  }

  async accept() {
    const { clip, suggestion } = this.panel;
    if (clip === null || suggestion === null) { this.showMessage(strings.review.noSuggestion); return; }
    const done = this.edit({ labels: suggestion, confirmed: true }, [clip.number]);
    this.move(1); // while the server saves it
    await done;
  }

  async confirm() {
    const done = this.edit({ confirmed: true });
    if (this.store.selected.size === 0) this.move(1);
    await done;
  }

  async addPart(start, end) {
    try {
      const { clips: [part] } = await this.store.addPart(this.panel.clip, start, end);
      await this.refresh();
      const { numbers, positions } = this.store;
      const after = (positions.get(this.current) ?? -1) + 1;
      this.store.numbers = [...numbers.slice(0, after), part.number, ...numbers.slice(after)];
      this.store.positions = new Map(this.store.numbers.map((number, index) => [number, index]));
      await this.go(part.number);
      this.showMessage(strings.review.partMade(part.name));
      await this.panel.focusLabel();
    } catch (error) {
      this.showMessage(error.message, true);
    }
  }

  async undo(step = null) {
    const { clips, n } = await this.store.undo(step);
    await this.refresh();
    this.showMessage(strings.review.didUndo(n === 1 ? clips[0].name : strings.review.nClips(n)));
    if (n === 1 && this.store.positions?.has(clips[0].number)) await this.go(clips[0].number);
  }

  undoLast() { this.undo().catch((error) => this.showMessage(error.message, true)); }

  showMessage(text, isProblem = false) {
    this.message.textContent = text;
    this.message.classList.toggle("problem", isProblem);
  }

  showImport(file = null) {
    const form = new ImportForm(this.store, (answer) => { dialog.close(); this.imported(answer); });
    const dialog = showDialog(strings.review.add, form.element);
    if (file) form.take({ path: null, file });
  }

  async imported(answer) {
    await this.refresh();
    await this.find(this.filters.filter);
    this.showMessage([strings.review.imported(answer), ...answer.notes].join(" "));
  }

  async onDrop(event) {
    event.preventDefault();
    this.element.classList.remove("dropping");
    const found = await filesOf(event.dataTransfer);
    const table = found.files.find((file) => /\.(csv|tsv|txt)$/i.test(file.name));
    if (!table) this.showMessage(strings.review.noTable, true);
    else if (this.store.state?.counts.n_all > 0) this.showImport(table);
    else this.form?.take({ path: null, file: table });
  }

  playHovered() {
    const clip = this.store.clip(this.hovered ?? this.current);
    if (clip) this.player.toggle(clip);
  }

  startUnknown() {
    this.marksUnknown = !this.marksUnknown;
    this.showMessage(this.marksUnknown ? strings.review.nextIsUnknown : strings.review.nextIsLabel);
  }

  get keys() {
    const label = (index) => { const name = this.store.keyLabels[index]; if (name !== undefined) this.useLabel(name); };
    const dropped = () => this.edit({ dropped: !this.panel.clip?.is_dropped });
    const digits = Object.fromEntries(Array.from({ length: N_KEYS }, (_, index) => [String(index + 1), () => label(index)]));
    const moves = { "←": () => this.move(-1), "→": () => this.move(1), "↑": () => this.move(-this.grid.columns), "↓": () => this.move(this.grid.columns) };
    const ofClip = {
      space: () => this.panel.toggle(), a: () => this.accept(), c: () => this.confirm(), u: () => this.undoLast(), x: dropped, q: () => this.startUnknown(),
      "[": () => this.panel.setEnd("start"), "]": () => this.panel.setEnd("end"), m: () => this.panel.makePart(), s: () => { if (this.current !== null) this.toggleSelected(this.current); },
      n: () => { if (this.panel.clip) this.filters.setQueue("similar", this.panel.clip.number); }, ...digits,
    };
    const waiting = Object.entries(ofClip).map(([key, action]) => [key, () => this.act(action)]);
    const moving = Object.entries(moves).map(([key, action]) => [key, () => { if (this.nWaiting > 0) this.act(action); else action(); }]);
    return { ...Object.fromEntries([...waiting, ...moving]), p: () => this.playHovered(), l: () => this.panel.field.focus(), t: () => this.panel.comment.focus(), i: () => this.showImport() };
  }

  shown() {
    this.isShown = true;
    this.refresh();
    this.poll();
    this.grid.draw();
  }

  hidden() {
    this.isShown = false;
    clearTimeout(this.timer);
    this.player.pause();
  }

  async changed() {
    await this.refresh();
    this.store.forget();
  }
}

export function mount(element, page) {
  const view = new ReviewView(element, page);
  return { shown: () => view.shown(), hidden: () => view.hidden(), changed: () => view.changed(), keys: view.keys };
}
