// The page: tags a dropped file or the microphone. Everything is computed in this browser.

import { mixChannels } from "./model.js";

const WINDOW_SECONDS = 2, STEP_SECONDS = 1;  // of the microphone, unless the model has a fixed length
const element = (id) => document.getElementById(id);

// ------------------------------------------------------------------------------------------------------- the model

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let info = null;  // of the open model

worker.onmessage = ({ data: { id, result, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error) reject(new Error(error)); else resolve(result);
};
worker.onerror = () => showStatus("The model cannot run: is the folder ort there? See README.md.", true);

function call(name, value) {
  const id = crypto.randomUUID?.() ?? String(Math.random());
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, name, value });
  });
}

async function openModel(bytes) {
  setEnabled(false);
  info = await call("open", bytes);
  element("model-name").textContent =
    `${info.name}: ${info.nLabels} labels, ${info.sampleRate / 1000} kHz, licence ${info.licence}`;
  setEnabled(true);
  showStatus("Ready. Drop a sound file, choose one, or use the microphone.");
}

async function openModelAt(url) {
  showStatus("Loading the model …");
  const response = await fetch(url);
  if (!response.ok) throw new Error(`There is no ${url}. Choose the file that spectag export wrote.`);
  await openModel(new Uint8Array(await response.arrayBuffer()));
}

// ------------------------------------------------------------------------------------------------------ sound files

async function decode(content) {
  const context = new OfflineAudioContext(1, 1, info.sampleRate);  // decodes to this rate
  let sound;
  try {
    sound = await context.decodeAudioData(content);
  } catch {
    throw new Error("This browser cannot read the file as a sound.");
  }
  const channels = Array.from({ length: sound.numberOfChannels }, (_, number) => sound.getChannelData(number));
  return mixChannels(channels, info.channel);
}

async function tagFile(file) {
  stopMicrophone();
  showStatus(`Reading ${file.name} …`);
  const waveform = await decode(await file.arrayBuffer());
  showStatus(`Tagging ${file.name} …`);
  const result = await call("tag", waveform);
  const duration = (waveform.length / info.sampleRate).toFixed(1);
  showTags(result);
  showStatus(`${file.name}: ${duration} s, tagged in ${result.seconds.toFixed(2)} s.`);
}

// ------------------------------------------------------------------------------------------------------- microphone

let microphone = null;

async function startMicrophone() {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const context = new AudioContext();
  await context.audioWorklet.addModule(new URL("recorder.js", import.meta.url));
  const recorder = new AudioWorkletNode(context, "recorder");
  context.createMediaStreamSource(stream).connect(recorder);
  const seconds = info.nSamples ? info.nSamples / info.sampleRate : WINDOW_SECONDS;
  const samples = new RecentSamples(Math.round(seconds * context.sampleRate));
  microphone = { stream, context, seconds, isBusy: false };
  recorder.port.onmessage = ({ data }) => {
    samples.push(data);
    if (samples.nNew >= STEP_SECONDS * context.sampleRate && !microphone?.isBusy) tagRecent(samples, context.sampleRate);
  };
  element("microphone").textContent = "Stop the microphone";
  element("microphone").setAttribute("aria-pressed", "true");
  showStatus("Listening …");
}

async function tagRecent(samples, sampleRate) {
  const current = microphone;
  if (!current) return;
  current.isBusy = true;
  samples.nNew = 0;
  try {
    const result = await call("tag", await resample(info.nSamples ? samples.samples : samples.all(), sampleRate));
    if (microphone === current) {
      showTags(result);
      showStatus(`Listening: the last ${current.seconds} s, tagged in ${result.seconds.toFixed(2)} s.`);
    }
  } catch (error) {
    stopMicrophone();
    showStatus(error.message, true);
  } finally {
    current.isBusy = false;
  }
}

function stopMicrophone() {
  microphone?.stream.getTracks().forEach((track) => track.stop());
  microphone?.context.close();
  microphone = null;
  element("microphone").textContent = "Use the microphone";
  element("microphone").setAttribute("aria-pressed", "false");
}

class RecentSamples {
  constructor(length) {
    this.samples = new Float32Array(length);
    this.nNew = 0;
    this.nAll = 0;
  }

  push(block) {
    this.samples.copyWithin(0, block.length);
    this.samples.set(block, this.samples.length - block.length);
    this.nNew += block.length;
    this.nAll += block.length;
  }

  all() {
    return this.samples.slice(Math.max(0, this.samples.length - this.nAll));
  }
}

async function resample(samples, sampleRate) {
  if (sampleRate === info.sampleRate) return samples.slice();
  const length = info.nSamples ?? Math.max(1, Math.round(samples.length * info.sampleRate / sampleRate));
  const context = new OfflineAudioContext(1, length, info.sampleRate);
  const source = context.createBufferSource();
  source.buffer = new AudioBuffer({ length: samples.length, sampleRate });
  source.buffer.copyToChannel(samples, 0);
  source.connect(context.destination);
  source.start();
  return (await context.startRendering()).getChannelData(0);
}

// --------------------------------------------------------------------------------------------------------- the page

function showStatus(text, isError = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
}

function showTags({ tags, probabilities }) {
  element("tags").replaceChildren(...tags.map(({ label, probability, isDetected }) => {
    const row = document.createElement("tr");
    row.classList.toggle("detected", isDetected);
    const name = document.createElement("th"), bar = document.createElement("td"), number = document.createElement("td");
    name.scope = "row";
    name.textContent = label;
    const meter = document.createElement("meter");
    meter.value = probability;
    meter.setAttribute("aria-hidden", "true");  // the number says it
    bar.append(meter);
    number.textContent = `${probability.toFixed(2)}${isDetected ? " ✓" : ""}`;
    row.append(name, bar, number);
    return row;
  }));
  element("result").hidden = false;
  document.dispatchEvent(new CustomEvent("tagged", { detail: { probabilities: Array.from(probabilities) } }));
}

function setEnabled(isEnabled) {
  for (const id of ["sound-file", "microphone"]) element(id).disabled = !isEnabled;
}

// An event handler that shows errors on the page.
function handler(action) {
  return (event) => action(event).catch((error) => showStatus(error.message, true));
}

element("sound-file").onchange = handler(async ({ target }) => {
  if (target.files.length) await tagFile(target.files[0]);
});
element("model-file").onchange = handler(async ({ target }) => {
  if (target.files.length) await openModel(new Uint8Array(await target.files[0].arrayBuffer()));
});
element("microphone").onclick = handler(async () => {
  if (microphone) {
    stopMicrophone();
    showStatus("Stopped.");
  } else {
    await startMicrophone();
  }
});
document.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
};
document.ondragleave = () => document.body.classList.remove("dragging");
document.ondrop = handler(async (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const [file] = event.dataTransfer.files;
  if (!file) return;
  if (file.name.endsWith(".onnx")) await openModel(new Uint8Array(await file.arrayBuffer()));
  else if (info) await tagFile(file);
  else throw new Error("Open a model first.");
});

openModelAt(new URLSearchParams(location.search).get("model") ?? "model.onnx").catch(
  (error) => showStatus(error.message, true),
);
