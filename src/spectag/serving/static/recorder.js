// Records from the microphone and gives a wav file of 16 bits.

const MAX_SECONDS = 600;

export const canRecord = () => Boolean(navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode);

export class MicrophoneRecording {
  // `progress(seconds)` is called while it records; `ended(file)` when it ends.
  constructor(progress, ended) {
    this.progress = progress;
    this.ended = ended;
    this.blocks = [];
    this.samples = 0;
  }

  async start() {
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
    try {
      await this.listen();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  async listen() {
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule("/static/recorder-worklet.js");
    this.node = new AudioWorkletNode(this.context, "recorder", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    this.node.port.onmessage = ({ data }) => this.add(data);
    this.context.createMediaStreamSource(this.stream).connect(this.node);
  }

  add(block) {
    this.blocks.push(block);
    this.samples += block.length;
    const seconds = this.samples / this.context.sampleRate;
    this.progress(seconds);
    if (seconds >= MAX_SECONDS) this.stop();
  }

  stop() {
    if (!this.node || !this.stream) return;
    this.node.port.onmessage = null;
    const { sampleRate } = this.context;
    this.close();
    if (this.samples > 0) this.ended(new File([wav(this.blocks, this.samples, sampleRate)], fileName(new Date()), { type: "audio/wav" }));
  }

  // Give the microphone back.
  close() {
    for (const track of this.stream.getTracks()) track.stop();
    this.stream = null;
    this.context?.close();
  }
}

function wav(blocks, samples, rate) {
  const bytes = new DataView(new ArrayBuffer(44 + 2 * samples));
  const text = (at, letters) => [...letters].forEach((letter, i) => bytes.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF"); bytes.setUint32(4, 36 + 2 * samples, true); text(8, "WAVEfmt ");
  bytes.setUint32(16, 16, true); bytes.setUint16(20, 1, true); bytes.setUint16(22, 1, true);
  bytes.setUint32(24, rate, true); bytes.setUint32(28, 2 * rate, true); bytes.setUint16(32, 2, true); bytes.setUint16(34, 16, true);
  text(36, "data"); bytes.setUint32(40, 2 * samples, true);
  let at = 44;
  for (const block of blocks) {
    for (const sample of block) {
      bytes.setInt16(at, Math.round(32767 * Math.min(1, Math.max(-1, sample))), true);
      at += 2;
    }
  }
  return bytes.buffer;
}

const two = (number) => String(number).padStart(2, "0");
const fileName = (now) => `recording ${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())} ${two(now.getHours())}.${two(now.getMinutes())}.${two(now.getSeconds())}.wav`;
