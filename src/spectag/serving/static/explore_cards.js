// The spectrograms and sounds of clips: asked for once, kept for a while, and played.
import { blobOf } from "./blobs.js";

const MAX_KEPT = 40;

export class ClipCards {
  // `changed()` is called when a sound starts or ends, `failed(reason)` if a later one of several can't be played.
  constructor(page, changed, failed) {
    Object.assign(this, { page, changed, failed, kept: new Map(), playing: null, queue: [], nAsked: 0 });
    this.audio = new Audio();
    for (const name of ["play", "pause"]) this.audio.addEventListener(name, () => this.changed());
    this.audio.addEventListener("ended", async () => {
      const problem = await this.playNext();
      if (problem) this.failed(problem);
    });
  }

  // { figure, sound, problem } of a clip; `sound` is the address of a blob.
  get(number) {
    const kept = this.kept.get(number);
    if (kept) {
      this.kept.delete(number); // the one used last is at the end
      this.kept.set(number, kept);
      return kept;
    }
    const asked = this.load(number);
    this.kept.set(number, asked);
    asked.catch(() => this.kept.delete(number)); // it is asked for again
    if (this.kept.size > MAX_KEPT) this.forget(this.kept.keys().next().value);
    return asked;
  }

  async load(number) {
    const card = await this.page.request(`/views/explore/clips/${number}/card`, { patience: 3 });
    return card.sound ? { ...card, sound: URL.createObjectURL(blobOf(card.sound)) } : card;
  }

  forget(number) {
    const kept = this.kept.get(number);
    this.kept.delete(number);
    kept.then((card) => card.sound && number !== this.playing && URL.revokeObjectURL(card.sound), () => {});
  }

  get isOneOfMany() { return this.playing !== null && this.nAsked > 1; }

  get isPlaying() { return this.playing !== null && !this.audio.paused && !this.audio.ended; }

  // Plays clips one after another; `started(number)` is called before each. Returns when the first one plays, with the
  // reason if it can't.
  async play(numbers, started = () => {}) {
    this.queue = numbers.slice(1);
    this.nAsked = numbers.length;
    this.started = started;
    return this.playOne(numbers[0]);
  }

  async playOne(number) {
    this.playing = number;
    this.started(number);
    this.changed();
    let card;
    try {
      card = await this.get(number);
    } catch (error) {
      if (this.playing === number) this.stop();
      return error.message;
    }
    if (this.playing !== number) return "";
    if (!card.sound) {
      if (this.queue.length > 0) return this.playNext();
      this.stop();
      return card.problem;
    }
    this.audio.src = card.sound;
    try {
      await this.audio.play();
    } catch (error) {
      if (error.name !== "AbortError" && this.playing === number) { this.stop(); return error.message; }
    }
    return "";
  }

  playNext() {
    const next = this.queue.shift();
    if (next === undefined) { this.stop(); return ""; }
    return this.playOne(next);
  }

  stop() {
    this.audio.pause();
    Object.assign(this, { playing: null, queue: [] });
    this.changed();
  }
}
