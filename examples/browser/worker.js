// Runs the model in its own thread, so that the page stays responsive.

import * as ort from "./ort/ort.wasm.min.mjs";
import { Model, topTags } from "./model.js";

ort.env.wasm.numThreads = 1;  // more need headers that simple file servers do not send

let model = null;

const calls = {
  async open(bytes) {
    model = await Model.open(ort, bytes);
    const { name, sampleRate, nSamples, channel, licence, labels } = model;
    return { name, sampleRate, nSamples, channel, licence, nLabels: labels.length };
  },
  async tag(waveform) {
    const start = performance.now();
    const probabilities = await model.tag(waveform);
    const seconds = (performance.now() - start) / 1000;
    return { probabilities, seconds, tags: topTags(model, probabilities, 10) };
  },
};

let last = Promise.resolve();  // one call after the other

self.onmessage = ({ data: { id, name, value } }) => {
  last = last.then(async () => {
    try {
      self.postMessage({ id, result: await calls[name](value) });
    } catch (error) {
      self.postMessage({ id, error: error.message || String(error) });
    }
  });
};
