const data = JSON.parse(document.getElementById("data").textContent);
const cards = [...document.querySelectorAll(".card")];
const reviewer = document.getElementById("reviewer");
const state = document.getElementById("state");
const undecidedOnly = document.getElementById("undecided-only");
const storageKey = `spectag label review of ${data.manifest}`;
let shownKind = "";
let current = -1;
let isSaved = true;

// The browser's storage is only a convenience: it may be switched off.
const load = (key) => {
  try { return localStorage.getItem(key); } catch { return null; }
};
const store = (key, value) => {
  try { localStorage.setItem(key, value); } catch { /* only the saved file has the decisions then */ }
};

// Decisions by the clip's index. Decisions about labels that have changed since are dropped.
const isSame = (labels, others) => labels.length === others.length && labels.every((label) => others.includes(label));
const clipKey = (clip) => JSON.stringify([clip.fname, clip.start, clip.end]);
const decisions = new Map();
try {
  const stored = JSON.parse(load(storageKey) ?? "{}");
  data.clips.forEach((clip, index) => {
    const decision = stored[clipKey(clip)];
    if (decision?.oldLabels && isSame(decision.oldLabels, clip.labels)) decisions.set(index, decision);
  });
} catch { /* stored by another program */ }
reviewer.value = load("spectag reviewer") ?? "";
isSaved = decisions.size === 0;

const clipIndex = (card) => Number(card.dataset.clip);
const clipLabels = (card) => data.clips[clipIndex(card)].labels;
const boxes = (card) => [...card.querySelectorAll(".choices input")];
const labelText = (labels) => labels.join(", ") || "no label";

function tickedLabels(card) {
  const labels = boxes(card).filter((box) => box.checked).map((box) => box.value);
  return data.labels.filter((label) => labels.includes(label)).concat(labels.filter((label) => !data.labels.includes(label)));
}

function tick(card, labels) {
  for (const label of labels) addBox(card, label);
  for (const box of boxes(card)) box.checked = labels.includes(box.value);
}

function addBox(card, label) {
  const existing = boxes(card).find((box) => box.value === label);
  if (existing) return existing;
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

// Local time with its offset, as 2026-05-01T14:30:00+02:00.
function now() {
  const date = new Date();
  const minutes = -date.getTimezoneOffset();
  const twoDigits = (number) => String(number).padStart(2, "0");
  const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  const offset = `${minutes < 0 ? "-" : "+"}${twoDigits(hours)}:${twoDigits(rest)}`;
  return new Date(date.getTime() + minutes * 60000).toISOString().slice(0, 19) + offset;
}

function decide(card, newLabels) {
  const comment = card.querySelector(".comment").value.trim();
  decisions.set(clipIndex(card), { oldLabels: clipLabels(card), newLabels, comment, time: now() });
  update();
}

function undo(card) {
  decisions.delete(clipIndex(card));
  tick(card, clipLabels(card));
  update();
}

function update() {
  isSaved = false;
  const stored = {};
  for (const [index, decision] of decisions) stored[clipKey(data.clips[index])] = decision;
  store(storageKey, JSON.stringify(stored));
  show();
}

function show() {
  for (const card of cards) {
    const decision = decisions.get(clipIndex(card));
    const line = card.querySelector(".decision");
    card.classList.toggle("decided", decision !== undefined);
    line.hidden = decision === undefined;
    if (decision) {
      const { oldLabels, newLabels } = decision;
      line.querySelector("output").textContent =
        isSame(oldLabels, newLabels) ? `Unchanged: ${labelText(newLabels)}.` : `${labelText(oldLabels)} → ${labelText(newLabels)}.`;
    }
    card.hidden = (shownKind !== "" && card.dataset.kind !== shownKind) || (undecidedOnly.checked && decision !== undefined);
  }
  const n = decisions.size;
  state.textContent = `${n} of ${data.clips.length} clips decided${n && !isSaved ? ", not yet saved" : ""}`;
}

// The table: earlier corrections, then the decisions on this page, ordered by time.
// A text that a spreadsheet would run as a formula gets an apostrophe, as in spectag.system.output.escape_formula.
const isFormula = (text) => /^'*[=+\-@\t\r\n＝＋－＠]/.test(text) && !/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text);
const quoted = (text) => (/[",\r\n;\t]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const field = (text) => quoted(isFormula(text) ? `'${text}` : text);
const joined = (labels) => labels.map((label) => (/[",\r\n]/.test(label) ? `"${label.replaceAll('"', '""')}"` : label)).join(",");

function table() {
  const rows = [...decisions]
    .sort(([, a], [, b]) => Date.parse(a.time) - Date.parse(b.time))
    .map(([index, { oldLabels, newLabels, comment, time }]) => {
      const { fname, start, end } = data.clips[index];
      return [reviewer.value.trim(), time, fname, start, end, joined(oldLabels), joined(newLabels), comment];
    });
  return [data.columns, ...data.earlier, ...rows].map((row) => `${row.map(field).join(",")}\n`).join("");
}

document.getElementById("download").addEventListener("click", () => {
  if (!reviewer.value.trim()) {
    state.textContent = "Enter your name first: the table lists who decided.";
    reviewer.focus();
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
reviewer.addEventListener("input", () => store("spectag reviewer", reviewer.value));
undecidedOnly.addEventListener("change", show);
for (const button of document.querySelectorAll(".kinds button")) {
  button.addEventListener("click", () => {
    shownKind = button.dataset.kind;
    for (const other of document.querySelectorAll(".kinds button")) other.ariaPressed = String(other === button);
    show();
  });
}
addEventListener("beforeunload", (event) => {
  if (!isSaved) event.preventDefault();
});

// The buttons and fields of each card.
cards.forEach((card, index) => {
  const actions = {
    ".leave": () => { tick(card, clipLabels(card)); decide(card, clipLabels(card)); },
    ".accept": () => { tick(card, data.suggested[index]); decide(card, data.suggested[index]); },
    ".save": () => decide(card, tickedLabels(card)),
    ".undo": () => undo(card),
  };
  for (const [selector, action] of Object.entries(actions)) card.querySelector(selector)?.addEventListener("click", action);
  const otherLabel = card.querySelector(".other-label");
  otherLabel.addEventListener("change", () => {
    const label = otherLabel.value.trim();
    otherLabel.setCustomValidity(label && !data.labels.includes(label) ? "The manifest does not have this label." : "");
    if (label && otherLabel.reportValidity()) {
      addBox(card, label).checked = true;
      otherLabel.value = "";
    }
  });
  card.addEventListener("focusin", () => choose(index, false));
  const decision = decisions.get(clipIndex(card));
  if (decision) {
    tick(card, decision.newLabels);
    card.querySelector(".comment").value = decision.comment;
  }
  card.querySelector(".comment").addEventListener("change", (event) => {
    const decision = decisions.get(clipIndex(card));
    if (decision) { decision.comment = event.target.value.trim(); update(); }
  });
});

// Keyboard shortcuts act on the current card.
function choose(index, scrolls) {
  current = index;
  cards.forEach((card, i) => card.classList.toggle("current", i === index));
  if (scrolls) {
    cards[index].focus({ preventScroll: true });
    cards[index].scrollIntoView({ block: "nearest" });
  }
}

function step(by) {
  for (let index = current + by; index >= 0 && index < cards.length; index += by) {
    if (!cards[index].hidden) return choose(index, true);
  }
}

addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input:not([type=checkbox]), audio");
  if (event.key === "Escape" && isTyping) event.target.blur();
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const card = cards[current];
  const click = (selector) => card?.querySelector(selector)?.click();
  const keys = {
    j: () => step(1),
    k: () => step(-1),
    a: () => click(".accept"),
    l: () => click(".leave"),
    s: () => click(".save"),
    u: () => click(".undo"),
    c: () => card?.querySelector(".comment").focus(),
    " ": () => {
      const audio = card?.querySelector("audio");
      if (audio?.paused) audio.play(); else audio?.pause();
    },
  };
  const isControl = event.target.matches("button, summary, input");
  if (event.key === " " && isControl) return;
  if (/^[1-9]$/.test(event.key)) boxes(card ?? document.body)[event.key - 1]?.click();
  else if (keys[event.key]) keys[event.key]();
  else return;
  event.preventDefault();
});

show();
