// Plays a sound: the browser's own file if it knows the format, otherwise the wav that the server makes of it.

export class Player {
  // `changed()` is called when it starts or stops; `moved(seconds)` in each frame while it plays; `failed(error)` if it
  // can't; the error is null if the browser can't play what it got.
  constructor(changed, moved, failed) {
    this.changed = changed;
    this.moved = moved;
    this.failed = failed;
    this.audio = new Audio();
    this.audio.preload = "auto";
    this.end = null;
    for (const name of ["play", "pause", "ended"]) this.audio.addEventListener(name, () => { this.changed(); this.follow(); });
    this.audio.addEventListener("seeked", () => this.moved(this.audio.currentTime));
    this.audio.addEventListener("error", () => this.useServer());
  }

  get isPlaying() { return !this.audio.paused && !this.audio.ended; }

  // `askServer()` gives a promise of the address of the wav.
  open(file, askServer) {
    this.close();
    this.askServer = askServer;
    this.source = "own";
    this.own = URL.createObjectURL(file);
    this.audio.src = this.own;
  }

  close() {
    this.audio.pause();
    this.end = null;
    this.wasAsked = false;
    this.askServer = null;
    this.source = null;
    if (this.own) URL.revokeObjectURL(this.own);
    this.own = null;
    this.audio.removeAttribute("src");
  }

  useServer() {
    if (this.source === null) return;
    if (this.source === "server") this.fail(null); // its wav can't be played, either
    else this.playFromServer();
  }

  async playFromServer() {
    const { askServer } = this;
    this.source = "server";
    try {
      const address = await askServer();
      if (askServer !== this.askServer) return; // another sound is open
      this.audio.src = address;
      if (this.wasAsked) this.play(this.asked, this.end);
    } catch (error) {
      if (askServer === this.askServer) this.fail(error);
    }
  }

  fail(error) {
    this.source = "failed";
    this.failed(error);
  }

  play(start = null, end = null) {
    this.end = end;
    this.asked = start;
    this.wasAsked = true;
    if (this.source === "failed") { // perhaps the server answers now
      this.playFromServer();
      return;
    }
    if (start !== null) this.audio.currentTime = start;
    this.audio.play().then(() => { this.wasAsked = false; }, () => {}); // an error has its own event
  }

  pause() {
    this.wasAsked = false;
    this.audio.pause();
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play(this.audio.ended ? 0 : null);
  }

  seek(seconds) {
    this.end = null;
    this.audio.currentTime = seconds;
    this.moved(seconds);
  }

  follow() {
    if (this.isFollowing) return;
    this.isFollowing = true;
    const step = () => {
      if (this.end !== null && this.audio.currentTime >= this.end) {
        this.audio.pause();
        this.end = null;
      }
      this.moved(this.audio.currentTime);
      this.isFollowing = this.isPlaying;
      if (this.isFollowing) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }
}
