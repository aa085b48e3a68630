// Details are opened for printing.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});

// Tables are sorted by the column whose heading is clicked; cells without a value come last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const isText = column === 0;
      const first = isText ? "ascending" : "descending";
      const order = heading.ariaSort === null ? first : heading.ariaSort === "ascending" ? "descending" : "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", order);
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

// The table of labels can be filtered.
const labelTable = document.getElementById("label-table");
if (labelTable) {
  const search = document.getElementById("label-filter");
  const withClips = document.getElementById("label-with-clips");
  const rows = [...labelTable.tBodies[0].rows];
  const filter = () => {
    const text = search.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const name = row.cells[0].textContent.toLowerCase();
      row.hidden = !name.includes(text) || (withClips.checked && row.dataset.clips === "0");
      shown += !row.hidden;
    }
    document.getElementById("label-count").textContent = `${shown} of ${rows.length} labels`;
  };
  search.addEventListener("input", filter);
  withClips.addEventListener("change", filter);
  filter();
}

// A label under the pointer or with the focus is highlighted everywhere; a clicked one stays highlighted.
let pinned = null;
const highlight = (label) => {
  for (const part of document.querySelectorAll("[data-label].lit")) part.classList.remove("lit");
  for (const each of [pinned, label]) {
    if (each === null) continue;
    for (const part of document.querySelectorAll(`[data-label="${each}"]`)) part.classList.add("lit");
  }
  document.body.classList.toggle("some-lit", pinned !== null || label !== null);
};
const labelOf = (event) => event.target.closest?.("[data-label]")?.dataset.label ?? null;
for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, (event) => highlight(labelOf(event)));
document.addEventListener("click", (event) => {
  const label = labelOf(event);
  if (label === null || !event.target.closest("button.key, a, path.curve")) return;
  pinned = pinned === label && !event.target.closest("a") ? null : label;
  for (const key of document.querySelectorAll("button.key")) key.ariaPressed = String(key.dataset.label === pinned);
  highlight(label);
});

// The attribution map of a clicked label is shown.
for (const card of document.querySelectorAll(".card")) {
  const buttons = [...card.querySelectorAll("button[data-map]")];
  const maps = [...card.querySelectorAll("g[data-map]")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const label = button.ariaPressed === "true" ? null : button.dataset.map;
      for (const other of buttons) other.ariaPressed = String(other.dataset.map === label);
      for (const map of maps) map.setAttribute("visibility", map.dataset.map === label ? "visible" : "hidden");
      card.classList.toggle("mapped", label !== null);
    });
  }
}
