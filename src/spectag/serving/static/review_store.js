// The clips of the project as the page knows them: which ones are shown, what is known of them, and edits of them.
import { storedReviewer, storeReviewer } from "./browser_memory.js";

const BASE = "/views/review";
const BATCH = 100; // clips in a request
const MAX_KEPT = 3000;

export const addressOf = (number, what) => `${BASE}/clips/${number}/${what}`;

export class ReviewStore {
  // `changed()` is called when clips have come or changed; `failed(error)` if they could not be loaded.
  constructor(request, changed, failed) {
    Object.assign(this, { request, changed, failed, state: null, numbers: [], filter: { queue: "all" }, selected: new Set() });
    this.kept = new Map(); // clips by number
    this.asked = new Set();
    this.newest = new Map(); // revisions of clips: an answer that is older than another one is not used
    this.queries = 0;
  }

  get reviewer() { return storedReviewer() || "page"; }
  set reviewer(name) { storeReviewer(name); }

  ask(path, body) { return this.request(`${BASE}/${path}`, body === undefined ? {} : { method: "POST", body, patience: 5 }); }

  async loadState() {
    const before = this.state;
    this.state = await this.ask("state");
    if (before && (before.last_edit !== this.state.last_edit || before.version !== this.state.version)) this.forget();
    return before;
  }

  forget() {
    this.kept.clear();
    this.changed();
  }

  // The numbers of the clips that match; the clips themselves come when they are shown.
  async find(filter) {
    const query = (this.queries += 1);
    const { numbers } = await this.ask("query", filter);
    if (query !== this.queries) return false;
    this.filter = filter;
    this.numbers = numbers;
    this.positions = new Map(numbers.map((number, index) => [number, index]));
    this.selected = new Set([...this.selected].filter((number) => this.positions.has(number)));
    return true;
  }

  clip(number) { return this.kept.get(number) ?? null; }

  // Asks for the clips in a part of the list that are not known.
  want(first, end) {
    const missing = this.numbers.slice(Math.max(0, first), end).filter((number) => !this.kept.has(number) && !this.asked.has(number));
    for (let start = 0; start < missing.length; start += BATCH) this.load(missing.slice(start, start + BATCH)).then(this.changed, this.failed);
  }

  async load(numbers) {
    for (const number of numbers) this.asked.add(number);
    try {
      this.keep((await this.ask("clips", { numbers })).clips);
    } finally {
      for (const number of numbers) this.asked.delete(number);
    }
  }

  keep(clips) {
    for (const clip of clips) {
      if ((this.newest.get(clip.number) ?? 0) > clip.revision) continue;
      this.newest.set(clip.number, clip.revision);
      this.kept.delete(clip.number);
      this.kept.set(clip.number, clip);
    }
    for (const number of [...this.kept.keys()].slice(0, Math.max(0, this.kept.size - MAX_KEPT))) this.kept.delete(number);
  }

  async known(number) {
    if (!this.kept.has(number)) await this.load([number]);
    return this.clip(number);
  }

  // The revisions of clips that the reviewer has seen, or that a choice of many stands for. `shown` is the clip that is
  // on the page, perhaps in an older state.
  async seen(numbers, shown = null) {
    const revisions = new Map(numbers.map((number) => [number, number === shown?.number ? shown.revision : this.clip(number)?.revision]));
    const missing = numbers.filter((number) => revisions.get(number) === undefined);
    for (let start = 0; start < missing.length; start += BATCH) {
      const { clips } = await this.ask("clips", { numbers: missing.slice(start, start + BATCH) });
      for (const clip of clips) revisions.set(clip.number, clip.revision);
    }
    return [...revisions].filter(([, revision]) => revision !== undefined);
  }

  // Changes clips. Of a conflict, `decide(clips as they are now)` tells whether to change them nevertheless.
  async edit(numbers, change, shown, decide) {
    let seen = await this.seen(numbers, shown);
    for (;;) {
      try {
        return await this.change("edit", { clips: seen, change, reviewer: this.reviewer }, numbers);
      } catch (error) {
        if (error.status !== 409) throw error;
        const before = new Map(seen);
        for (const number of numbers) this.kept.delete(number);
        seen = await this.seen(numbers);
        const others = seen.filter(([number, revision]) => before.get(number) !== revision).map(([number]) => number).slice(0, BATCH);
        await this.load(others);
        this.changed();
        if (!(await decide(others.map((number) => this.clip(number))))) return null;
      }
    }
  }

  async change(path, body, numbers = []) {
    const answer = await this.ask(path, body);
    for (const number of numbers) this.kept.delete(number);
    this.keep(answer.clips);
    this.changed();
    return answer;
  }

  undo(step = null) {
    const { reviewer } = this;
    return this.change("undo", step === null ? { reviewer } : { reviewer, step });
  }

  addPart(clip, start, end) { return this.change("parts", { clip: clip.number, start, end, labels: null, reviewer: this.reviewer }); }
}
