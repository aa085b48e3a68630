const dataElement = document.getElementById("data");
const data = dataElement ? JSON.parse(dataElement.textContent) : { cards: [], states: [], revision: 0 };
const byId = (id) => document.getElementById(id);
const { cards, states } = data;
let revision = data.revision;
let shownLabel = null; // null: all
let current = -1;
let heard = []; // other labels of the current card
let isSaving = false;
const decidedHere = [];
const views = new Map(); // promises of HTML, by card

const shown = (number) => number.toLocaleString("en");
const isDecided = (index) => states[index].decision !== "";
const isShown = (index) => shownLabel === null || cards[index].label === shownLabel;

// With --presence, one confirmation is enough for a label, a site and a day: the others are not asked.
const confirmedUnits = () => new Set(cards.filter((card, index) => card.unit !== null && states[index].decision === "yes").map((card) => card.unit));
function openCards() {
  const confirmed = confirmedUnits();
  return cards.map((card, index) => !isDecided(index) && !confirmed.has(card.unit));
}

function nextOpen(from) {
  const open = openCards();
  for (let step = 1; step <= cards.length; step += 1) {
    const index = (from + step + cards.length) % cards.length;
    if (open[index] && isShown(index)) return index;
  }
  return -1;
}

// Local storage is only a convenience: it may be switched off.
const load = (key) => {
  try { return localStorage.getItem(key); } catch { return null; }
};
const store = (key, value) => {
  try { localStorage.setItem(key, value); } catch { /* typed again the next time */ }
};

function report(text, isProblem = false) {
  byId("state").textContent = text;
  byId("state").classList.toggle("problem", isProblem);
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new Error("the server does not answer. Run the same spectag check again: what was saved is kept");
  }
  const text = await response.text();
  if (!response.ok) throw new Error(text || response.statusText);
  return text;
}

// Takes over what changed on the server, and returns the changed cards.
function apply(text) {
  const answer = JSON.parse(text);
  if (answer.revision <= revision) return []; // overtaken by a later answer
  revision = answer.revision;
  for (const [index, state] of Object.entries(answer.changes)) states[index] = state;
  return Object.keys(answer.changes).map(Number);
}

// Progress of each label, and of all under "".
function counts() {
  const open = openCards();
  const found = new Map();
  cards.forEach((card, index) => {
    for (const label of ["", card.label]) {
      if (!found.has(label)) found.set(label, { nDecided: 0, nOpen: 0, n: 0 });
      const numbers = found.get(label);
      numbers.n += 1;
      numbers.nDecided += isDecided(index);
      numbers.nOpen += open[index];
    }
  });
  return found;
}

function showProgress() {
  const all = counts();
  for (const button of document.querySelectorAll(".label-progress button")) {
    const { nOpen, n } = all.get(button.dataset.label);
    button.querySelector(".figure").textContent = `${shown(n - nOpen)} of ${shown(n)}`;
    button.querySelector(".meter").style.setProperty("--value", `${(100 * (n - nOpen)) / n}%`);
    button.ariaPressed = String(button.dataset.label === (shownLabel ?? ""));
  }
  const { nDecided, nOpen, n } = all.get(shownLabel ?? "");
  const nSpared = n - nDecided - nOpen;
  report(`${shown(nDecided)} of ${shown(n)} checked${nSpared ? `, ${shown(nSpared)} not needed` : ""}`);
}

// The card
function fetchView(index) {
  if (!views.has(index)) {
    const view = ask(`cards/${index}`);
    views.set(index, view);
    view.catch(() => views.delete(index));
    while (views.size > 12) views.delete(views.keys().next().value);
  }
  return views.get(index);
}

function showState() {
  const { decision, reviewer, other_labels: others, comment } = states[current];
  heard = [...others];
  byId("comment").value = comment;
  byId("other-label").value = "";
  showHeard();
  for (const button of document.querySelectorAll(".answers [data-decision]")) {
    button.ariaPressed = String(button.dataset.decision === decision);
  }
  byId("card").classList.toggle("decided", decision !== "");
  const line = document.querySelector(".decision");
  line.hidden = decision === "";
  const words = { yes: "Yes", no: "No", unsure: "Not sure" }[decision];
  line.querySelector("output").textContent = reviewer ? `${words}, by ${reviewer}.` : `${words}.`;
}

function showHeard() {
  byId("card").querySelector(".heard").replaceChildren(...heard.map((label) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "chip";
    button.textContent = `${label} ×`;
    button.ariaLabel = `remove ${label}`;
    button.addEventListener("click", () => {
      heard = heard.filter((other) => other !== label);
      showHeard();
      resave();
      byId("card").focus({ preventScroll: true });
    });
    item.append(button);
    return item;
  }));
}

function showFacts() {
  const card = cards[current];
  byId("facts").textContent = byId("scores").checked && card.score ? `${card.facts} · score ${card.score}` : card.facts;
}

async function show(index) {
  current = index;
  byId("done").hidden = true;
  byId("card").hidden = false;
  byId("question").textContent = `Is this “${cards[index].label}”?`;
  showFacts();
  showState();
  showProgress();
  byId("card").focus({ preventScroll: true });
  const view = byId("view");
  view.textContent = "Loading …";
  view.classList.add("loading");
  let html = null;
  try {
    html = await fetchView(index);
  } catch (error) {
    if (current === index) view.textContent = `The sound can't be shown: ${error.message}`;
  }
  if (current !== index || html === null) return;
  view.classList.remove("loading");
  view.innerHTML = html; // the server has escaped every text in it, and the policy lets no other script run
  const audio = view.querySelector("audio");
  if (audio) {
    connectPlayer(audio);
    if (byId("autoplay").checked) audio.play().catch(() => {}); // browsers want a click or key first
  }
  const following = nextOpen(index);
  if (following >= 0 && following !== index) fetchView(following).catch(() => {});
}

function showDone() {
  current = -1;
  showProgress();
  const { nDecided, n } = counts().get(shownLabel ?? "");
  const { nOpen } = counts().get("");
  const done = byId("done");
  byId("card").hidden = true;
  byId("view").replaceChildren();
  done.hidden = false;
  const of = shownLabel === null ? "" : ` of “${shownLabel}”`;
  const text = nDecided === n ? `All ${shown(n)}${of} are checked.` : `Nothing is left${of}: ${shown(nDecided)} of ${shown(n)} were enough.`;
  done.querySelector("h2").textContent = text;
  byId("rest").hidden = nOpen === 0;
  byId("finished").hidden = nOpen > 0;
  done.focus({ preventScroll: true });
}

function goOn(from) {
  const index = nextOpen(from);
  if (index >= 0) show(index); else showDone();
}

function goBack() {
  for (let index = (current < 0 ? cards.length : current) - 1; index >= 0; index -= 1) {
    if (isShown(index)) return show(index);
  }
}

// Decisions: each is on disk before the server answers.
async function save(index, decision) {
  const body = { index, decision, reviewer: byId("reviewer").value.trim(), since: revision };
  if (decision !== "") Object.assign(body, { other_labels: heard, comment: byId("comment").value.trim() });
  isSaving = true;
  try {
    apply(await ask("decisions", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }));
    return true;
  } catch (error) {
    report(`Not saved: ${error.message}`, true);
    return false;
  } finally {
    isSaving = false;
  }
}

// A name is not needed for a decision, and typing it must not be forced between two keys.
function showNameHint() {
  byId("name-hint").hidden = byId("reviewer").value.trim() !== "";
}

async function decide(decision) {
  if (current < 0 || isSaving) return;
  const index = current;
  if (!(await save(index, decision))) return;
  decidedHere.push(index);
  goOn(index);
}

// Labels and comments that are added to a decision later are saved, too.
async function resave() {
  if (current < 0 || isSaving || !isDecided(current)) return;
  if (await save(current, states[current].decision)) showProgress();
}

async function undo() {
  if (isSaving) return;
  let index = current;
  if (index < 0 || !isDecided(index)) {
    index = decidedHere.pop() ?? -1;
    while (index >= 0 && !isDecided(index)) index = decidedHere.pop() ?? -1;
  }
  if (index < 0) { report("Nothing to undo on this page."); return; }
  if (!(await save(index, ""))) return;
  if (!isShown(index)) shownLabel = null;
  show(index);
}

function addHeard() {
  const input = byId("other-label");
  const label = input.value.trim();
  if (label && label !== cards[current].label && !heard.includes(label)) heard.push(label);
  input.value = "";
  showHeard();
  if (label) resave();
}

// Another browser may decide, too.
async function poll() {
  if (document.hidden || isSaving) return;
  try {
    const changed = apply(await ask(`decisions?since=${revision}`));
    if (changed.length || byId("state").classList.contains("problem")) showProgress();
    if (changed.includes(current)) showState();
  } catch (error) {
    report(`Not connected: ${error.message}`, true);
  }
}

if (cards.length) {
  if (!byId("reviewer").value) byId("reviewer").value = load("spectag reviewer") ?? "";
  showNameHint();
  byId("reviewer").addEventListener("input", () => {
    store("spectag reviewer", byId("reviewer").value);
    showNameHint();
  });
  byId("reviewer").addEventListener("keydown", (event) => {
    if (event.key === "Enter") byId("card").focus({ preventScroll: true });
  });
  for (const button of document.querySelectorAll(".answers [data-decision]")) {
    button.addEventListener("click", () => decide(button.dataset.decision));
  }
  for (const button of document.querySelectorAll(".label-progress button")) {
    button.addEventListener("click", () => {
      shownLabel = button.dataset.label || null;
      goOn(current >= 0 && isShown(current) ? current - 1 : -1);
    });
  }
  byId("undo").addEventListener("click", undo);
  byId("next").addEventListener("click", () => goOn(current));
  byId("previous").addEventListener("click", goBack);
  byId("look-back").addEventListener("click", goBack);
  byId("other-labels-left").addEventListener("click", () => { shownLabel = null; goOn(-1); });
  byId("scores").addEventListener("change", () => { if (current >= 0) showFacts(); });
  byId("comment").addEventListener("change", resave);
  byId("other-label").addEventListener("change", addHeard);
  for (const id of ["comment", "other-label"]) {
    byId(id).addEventListener("keydown", (event) => {
      if (event.key === "Enter") byId("card").focus({ preventScroll: true }); // which saves the field
    });
  }
  addEventListener("keydown", (event) => {
    const isTyping = event.target.matches("input:not([type=checkbox]), audio");
    if (event.key === "Escape" && isTyping) byId("card").focus({ preventScroll: true });
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    const audio = byId("view").querySelector("audio");
    const keys = {
      y: () => decide("yes"),
      n: () => decide("no"),
      s: () => decide("unsure"),
      j: () => goOn(current),
      k: goBack,
      u: undo,
      o: () => byId("other-label").focus(),
      c: () => byId("comment").focus(),
      " ": () => { if (audio?.paused) audio.play(); else audio?.pause(); },
    };
    if (event.key === " " && event.target.matches("button, summary, input")) return;
    if (!keys[event.key] || event.repeat) return;
    event.preventDefault();
    keys[event.key]();
  });
  setInterval(poll, 3000);
  goOn(-1);
}
