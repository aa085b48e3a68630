// Hands the samples of a microphone on in blocks, mono.
const BLOCK = 1024; // samples

class LiveRecorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(BLOCK);
    this.filled = 0;
  }

  process([channels]) {
    if (channels.length === 0) return true;
    for (const sample of channels[0]) {
      this.block[this.filled] = sample;
      this.filled += 1;
      if (this.filled === BLOCK) {
        this.port.postMessage(this.block.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}
registerProcessor("live-recorder", LiveRecorder);
