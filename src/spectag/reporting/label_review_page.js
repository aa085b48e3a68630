"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const cards = [...document.querySelectorAll(".card")];
const who = document.getElementById("who");
const state = document.getElementById("state");
const openOnly = document.getElementById("open-only");
const place = `spectag review of ${data.manifest}`;
let kind = "";
let current = -1;
let isSaved = true;

// What this browser keeps, if it keeps anything: a convenience, never the only copy.
const kept = (name) => {
  try { return localStorage.getItem(name); } catch { return null; }
};
const keep = (name, value) => {
  try { localStorage.setItem(name, value); } catch { /* then the file alone keeps it */ }
};

// Decisions by the clip's number. One of a clip whose labels are others by now is forgotten.
const same = (some, others) => some.length === others.length && some.every((label) => others.includes(label));
const nameOf = (clip) => JSON.stringify([clip.fname, clip.start, clip.end]);
const decisions = new Map();
try {
  const stored = JSON.parse(kept(place) ?? "{}");
  data.clips.forEach((clip, number) => {
    const decision = stored[nameOf(clip)];
    if (decision && same(decision.before, clip.given)) decisions.set(number, decision);
  });
} catch { /* not ours */ }
who.value = kept("spectag who") ?? "";
isSaved = decisions.size === 0;

document.documentElement.classList.add("scripted"); // what needs a script is hidden until there is one

const numberOf = (card) => Number(card.dataset.clip);
const boxes = (card) => [...card.querySelectorAll(".choices input")];
const told = (labels) => labels.join(", ") || "no label";

function ticked(card) {
  const labels = boxes(card).filter((box) => box.checked).map((box) => box.value);
  return data.labels.filter((label) => labels.includes(label)).concat(labels.filter((label) => !data.labels.includes(label)));
}

function tick(card, labels) {
  for (const label of labels) addBox(card, label);
  for (const box of boxes(card)) box.checked = labels.includes(box.value);
}

function addBox(card, label) {
  const known = boxes(card).find((box) => box.value === label);
  if (known) return known;
  const item = document.createElement("li");
  const line = document.createElement("label");
  const box = document.createElement("input");
  const text = document.createElement("span");
  box.type = "checkbox";
  box.value = label;
  text.className = "text";
  text.textContent = label;
  line.append(box, " ", text);
  item.append(line);
  card.querySelector(".choices").append(item);
  return box;
}

// The hour with its zone, as 2026-05-01T14:30:00+02:00.
function now() {
  const date = new Date();
  const minutes = -date.getTimezoneOffset();
  const two = (number) => String(number).padStart(2, "0");
  const zone = `${minutes < 0 ? "-" : "+"}${two(Math.floor(Math.abs(minutes) / 60))}:${two(Math.abs(minutes) % 60)}`;
  return new Date(date.getTime() + minutes * 60000).toISOString().slice(0, 19) + zone;
}

function decide(card, after) {
  const number = numberOf(card);
  const why = card.querySelector(".why").value.trim();
  decisions.set(number, { before: data.clips[number].given, after, why, when: now() });
  changed();
}

function undo(card) {
  decisions.delete(numberOf(card));
  tick(card, data.clips[numberOf(card)].given);
  changed();
}

function changed() {
  isSaved = false;
  const stored = {};
  for (const [number, decision] of decisions) stored[nameOf(data.clips[number])] = decision;
  keep(place, JSON.stringify(stored));
  show();
}

function show() {
  for (const card of cards) {
    const decision = decisions.get(numberOf(card));
    const line = card.querySelector(".decision");
    card.classList.toggle("decided", decision !== undefined);
    line.hidden = decision === undefined;
    if (decision) {
      const isKept = same(decision.before, decision.after);
      line.querySelector("output").textContent =
        isKept ? `Left as it is: ${told(decision.after)}.` : `${told(decision.before)} → ${told(decision.after)}.`;
    }
    card.hidden = (kind !== "" && card.dataset.kind !== kind) || (openOnly.checked && decision !== undefined);
  }
  const n = decisions.size;
  state.textContent = `${n} of ${data.clips.length} clips decided${n && !isSaved ? ", not yet saved" : ""}`;
}

// The table: what was decided before this page, then what was decided on it, in the order of time.
const field = (text) => (/[",\r\n;\t]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const joined = (labels) => labels.map((label) => (/[",\r\n]/.test(label) ? `"${label.replaceAll('"', '""')}"` : label)).join(",");

function table() {
  const rows = [...decisions]
    .sort(([, a], [, b]) => Date.parse(a.when) - Date.parse(b.when))
    .map(([number, decision]) => {
      const { fname, start, end } = data.clips[number];
      const { before, after, why, when } = decision;
      return [who.value.trim(), when, fname, start, end, joined(before), joined(after), why];
    });
  return [data.columns, ...data.earlier, ...rows].map((row) => `${row.map(field).join(",")}\n`).join("");
}

document.getElementById("download").addEventListener("click", () => {
  if (!who.value.trim()) {
    state.textContent = "Write your name first: the table tells who decided.";
    who.focus();
    return;
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = "corrections.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  isSaved = true;
  show();
});
who.addEventListener("input", () => keep("spectag who", who.value));
openOnly.addEventListener("change", show);
for (const button of document.querySelectorAll(".kinds button")) {
  button.addEventListener("click", () => {
    kind = button.dataset.kind;
    for (const other of document.querySelectorAll(".kinds button")) other.ariaPressed = String(other === button);
    show();
  });
}
addEventListener("beforeunload", (event) => {
  if (!isSaved) event.preventDefault();
});

// One card: its buttons, its player, and the way to another label.
cards.forEach((card, number) => {
  const act = {
    ".keep": () => { tick(card, data.clips[numberOf(card)].given); decide(card, data.clips[numberOf(card)].given); },
    ".take": () => { tick(card, data.suggested[number]); decide(card, data.suggested[number]); },
    ".save": () => decide(card, ticked(card)),
    ".undo": () => undo(card),
  };
  for (const [name, action] of Object.entries(act)) card.querySelector(name)?.addEventListener("click", action);
  const another = card.querySelector(".another");
  another.addEventListener("change", () => {
    const label = another.value.trim();
    another.setCustomValidity(label && !data.labels.includes(label) ? "This is none of the manifest's labels." : "");
    if (label && another.reportValidity()) {
      addBox(card, label).checked = true;
      another.value = "";
    }
  });
  card.addEventListener("focusin", () => choose(number, false));
  const decision = decisions.get(numberOf(card));
  if (decision) {
    tick(card, decision.after);
    card.querySelector(".why").value = decision.why;
  }
  card.querySelector(".why").addEventListener("change", (event) => {
    const made = decisions.get(numberOf(card));
    if (made) { made.why = event.target.value.trim(); changed(); }
  });
  const audio = card.querySelector("audio");
  const drawing = card.querySelector(".spectrogram");
  if (audio && drawing) follow(audio, drawing);
});

// A line in the spectrogram goes with the sound, and a press into it goes there.
function follow(audio, drawing) {
  const frame = drawing.querySelector(".frame");
  const line = drawing.querySelector(".playhead");
  const left = Number(frame.getAttribute("x"));
  const width = Number(frame.getAttribute("width"));
  const seconds = Number(drawing.dataset.seconds);
  const move = () => {
    line.setAttribute("visibility", "visible");
    line.setAttribute("transform", `translate(${(width * Math.min(audio.currentTime / seconds, 1)).toFixed(1)} 0)`);
    if (!audio.paused) requestAnimationFrame(move);
  };
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    move();
  });
  audio.addEventListener("seeked", move);
  frame.classList.add("seeks");
  frame.addEventListener("click", (event) => {
    const box = frame.getBoundingClientRect();
    audio.currentTime = seconds * Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    audio.play();
  });
}

function choose(number, scrolls) {
  current = number;
  cards.forEach((card, i) => card.classList.toggle("current", i === number));
  if (scrolls) {
    cards[number].focus({ preventScroll: true });
    cards[number].scrollIntoView({ block: "nearest" });
  }
}

function step(by) {
  for (let number = current + by; number >= 0 && number < cards.length; number += by) {
    if (!cards[number].hidden) return choose(number, true);
  }
}

addEventListener("keydown", (event) => {
  const isWriting = event.target.matches("input:not([type=checkbox]), audio");
  if (event.key === "Escape" && isWriting) event.target.blur();
  if (isWriting || event.ctrlKey || event.metaKey || event.altKey) return;
  const card = cards[current];
  const press = (name) => card?.querySelector(name)?.click();
  const keys = {
    j: () => step(1),
    k: () => step(-1),
    t: () => press(".take"),
    l: () => press(".keep"),
    s: () => press(".save"),
    u: () => press(".undo"),
    w: () => card?.querySelector(".why").focus(),
    " ": () => {
      const audio = card?.querySelector("audio");
      if (audio?.paused) audio.play(); else audio?.pause();
    },
  };
  const isButton = event.target.matches("button, summary, input");
  if (event.key === " " && isButton) return;
  if (/^[1-9]$/.test(event.key)) boxes(card ?? document.body)[event.key - 1]?.click();
  else if (keys[event.key]) keys[event.key]();
  else return;
  event.preventDefault();
});

show();
