// Tags wav files with a file of `spectag export`: node tag.mjs model.onnx sound.wav ...

import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-node";
import { Model, mixChannels, topTags } from "../browser/model.js";

// The channels of a wav file with 16-bit integers or 32-bit floats, each a Float32Array, and the sample rate.
function readWav(path) {
  const file = readFileSync(path);
  if (file.toString("latin1", 0, 4) !== "RIFF") throw new Error(`${path}: not a wav file`);
  let nChannels, sampleRate, nBits, data;
  for (let position = 12; position + 8 <= file.length;) {
    const name = file.toString("latin1", position, position + 4), start = position + 8;
    const length = Math.min(file.readUInt32LE(position + 4), file.length - start);
    if (name === "fmt ") {
      [nChannels, sampleRate, nBits] = [file.readUInt16LE(start + 2), file.readUInt32LE(start + 4), file.readUInt16LE(start + 14)];
    }
    if (name === "data") data = file.subarray(start, start + length);
    position = start + length + length % 2;
  }
  if (!data || ![16, 32].includes(nBits)) throw new Error(`${path}: expected a wav file of 16-bit integers or 32-bit floats`);
  const nBytes = nBits / 8, nSamples = Math.floor(data.length / nBytes / nChannels);
  const sample = nBits === 16 ? (index) => data.readInt16LE(2 * index) / 32768 : (index) => data.readFloatLE(4 * index);
  const channels = Array.from({ length: nChannels }, (_, channel) => (
    Float32Array.from({ length: nSamples }, (_, index) => sample(index * nChannels + channel))
  ));
  return { channels, sampleRate };
}

const [modelPath, ...soundPaths] = process.argv.slice(2);
const model = await Model.open(ort, new Uint8Array(readFileSync(modelPath)));
for (const path of soundPaths) {
  const { channels, sampleRate } = readWav(path);
  if (sampleRate !== model.sampleRate) {
    throw new Error(`${path}: has ${sampleRate} Hz, but the model needs ${model.sampleRate} Hz; resample it first`);
  }
  const probabilities = await model.tag(mixChannels(channels, model.channel));
  for (const { label, probability } of topTags(model, probabilities, 5)) {
    console.log(`${path}\t${label}\t${probability.toFixed(6)}`);
  }
}
