// Colours of a spectrogram: matplotlib's magma, at 17 points.
const POINTS = [
  [0, 0, 4], [10, 8, 34], [29, 17, 71], [54, 16, 107], [81, 18, 124], [106, 28, 129], [131, 38, 129], [156, 46, 127],
  [183, 55, 121], [208, 65, 111], [231, 82, 99], [245, 107, 92], [252, 137, 97], [254, 167, 114], [254, 196, 136],
  [253, 226, 163], [252, 253, 191],
];

// The colour of each byte of a tile, as 32-bit pixels: black at `lowest`, brightest at `highest`.
export function palette(lowest, highest) {
  const pixels = new Uint32Array(256);
  const bytes = new Uint8ClampedArray(pixels.buffer);
  for (let value = 0; value < 256; value += 1) {
    const position = 16 * Math.min(1, Math.max(0, (value - lowest) / Math.max(1, highest - lowest)));
    const below = Math.min(15, Math.floor(position));
    const rest = position - below;
    for (let channel = 0; channel < 3; channel += 1) {
      bytes[4 * value + channel] = POINTS[below][channel] * (1 - rest) + POINTS[below + 1][channel] * rest;
    }
    bytes[4 * value + 3] = 255;
  }
  return pixels;
}

// Those of labels, after some that no label has of its own; see spectag/reporting/label_colors.py.
const LABEL_COLORS = ["#8a7a2e", "#5b5fc7", "#7a4a1e", "#e8837c", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#aa2211", "#773366"];

// A colour for each label of a picture, by label: its own one, unless an earlier label of the picture has it. When all
// colours are used, labels have their own again.
export function differentColors(labels, ownColor) {
  const colors = new Map();
  const used = new Set();
  for (const label of labels) {
    const own = ownColor(label);
    const color = used.has(own) ? LABEL_COLORS.find((one) => !used.has(one)) ?? own : own;
    used.add(color);
    colors.set(label, color);
  }
  return colors;
}
