// What the points of the map are coloured by: a group for each point, and a name and a colour for each group.
import { differentColors } from "./colors.js";
import { strings } from "./strings.js";

const PALETTE = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#b8901c", "#4aa3a0", "#d37295", "#9c755f", "#7a8fd6", "#79a534", "#c25f9f"];
const HOURS = ["#3b4a8c", "#5a5fb0", "#c77d3a", "#d9a441", "#b8a12c", "#d98b41", "#b0586b", "#5b4a94"]; // night is blue, day is yellow
const ERRORS = { agrees: "#4e79a7", missed: "#e15759", extra: "#f28e2b" };
const OTHER = "#8d8d94";
const HOURS_IN_GROUP = 3;

export const MODES = ["label", "site", "hour", "month", "error"];

// `map`: the answer of the server; `labelColors`: colours of labels by name. Returns { codes, groups }: the index of the
// group of each clip, and { name, color, count, key } of each group.
export function colouring(mode, map, labelColors) {
  if (mode === "hour") return grouped(map, (row) => hourOf(map, row), HOURS.map((color, index) => [index, strings.explore.hours(index * HOURS_IN_GROUP, (index + 1) * HOURS_IN_GROUP), color]));
  if (mode === "month") return grouped(map, (row) => monthOf(map, row), PALETTE.map((color, index) => [index, strings.explore.month(index), color]));
  if (mode === "error") return grouped(map, (row) => map.errors[row][0], Object.entries(ERRORS).map(([kind, color]) => [kind, strings.explore.errors[kind], color]), "unknown");
  if (mode === "site") return grouped(map, (row) => map.sites[row] || null, frequent(map.sites.filter(Boolean), (name) => name, () => null));
  return byLabel(map, labelColors);
}

// Of several labels, the rarest one colours the point: otherwise it would hardly be seen.
function byLabel(map, labelColors) {
  const counts = new Array(map.label_names.length).fill(0);
  for (const labels of map.labels) for (const label of labels) counts[label] += 1;
  const rarest = map.labels.map((labels) => labels.reduce((best, label) => (best === null || counts[label] < counts[best] ? label : best), null));
  const known = frequent(rarest.filter((label) => label !== null), (label) => map.label_names[label], (label) => labelColors.get(map.label_names[label]));
  return grouped(map, (row) => rarest[row] ?? (map.labelled[row] ? "none" : "open"), [...known, ["none", strings.explore.noLabel, "#b9b9c0"], ["open", strings.explore.notLabelled, "#6f6f78"]]);
}

// The most frequent values as groups, as many as there are colours.
function frequent(values, name, color) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => b[1] - a[1]).slice(0, PALETTE.length);
  const colors = differentColors(sorted.map(([value], index) => [value, index]), ([value, index]) => color(value) ?? PALETTE[index]);
  return [...colors].map(([[value], shown]) => [value, name(value), shown]);
}

function grouped(map, keyOf, known, other = "other") {
  const groups = known.map(([key, name, color]) => ({ key, name, color, count: 0 }));
  const rest = { key: other, name: strings.explore.others[other], color: OTHER, count: 0 };
  const numbers = new Map(groups.map((group, index) => [group.key, index]));
  groups.push(rest);
  const codes = new Uint8Array(map.numbers.length);
  for (let row = 0; row < codes.length; row += 1) {
    codes[row] = numbers.get(keyOf(row)) ?? groups.length - 1;
    groups[codes[row]].count += 1;
  }
  return { codes, groups };
}

// The time of a clip: that of its recording and where it starts in it.
export function timeOf(map, row) {
  const start = Date.parse(`${map.recorded[row]}Z`);
  return Number.isNaN(start) ? null : new Date(start + 1000 * map.starts[row]);
}

function hourOf(map, row) {
  const time = timeOf(map, row);
  return time === null ? null : Math.floor(time.getUTCHours() / HOURS_IN_GROUP);
}

function monthOf(map, row) {
  return timeOf(map, row)?.getUTCMonth() ?? null;
}
