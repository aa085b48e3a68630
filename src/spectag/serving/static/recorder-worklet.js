// Hands the samples of a microphone on, mono.
class Recorder extends AudioWorkletProcessor {
  process([channels]) {
    if (channels.length > 0) this.port.postMessage(channels[0].slice());
    return true;
  }
}
registerProcessor("recorder", Recorder);
