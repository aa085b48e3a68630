// Plays clips: the recording as it is, or a wav of the clip if the browser can't play its format.
import { addressOf } from "./review_store.js";

export class ClipPlayer {
  // `changed()` when it starts or stops; `moved(seconds)` in each frame, in the time of the recording; `failed()`.
  constructor(changed, moved, failed) {
    Object.assign(this, { changed, moved, failed, clip: null, end: null, offset: 0, isWav: false });
    this.audio = new Audio();
    for (const name of ["play", "pause", "ended"]) this.audio.addEventListener(name, () => { this.changed(); this.follow(); });
    this.audio.addEventListener("error", () => this.useWav());
  }

  get isPlaying() { return !this.audio.paused && !this.audio.ended; }
  get seconds() { return this.audio.currentTime + this.offset; }
  isPlayingClip(clip) { return this.isPlaying && this.clip?.number === clip.number; }

  play(clip, start = clip.start, end = clip.end) {
    if (this.clip?.number !== clip.number) {
      Object.assign(this, { clip, isWav: false, offset: 0 });
      this.audio.src = addressOf(clip.number, "sound");
    }
    Object.assign(this, { asked: start, end });
    this.audio.currentTime = Math.max(0, start - this.offset);
    this.audio.play().catch(() => {}); // an error has its own event
  }

  toggle(clip, start, end) {
    if (this.isPlayingClip(clip)) this.pause();
    else this.play(clip, start, end);
  }

  pause() { this.audio.pause(); }

  useWav() {
    if (!this.clip || !this.audio.getAttribute("src")) return;
    if (this.isWav) {
      this.clip = null; // it is asked for again the next time
      this.failed();
      return;
    }
    this.isWav = true;
    this.offset = this.clip.start;
    this.audio.src = addressOf(this.clip.number, "wav");
    this.play(this.clip, this.asked, this.end);
  }

  follow() {
    if (this.isFollowing) return;
    this.isFollowing = true;
    const step = () => {
      if (this.end !== null && this.seconds >= this.end) this.audio.pause();
      this.moved(this.seconds);
      this.isFollowing = this.isPlaying;
      if (this.isFollowing) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }
}
