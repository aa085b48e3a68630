// A check as the page knows it: its cards, the decisions about them, and how decisions are saved.

export const CHECKS = "/views/check/checks";
export const addressOf = (name) => `${CHECKS}/${encodeURIComponent(name)}`;

export class CheckState {
  constructor(request, name) {
    this.request = request;
    this.name = name;
    this.address = addressOf(name);
    this.shownLabel = null; // null: all
    this.isSaving = false;
  }

  async load() {
    const { cards, states, session, revision, labels, presence, model_labels: modelLabels, recordings } = await this.request(this.address);
    Object.assign(this, { cards, states, session, revision, labels, presence, modelLabels, recordings });
    const rank = new Map(labels.map(({ label }, index) => [label, index]));
    this.order = cards.map((_, index) => index).sort((one, other) => rank.get(cards[one].label) - rank.get(cards[other].label) || one - other);
    this.places = new Map(this.order.map((index, place) => [index, place]));
  }

  isDecided(index) { return this.states[index].decision !== ""; }
  isShown(index) { return this.shownLabel === null || this.cards[index].label === this.shownLabel; }

  // Which cards are still to be decided. With units (presence), one confirmation is enough for each.
  openCards() {
    const confirmed = new Set(this.cards.filter((card, index) => card.unit !== null && this.states[index].decision === "yes").map((card) => card.unit));
    return this.cards.map((card, index) => !this.isDecided(index) && !confirmed.has(card.unit));
  }

  // The next card to decide after another one, or from that one on, in the order of the labels, from the start again at
  // the end; -1 if there is none.
  nextOpen(from, { isFromOn = false } = {}) {
    const open = this.openCards();
    const start = (this.places.get(from) ?? -1) + (from >= 0 && isFromOn ? 0 : 1);
    for (let step = 0; step < this.cards.length; step += 1) {
      const index = this.order[(start + step) % this.cards.length];
      if (open[index] && this.isShown(index)) return index;
    }
    return -1;
  }

  previous(from) {
    const before = this.order.slice(0, this.places.get(from) ?? this.cards.length);
    return before.findLast((index) => this.isShown(index)) ?? -1;
  }

  // Progress of each label, and of all under "".
  counts() {
    const open = this.openCards();
    const found = new Map([["", { nDecided: 0, nOpen: 0, n: 0 }]]);
    this.cards.forEach((card, index) => {
      for (const label of ["", card.label]) {
        if (!found.has(label)) found.set(label, { nDecided: 0, nOpen: 0, n: 0 });
        const numbers = found.get(label);
        numbers.n += 1;
        numbers.nDecided += this.isDecided(index);
        numbers.nOpen += open[index];
      }
    });
    return found;
  }

  // The first label after another one that has something to decide; null if there is none.
  nextLabel(after) {
    const labels = this.labels.map((each) => each.label);
    const counts = this.counts();
    const start = labels.indexOf(after) + 1;
    return [...labels.slice(start), ...labels.slice(0, start)].find((label) => label !== after && counts.get(label)?.nOpen > 0) ?? null;
  }

  // Decisions of other browsers and programs; the changed cards.
  async poll() {
    if (this.isSaving) return [];
    const answer = await this.request(`${this.address}/decisions?since=${this.revision}`);
    if (answer.session === this.session) return this.take(answer);
    await this.load(); // the server was started again
    return this.cards.map((_, index) => index);
  }

  // Stores a decision: it is on disk before this returns. One about a card that somebody else has decided meanwhile
  // fails with a ServerError of status 409, and the states are those of now.
  async save(index, decision, values) {
    const seen = JSON.stringify(this.states[index]);
    this.isSaving = true;
    try {
      for (let attempt = 0; ; attempt += 1) {
        const body = { index, decision, session: this.session, since: this.revision, ...values };
        try {
          this.take(await this.request(`${this.address}/decisions`, { method: "POST", body }));
          return;
        } catch (error) {
          if (error.status !== 409) throw error;
          await this.load();
          if (attempt > 0 || JSON.stringify(this.states[index]) !== seen) throw error;
        }
      }
    } finally {
      this.isSaving = false;
    }
  }

  take(answer) {
    if (answer.revision <= this.revision) return []; // overtaken by a later answer
    this.revision = answer.revision;
    for (const [index, state] of Object.entries(answer.changes)) this.states[index] = state;
    return Object.keys(answer.changes).map(Number);
  }
}
