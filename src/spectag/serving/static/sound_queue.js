// The sounds of the page: sent to the server and tagged, a few at once; sent again if the server had to forget them.
import { cellsOf } from "./segments.js";
import { strings } from "./strings.js";

const AT_ONCE = 2; // sounds that are sent or tagged
const MAX_FORGOTTEN = 2000; // a browser sends 64 kB after a page is closed; the server has less sounds anyway
export const PATIENCE = 120; // times that a busy server is asked again

export const GONE = 410; // the server had to make room, or was started again

export class SoundQueue {
  // `changed(sound)` is called when a sound has another state: waiting, sending, tagging, ready or failed.
  constructor(page, changed) {
    this.page = page;
    this.changed = changed;
    this.sounds = [];
  }

  add(files) {
    const added = files.map((file) => ({ file, name: file.name, state: "waiting", reason: "" }));
    this.sounds.push(...added);
    return added;
  }

  get ready() { return this.sounds.filter((sound) => sound.state === "ready"); }

  work() {
    while (this.sounds.filter((sound) => ["sending", "tagging"].includes(sound.state)).length < AT_ONCE) {
      const next = this.sounds.find((sound) => sound.state === "waiting");
      if (!next) return;
      this.process(next);
    }
  }

  async process(sound) {
    const controller = new AbortController();
    sound.controller = controller;
    try {
      this.setState(sound, sound.facts ? "tagging" : "sending");
      await this.sendAndTag(sound, controller.signal);
      if (!controller.signal.aborted) this.setState(sound, "ready");
    } catch (error) {
      if (!controller.signal.aborted) this.setState(sound, "failed", error.message);
    }
    this.work();
  }

  async sendAndTag(sound, signal) {
    if (!sound.facts) {
      await this.send(sound, signal);
      this.setState(sound, "tagging");
    }
    try {
      await this.tag(sound, signal);
    } catch (error) {
      if (error.status !== GONE) throw error;
      await this.sendAgain(sound);
    }
  }

  setState(sound, state, reason = "") {
    const text = reason.startsWith(`${sound.name}: `) ? reason.slice(sound.name.length + 2) : reason;
    Object.assign(sound, { state, reason: text });
    this.changed(sound);
  }

  async send(sound, signal) {
    const form = new FormData();
    form.append("file", sound.file, sound.name);
    const facts = await this.page.request("/views/tag/sounds", { method: "POST", body: form, patience: PATIENCE, signal });
    if (!this.sounds.includes(sound)) {
      this.drop(facts.id);
      throw new DOMException("", "AbortError");
    }
    sound.facts = facts;
  }

  async tag(sound, signal) {
    const path = `/views/tag/sounds/${sound.facts.id}/probabilities`;
    const answer = await this.page.request(path, { method: "POST", patience: PATIENCE, signal });
    const bytes = Uint8Array.from(atob(answer.probabilities), (letter) => letter.charCodeAt(0));
    const values = new Float32Array(bytes.buffer);
    const count = answer.starts.length;
    const windows = { starts: answer.starts, ends: answer.ends, cells: cellsOf(answer.starts, answer.ends), frames: answer.frames };
    const known = new Map(this.page.info.labels.map((label) => [label.label, label]));
    if (!answer.labels.every((label) => known.has(label))) throw new Error(strings.tag.otherModel);
    const labels = answer.labels.map((label, i) => ({ ...known.get(label), threshold: answer.thresholds[i], values: values.subarray(i * count, (i + 1) * count) }));
    Object.assign(sound, { windows, labels, whole: answer.whole, notes: answer.notes, topsKey: null });
  }

  // A sound that had to make room for others on the server is sent again.
  async again(sound, ask) {
    try {
      return await ask();
    } catch (error) {
      if (error.status !== GONE || !sound.facts) throw error;
      await this.sendAgain(sound);
      return ask();
    }
  }

  sendAgain(sound) {
    const send = async () => {
      try {
        await this.send(sound);
        await this.tag(sound);
      } finally {
        sound.isSentAgain = null;
      }
    };
    sound.isSentAgain ??= send(); // many tiles may miss it at once
    return sound.isSentAgain;
  }

  // Asks the server whether it still has these sounds, and sends what is missing. `progress(done)` is called for each.
  async complete(sounds, progress) {
    for (const [done, sound] of sounds.entries()) {
      progress(done);
      await this.again(sound, () => this.page.request(`/views/tag/sounds/${sound.facts.id}`));
    }
  }

  retry(sound) {
    this.setState(sound, "waiting");
    this.work();
  }

  // Another model is used from now on.
  tagAgain() {
    for (const sound of this.sounds) {
      if (!sound.facts || sound.state === "waiting") continue;
      sound.controller?.abort();
      this.setState(sound, "waiting");
    }
    this.work();
  }

  drop(id) {
    this.page.request(`/views/tag/sounds/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  }

  remove(sound) {
    this.sounds.splice(this.sounds.indexOf(sound), 1);
    sound.controller?.abort();
    if (sound.facts) this.drop(sound.facts.id);
  }

  // The page is closed.
  forget() {
    const sounds = this.sounds.filter((sound) => sound.facts).slice(-MAX_FORGOTTEN).map((sound) => sound.facts.id);
    if (sounds.length === 0) return;
    this.page.request("/views/tag/forget", { method: "POST", body: { sounds }, keepalive: true }).catch(() => {});
  }
}
