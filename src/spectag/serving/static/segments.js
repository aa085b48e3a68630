// The segments in which a label is on: the rule of find_segments in spectag/models/timeline.py, number for number.
// Probabilities and thresholds are compared in float32, times to the microsecond.

const inMicroseconds = (seconds) => roundHalfToEven(seconds * 1e6) / 1e6;

// As numpy's round: halves go to the even neighbour.
function roundHalfToEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

// Start and end of the cell of each window: the overlap of two windows is divided in its middle.
export function cellsOf(starts, ends) {
  const cellStarts = Float64Array.from(starts);
  const cellEnds = Float64Array.from(ends);
  for (let i = 0; i + 1 < cellStarts.length; i += 1) {
    if (starts[i + 1] < ends[i]) {
      const middle = (starts[i + 1] + ends[i]) / 2;
      cellEnds[i] = middle;
      cellStarts[i + 1] = middle;
    }
  }
  return { starts: cellStarts, ends: cellEnds };
}

// Windows in each median if nothing else is chosen: 3 if three successive windows overlap, otherwise 1.
export function defaultSmoothing(starts, ends) {
  return starts.length > 2 && inMicroseconds(ends[0] - starts[2]) > 0 ? 3 : 1;
}

// Values whose gaps shorter than `size` are filled (grey closing): the minimum of the maxima around each value.
export function gapsClosed(values, size) {
  if (size === 1 || values.length === 0) return values;
  return extremes(extremes(values, size, Math.max), size, Math.min);
}

// The greatest (Math.max) or smallest (Math.min) of each value and its neighbours.
function extremes(values, size, choose) {
  const half = (size - 1) / 2, last = values.length - 1;
  const chosen = new Float32Array(values.length);
  let best = NaN; // found again only when the best one is no longer a neighbour
  for (let i = 0; i < values.length; i += 1) {
    if (i > 0 && values[i - half - 1] !== best) best = choose(best, values[Math.min(last, i + half)]);
    else best = values.subarray(Math.max(0, i - half), i + half + 1).reduce((first, second) => choose(first, second));
    chosen[i] = best;
  }
  return chosen;
}

// What is compared with a threshold; kept for each label, because a slider asks for it again and again.
const kept = new WeakMap();

function smoothed(windows, probabilities, smoothing) {
  const { frames = null } = windows;
  const size = smoothing ?? frames?.smoothed ?? defaultSmoothing(windows.starts, windows.ends);
  const known = kept.get(probabilities);
  if (known?.size === size && known.windows === windows) return known.values;
  const values = medianFiltered(frames ? gapsClosed(probabilities, frames.closed) : probabilities, size);
  kept.set(probabilities, { size, windows, values });
  return values;
}

// The median of each value and its neighbours; the first and last values are repeated beyond the ends.
export function medianFiltered(values, size) {
  if (size === 1 || values.length === 0) return values;
  const half = (size - 1) / 2, last = values.length - 1;
  const at = (i) => values[Math.min(last, Math.max(0, i))];
  const filtered = new Float32Array(values.length);
  const sorted = Float32Array.from({ length: size }, (_, k) => at(k - half)).sort();
  for (let i = 0; i < values.length; i += 1) {
    filtered[i] = sorted[half];
    exchange(sorted, at(i - half), at(i + half + 1));
  }
  return filtered;
}

// Puts a value into a sorted list in the place of another one: it stays sorted.
function exchange(sorted, old, added) {
  let i = sorted.indexOf(old);
  for (; i > 0 && sorted[i - 1] > added; i -= 1) sorted[i] = sorted[i - 1];
  for (; i + 1 < sorted.length && sorted[i + 1] < added; i += 1) sorted[i] = sorted[i + 1];
  sorted[i] = added;
}

// `windows`: { starts, ends } in seconds; frames have `frames`: { closed, smoothed, hysteresis }, which say how they are
// joined. `options`: threshold, hysteresis and smoothing (null: by default), minWindows, minSeconds, maxGap. Returns a
// list of { start, end, probability }, in the order of time.
export function findSegments(windows, probabilities, options) {
  const { threshold, hysteresis = null, smoothing = null, minWindows = 1, minSeconds = 0, maxGap = 0 } = options;
  const high = Math.fround(threshold);
  if (!probabilities.some((value) => value >= high)) return [];
  const cells = windows.cells ?? cellsOf(windows.starts, windows.ends);
  const values = smoothed(windows, probabilities, smoothing);
  const low = Math.fround((hysteresis ?? windows.frames?.hysteresis ?? 0.7) * high);
  const runs = runsOn(values, high, low, minWindows);
  return joined(runs, cells, values, maxGap).filter((segment) => inMicroseconds(segment.end - segment.start) >= minSeconds);
}

// First and last window of each run at or above `low` that reaches `high`.
function runsOn(values, high, low, minWindows) {
  const runs = [];
  for (let i = 0; i < values.length; i += 1) {
    if (!(values[i] >= low)) continue;
    const first = i;
    let peak = values[i];
    while (i + 1 < values.length && values[i + 1] >= low) {
      i += 1;
      peak = Math.max(peak, values[i]);
    }
    if (peak >= high && i - first + 1 >= minWindows) runs.push({ first, last: i });
  }
  return runs;
}

// Segments from runs. Also within a run, cells that do not touch are joined only up to the gap.
function joined(runs, cells, values, maxGap) {
  const segments = [];
  for (const { first, last } of runs) {
    for (let i = first; i <= last; i += 1) {
      const previous = segments.at(-1);
      if (previous && inMicroseconds(cells.starts[i] - previous.end) <= maxGap) previous.end = cells.ends[i];
      else segments.push({ start: cells.starts[i], end: cells.ends[i], probability: -Infinity });
      const segment = segments.at(-1);
      segment.probability = Math.max(segment.probability, values[i]);
    }
  }
  return segments;
}
