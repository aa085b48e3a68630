"use strict";

// Whatever needs a script is hidden until there is one.
for (const part of document.querySelectorAll(".needs-script")) part.hidden = false;

// On paper nothing can be opened any more.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});

// Tables: sorted by the column whose head is pressed, what has no value last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const isText = column === 0;
      const first = isText ? "ascending" : "descending";
      const order = head.ariaSort === null ? first : head.ariaSort === "ascending" ? "descending" : "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => {
        const cell = row.cells[column];
        return isText ? cell.textContent : parseFloat(cell.dataset.value ?? "NaN");
      };
      const rows = [...body.rows].map((row) => [value(row), row]);
      rows.sort(([a], [b]) => {
        if (isText) return sign * a.localeCompare(b);
        return (Number.isNaN(a) - Number.isNaN(b)) || sign * (a - b) || 0;
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}

// The table of labels: only those that are looked for.
const labelTable = document.getElementById("label-table");
if (labelTable) {
  const wanted = document.getElementById("label-filter");
  const withClips = document.getElementById("label-with-clips");
  const rows = [...labelTable.tBodies[0].rows];
  const filter = () => {
    const text = wanted.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const name = row.cells[0].textContent.toLowerCase();
      row.hidden = !name.includes(text) || (withClips.checked && row.dataset.clips === "0");
      shown += !row.hidden;
    }
    document.getElementById("label-count").textContent = `${shown} of ${rows.length} labels`;
  };
  wanted.addEventListener("input", filter);
  withClips.addEventListener("change", filter);
  filter();
}

// A label that is pointed at, or has the focus, lights up everywhere; one that is pressed stays lit.
let kept = null;
const light = (label) => {
  for (const part of document.querySelectorAll("[data-label].lit")) part.classList.remove("lit");
  for (const each of [kept, label]) {
    if (each === null) continue;
    for (const part of document.querySelectorAll(`[data-label="${each}"]`)) part.classList.add("lit");
  }
  document.body.classList.toggle("some-lit", kept !== null || label !== null);
};
const labelOf = (event) => event.target.closest?.("[data-label]")?.dataset.label ?? null;
for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, (event) => light(labelOf(event)));
document.addEventListener("click", (event) => {
  const label = labelOf(event);
  if (label === null || !event.target.closest("button.key, a, path.curve")) return;
  kept = kept === label && !event.target.closest("a") ? null : label;
  for (const key of document.querySelectorAll("button.key")) key.ariaPressed = String(key.dataset.label === kept);
  light(label);
});

// Clips: a line moves over the spectrogram as the sound plays; pressing into it plays from there.
for (const card of document.querySelectorAll(".card")) {
  const audio = card.querySelector("audio");
  const plot = card.querySelector("svg.spectrogram");
  if (audio && plot) {
    const frame = plot.querySelector(".frame");
    const playhead = plot.querySelector(".playhead");
    const seconds = parseFloat(plot.dataset.seconds);
    const width = frame.width.baseVal.value;
    const move = () => {
      playhead.setAttribute("visibility", "visible");
      playhead.setAttribute("transform", `translate(${Math.min(audio.currentTime / seconds, 1) * width} 0)`);
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
      audio.currentTime = Math.max(0, (event.clientX - box.left) / box.width) * seconds;
      audio.play().catch(() => {}); // the player tells why it can't
    });
  }
  const buttons = [...card.querySelectorAll("button[data-map]")];
  const layers = [...card.querySelectorAll("g[data-map]")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const label = button.ariaPressed === "true" ? null : button.dataset.map;
      for (const other of buttons) other.ariaPressed = String(other.dataset.map === label);
      for (const layer of layers) layer.setAttribute("visibility", layer.dataset.map === label ? "visible" : "hidden");
      card.classList.toggle("mapped", label !== null);
    });
  }
}
