// What the model is, in words; and its card, from Markdown to elements. All of it is shown as text.
import { h } from "./elements.js";
import { strings } from "./strings.js";

export function factList(model) {
  const { model: texts } = strings;
  const rows = [
    [model.networks.length > 1 ? texts.ensemble(model.networks.length) : texts.networks, model.networks.map((network) => h("p", {}, texts.network(network)))],
    [texts.licence, [...new Set(model.networks.map((network) => network.licence))].join(", ")],
    [texts.data, texts.clips(model.data.name, model.data.n_clips) + (model.extends ? texts.extended(model.extends) : "")],
    [texts.scores, scoreText(model.scores)],
    [texts.sounds, model.training_sounds ? texts.soundsOf(model.training_sounds) : texts.soundsUnknown],
    [texts.novelty, model.novelty ? texts.noveltyOf(model.novelty) : texts.noNovelty],
    [texts.input, texts.inputOf(model.sample_rate, model.clip_seconds)],
    [texts.version, texts.spectag(model.spectag)],
    [texts.cite, [model.source, model.extends?.source].filter(Boolean).join("; ")],
  ];
  return h("dl", { class: "facts" }, rows.filter(([, text]) => text.length > 0).flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]));
}

function scoreText({ lwlrap_interval: interval, n_clips: clips, on, ...scores }) {
  const { model: texts } = strings;
  const parts = Object.entries(scores).map(([name, value]) => `${texts.score[name]} ${value.toFixed(3)}${name === "lwlrap" && interval ? texts.interval(interval) : ""}`);
  return parts.length === 0 ? texts.noScores : `${parts.join(", ")}${texts.scoresOf(clips, on)}`;
}

const CELL = /(?<!\\)\|/;

// The parts of Markdown that model cards have: headings, paragraphs, lists, tables and code.
export function markdown(text) {
  const lines = withoutHead(text.split(/\r?\n/));
  const elements = [];
  for (let at = 0; at < lines.length;) {
    const [element, next] = block(lines, at);
    if (element) elements.push(element);
    at = next;
  }
  return elements;
}

// Without the settings for Hugging Face between two lines of ---.
function withoutHead(lines) {
  const end = lines[0] === "---" ? lines.indexOf("---", 1) : -1;
  return lines.slice(end + 1);
}

function block(lines, at) {
  const line = lines[at];
  if (line.trim() === "") return [null, at + 1];
  if (line.startsWith("```")) return code(lines, at);
  const heading = /^(#{1,6}) +(.*)$/.exec(line);
  if (heading) return [h(`h${Math.min(6, heading[1].length + 2)}`, {}, inline(heading[2])), at + 1];
  const kind = kindOf(line);
  let end = at;
  while (end < lines.length && lines[end].trim() !== "" && !/^(#{1,6} |```)/.test(lines[end]) && (kind === "list" || kindOf(lines[end]) === kind)) end += 1;
  const part = lines.slice(at, end);
  if (kind === "table") return [table(part), end];
  if (kind === "list") return [list(part), end];
  return [h("p", {}, inline(part.join(" "))), end];
}

const kindOf = (line) => (/^\s*[-*] /.test(line) ? "list" : /^\s*\|/.test(line) ? "table" : "text");

function code(lines, at) {
  const closing = lines.findIndex((line, i) => i > at && line.startsWith("```"));
  const end = closing < 0 ? lines.length : closing;
  return [h("pre", {}, h("code", {}, lines.slice(at + 1, end).join("\n"))), end + 1];
}

function list(lines) {
  const items = [];
  for (const line of lines) {
    if (/^\s*[-*] /.test(line)) items.push(line.replace(/^\s*[-*] /, ""));
    else items[items.length - 1] += ` ${line.trim()}`;
  }
  return h("ul", {}, items.map((item) => h("li", {}, inline(item))));
}

function table(lines) {
  const rows = lines.map((line) => line.trim().replace(/^\|/, "").replace(/\|$/, "").split(CELL).map((cell) => cell.trim().replaceAll("&#124;", "|")));
  const [head, ...body] = rows.filter((cells) => !cells.every((cell) => /^:?-+:?$/.test(cell)));
  return h("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": strings.model.card }, h("table", {},
    h("thead", {}, h("tr", {}, (head ?? []).map((cell) => h("th", { scope: "col" }, inline(cell))))),
    h("tbody", {}, body.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, inline(cell))))))));
}

// Code and bold text; links stay as they are written.
function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).filter(Boolean).map((part) => {
    if (/^`.+`$/.test(part)) return h("code", {}, part.slice(1, -1));
    if (/^\*\*.+\*\*$/.test(part)) return h("strong", {}, part.slice(2, -2));
    return part;
  });
}
