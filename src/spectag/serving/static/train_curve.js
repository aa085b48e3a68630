// The losses of fine-tuning by epoch, one line for each training.
import { h, svg } from "./elements.js";
import { strings } from "./strings.js";

const texts = strings.train;
const WIDTH = 640, HEIGHT = 200, LEFT = 44, BOTTOM = 24, TOP = 8;

// Draws the epochs of a training into a figure, which is hidden without any.
export function drawCurve(figure, epochs) {
  const key = JSON.stringify([epochs.length, epochs.at(-1)]);
  if (figure.dataset.key === key) return;
  figure.dataset.key = key;
  figure.hidden = epochs.length === 0;
  if (epochs.length === 0) { figure.replaceChildren(); return; }
  const parts = [...new Set(epochs.map((epoch) => epoch.part))];
  const losses = epochs.flatMap((epoch) => [epoch.train_loss, epoch.valid_loss]).filter(Number.isFinite);
  const scale = { last: Math.max(2, ...epochs.map((epoch) => epoch.n_epochs ?? epoch.epoch)), highest: Math.max(...losses) * 1.05 || 1 };
  const lines = parts.flatMap((part, index) => {
    const own = epochs.filter((epoch) => epoch.part === part);
    return [line(own, "train_loss", scale, index, "train"), line(own, "valid_loss", scale, index, "valid")];
  });
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": texts.curveLabel(epochs.at(-1)) }, ...axes(scale), ...lines.filter((one) => one !== null));
  figure.replaceChildren(drawing, h("figcaption", {}, texts.curve(epochs.at(-1))));
}

const x = (epoch, { last }) => LEFT + ((WIDTH - LEFT - 8) * (epoch - 1)) / (last - 1);
const y = (loss, { highest }) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - loss / highest);

function line(epochs, name, scale, index, kind) {
  const points = epochs.filter((epoch) => Number.isFinite(epoch[name])).map((epoch) => `${x(epoch.epoch, scale).toFixed(1)},${y(epoch[name], scale).toFixed(1)}`);
  return points.length === 0 ? null : svg("polyline", { points: points.join(" "), class: `${kind} part-${index % 6}` });
}

function axes(scale) {
  const text = (content, attributes) => svg("text", attributes, content);
  return [
    svg("path", { d: `M${LEFT},${TOP} V${HEIGHT - BOTTOM} H${WIDTH - 8}`, class: "axis" }),
    text(scale.highest.toPrecision(2), { x: LEFT - 6, y: TOP + 10, class: "end" }),
    text("0", { x: LEFT - 6, y: HEIGHT - BOTTOM, class: "end" }),
    text("1", { x: LEFT, y: HEIGHT - 6, class: "middle" }),
    text(texts.epochs(scale.last), { x: WIDTH - 8, y: HEIGHT - 6, class: "end" }),
  ];
}
