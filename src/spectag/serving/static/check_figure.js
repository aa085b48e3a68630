// The spectrogram of a detection with its sound: the detection is marked, and a click plays from there.
import { blobOf } from "./blobs.js";
import { h, svg } from "./elements.js";
import { strings } from "./strings.js";

const LEFT = 40;
const TOP = 16;
const WIDTH = 392;
const HEIGHT = 138;
const BOTTOM = TOP + HEIGHT;

// Round numbers from 0 up to `end`, about six.
export function ticks(end) {
  const rough = end / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  return Array.from({ length: Math.floor(end / step + 1e-9) + 1 }, (_, index) => Number((index * step).toPrecision(6)));
}

// `card`: the answer of the server. Returns the element and its sound, which has to be closed.
export function figureWithSound(card, name) {
  const source = URL.createObjectURL(blobOf(card.sound));
  const audio = h("audio", { controls: true, preload: "auto", "aria-label": strings.check.sound(name), src: source });
  const drawing = spectrogram(card.figure, audio);
  const element = h("div", {}, drawing, audio, h("p", { class: "excerpt" }, card.text));
  const close = () => {
    audio.pause();
    audio.removeAttribute("src");
    audio.load(); // ends the reading of the source, which is then gone
    URL.revokeObjectURL(source);
  };
  return { element, audio, close };
}

function spectrogram(figure, audio) {
  const { seconds } = figure;
  const x = (time) => LEFT + (WIDTH * time) / seconds;
  const playhead = svg("path", { class: "playhead", d: `M${LEFT} ${TOP}V${BOTTOM}`, visibility: "hidden" });
  const frame = svg("rect", { class: "frame seeks", x: LEFT, y: TOP, width: WIDTH, height: HEIGHT });
  const picture = svg("image", {
    class: "picture", x: -figure.frame_seconds / 2, y: 0, width: figure.n_frames * figure.frame_seconds, height: 1,
    preserveAspectRatio: "none", href: figure.image,
  });
  const inside = svg("svg", { x: LEFT, y: TOP, width: WIDTH, height: HEIGHT, viewBox: `0 0 ${seconds} 1`, preserveAspectRatio: "none" }, picture);
  const drawing = svg("svg", { class: "spectrogram", viewBox: `0 0 ${LEFT + WIDTH + 8} ${BOTTOM + 32}`, role: "img", "aria-label": figure.title },
    inside, frame, figure.marks.map((mark) => markOf(mark, x)), playhead, axes(figure, x));
  connect(drawing, frame, playhead, audio, seconds);
  return drawing;
}

function markOf({ start, end, text }, x) {
  return [
    svg("path", { class: "span", d: `M${x(start)} ${TOP}v${HEIGHT}M${x(end)} ${TOP}v${HEIGHT}` }),
    svg("rect", { class: "span", x: x(start), y: TOP - 5.5, width: Math.max(x(end) - x(start), 2), height: 4.5 }, svg("title", {}, text)),
  ];
}

function axes(figure, x) {
  const hertz = figure.frequency_ticks.map(([text, fraction]) => {
    const y = BOTTOM - fraction * HEIGHT;
    return [svg("path", { class: "axis", d: `M${LEFT} ${y}h-4` }), svg("text", { class: "end", x: LEFT - 6, y: y + 4 }, text)];
  });
  const times = ticks(figure.seconds).map((tick) => [
    svg("path", { class: "axis", d: `M${x(tick)} ${BOTTOM}v4` }), svg("text", { x: x(tick), y: BOTTOM + 16 }, String(tick)),
  ]);
  return [
    hertz, times,
    svg("text", { class: "end", x: LEFT - 6, y: TOP - 5 }, strings.check.hertz),
    svg("text", { class: "end", x: LEFT + WIDTH, y: BOTTOM + 29 }, strings.check.seconds),
  ];
}

function connect(drawing, frame, playhead, audio, seconds) {
  const move = () => {
    playhead.setAttribute("visibility", "visible");
    playhead.setAttribute("transform", `translate(${Math.min(audio.currentTime / seconds, 1) * WIDTH} 0)`);
    if (!audio.paused && drawing.isConnected) requestAnimationFrame(move);
  };
  audio.addEventListener("play", move);
  audio.addEventListener("seeked", move);
  frame.addEventListener("click", (event) => {
    const box = frame.getBoundingClientRect();
    audio.currentTime = seconds * Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    audio.play().catch(() => {}); // the player shows why it can't play
  });
}
