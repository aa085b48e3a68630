// The labels that were heard, from onsets and offsets.

const MAX_KEPT = 2000;

export class LiveDetections {
  constructor() {
    this.all = []; // { label, probability, start, end, time, session }, oldest first; `end` is null while the label is on
    this.on = new Map(); // by label
  }

  // An event of a stream whose first sample is at `base` seconds of the session. Returns the detection that began, if any.
  take(event, base, session) {
    const seconds = base + event.time;
    this.close(event.label, seconds);
    if (!event.on) return null;
    const detection = { label: event.label, probability: event.probability, start: seconds, end: null, time: session.timeOf(seconds), session };
    this.all.push(detection);
    if (this.all.length > MAX_KEPT) this.all.shift();
    this.on.set(event.label, detection);
    return detection;
  }

  close(label, seconds) {
    const detection = this.on.get(label);
    if (!detection) return;
    detection.end = Math.max(detection.start, seconds);
    this.on.delete(label);
  }

  closeAll(seconds) { for (const label of [...this.on.keys()]) this.close(label, seconds); }

  // Without the sound of a session that is given up.
  forgetSound() { for (const detection of this.all) detection.session = null; }
}
