// Sends the samples of the microphone to the page, mixed to one channel.

class Recorder extends AudioWorkletProcessor {
  process([channels]) {
    if (channels.length) {
      this.port.postMessage(channels[0].map((_, index) => (
        channels.reduce((sum, channel) => sum + channel[index], 0) / channels.length
      )));
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
