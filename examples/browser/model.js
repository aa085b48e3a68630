// A file of `spectag export`: its metadata, and how to run it. For browsers and Node.

const METADATA = 14, KEY = 1, VALUE = 2;  // field numbers in onnx.proto

export class Model {
  // `ort` is onnxruntime-web or onnxruntime-node, `bytes` a Uint8Array with the content of the file.
  static async open(ort, bytes) {
    const model = new Model();
    model.ort = ort;
    model.session = await ort.InferenceSession.create(bytes);
    const metadata = readMetadata(bytes);
    if (!metadata.labels) throw new Error("this file is not from spectag export: it contains no labels");
    model.name = metadata.name;
    model.labels = JSON.parse(metadata.labels);
    model.thresholds = JSON.parse(metadata.thresholds);
    model.sampleRate = Number(metadata.sample_rate);
    model.nSamples = metadata.samples ? Number(metadata.samples) : null;  // of each sound, with --max-seconds
    model.channel = metadata.channel;  // "mix", "loudest", or a number from 1 on
    model.licence = metadata.licence;
    return model;
  }

  // Probabilities (one for each label) of a waveform: a Float32Array, mono, at `sampleRate`.
  async tag(waveform) {
    if (this.nSamples && waveform.length !== this.nSamples) {
      const [needed, found] = [this.nSamples, waveform.length].map((n) => (n / this.sampleRate).toFixed(3));
      throw new Error(`this model takes sounds of exactly ${needed} s, not ${found} s; export it without --max-seconds`);
    }
    const input = new this.ort.Tensor("float32", waveform, [1, waveform.length]);
    const { probabilities } = await this.session.run({ waveform: input }, ["probabilities"]);
    return probabilities.data;
  }
}

// The `n` most probable labels, most probable first.
export function topTags(model, probabilities, n) {
  return Array.from(probabilities, (probability, index) => ({
    label: model.labels[index], probability, isDetected: probability >= model.thresholds[index],
  })).sort((a, b) => b.probability - a.probability).slice(0, n);
}

// One channel of several: their mean, the one with the most energy, or one by its number.
export function mixChannels(channels, how) {
  if (how === "loudest") return channels.reduce((a, b) => (energy(b) > energy(a) ? b : a));
  if (how !== "mix") {
    if (how > channels.length) throw new Error(`the model needs channel ${how}, but the sound has ${channels.length}`);
    return channels[how - 1];
  }
  return channels[0].map((_, index) => channels.reduce((sum, channel) => sum + channel[index], 0) / channels.length);
}

function energy(channel) {
  return channel.reduce((sum, sample) => sum + sample * sample, 0);
}

// The metadata of an ONNX file. The JavaScript interface of ONNX Runtime does not return it.
export function readMetadata(bytes) {
  const metadata = {}, decoder = new TextDecoder();
  for (const [field, entry] of fieldsOf(bytes)) {
    if (field !== METADATA) continue;
    const texts = {};
    for (const [number, value] of fieldsOf(entry)) texts[number] = decoder.decode(value);
    metadata[texts[KEY]] = texts[VALUE] ?? "";
  }
  return metadata;
}

// The number and the bytes of each field of a protocol buffer.
function* fieldsOf(bytes) {
  let position = 0;
  const readNumber = () => {
    let number = 0, scale = 1, byte;
    do {
      if (position >= bytes.length) throw new Error("this file is not an ONNX file, or it is incomplete");
      byte = bytes[position++];
      number += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return number;
  };
  while (position < bytes.length) {
    const key = readNumber(), kind = key % 8;
    const start = position;
    const length = kind === 2 ? readNumber() : kind === 1 ? 8 : kind === 5 ? 4 : (readNumber(), 0);
    const begin = kind === 0 ? start : position;
    if (kind !== 0) position += length;
    if (position > bytes.length) throw new Error("this file is not an ONNX file, or it is incomplete");
    yield [Math.floor(key / 8), bytes.subarray(begin, position)];
  }
}
