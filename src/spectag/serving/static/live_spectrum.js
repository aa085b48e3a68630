// Columns of a mel spectrogram from samples as they come: those of compute_log_mel in spectag/audio/mel.py, as bytes.

const LEAST_POWER = 1e-10;

// The power of each frequency of an FFT (radix 2). `size` is a power of 2.
export class PowerSpectrum {
  constructor(size) {
    this.size = size;
    this.real = new Float64Array(size);
    this.imaginary = new Float64Array(size);
    this.cosines = Float64Array.from({ length: size / 2 }, (_, k) => Math.cos((2 * Math.PI * k) / size));
    this.sines = Float64Array.from({ length: size / 2 }, (_, k) => -Math.sin((2 * Math.PI * k) / size));
    this.order = reversedBits(size);
    this.power = new Float64Array(size / 2 + 1);
  }

  of(samples) {
    const { size, real, imaginary, power } = this;
    for (let i = 0; i < size; i += 1) real[this.order[i]] = samples[i];
    imaginary.fill(0);
    for (let length = 2; length <= size; length *= 2) this.combine(length);
    for (let k = 0; k < power.length; k += 1) power[k] = real[k] * real[k] + imaginary[k] * imaginary[k];
    return power;
  }

  // The transforms of halves become transforms of `length` values.
  combine(length) {
    const { size, real, imaginary, cosines, sines } = this;
    const half = length / 2, step = size / length;
    for (let start = 0; start < size; start += length) {
      for (let k = 0; k < half; k += 1) {
        const low = start + k, high = low + half;
        const re = real[high] * cosines[k * step] - imaginary[high] * sines[k * step];
        const im = real[high] * sines[k * step] + imaginary[high] * cosines[k * step];
        real[high] = real[low] - re;
        imaginary[high] = imaginary[low] - im;
        real[low] += re;
        imaginary[low] += im;
      }
    }
  }
}

function reversedBits(size) {
  const order = new Uint32Array(size);
  for (let i = 1; i < size; i += 1) order[i] = (order[i >> 1] >> 1) | (i & 1 ? size >> 1 : 0);
  return order;
}

export class MelColumns {
  // `scheme`: n_fft, hop_length, sample_rate, points (Hz, where bands start, peak and end), lowest_db, db_per_step.
  constructor(scheme) {
    this.scheme = scheme;
    const { n_fft: size } = scheme;
    this.spectrum = new PowerSpectrum(size);
    this.window = Float64Array.from({ length: size }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size));
    this.bands = melBands(scheme);
    this.recent = new Float32Array(size); // the samples of the next frame; frame 0 is centred on the first sample
    this.filled = size / 2;
    this.frame = new Float64Array(size);
  }

  // Calls `use(column)` with the bytes of each band, the lowest first, for each frame that is complete.
  add(samples, use) {
    const { n_fft: size, hop_length: hop } = this.scheme;
    let from = 0;
    while (from < samples.length) {
      const count = Math.min(size - this.filled, samples.length - from);
      this.recent.set(samples.subarray(from, from + count), this.filled);
      this.filled += count;
      from += count;
      if (this.filled === size) {
        use(this.column());
        this.recent.copyWithin(0, hop);
        this.filled = size - hop;
      }
    }
  }

  column() {
    const { lowest_db: lowest, db_per_step: step } = this.scheme;
    for (let i = 0; i < this.frame.length; i += 1) this.frame[i] = this.recent[i] * this.window[i];
    const power = this.spectrum.of(this.frame);
    return Uint8ClampedArray.from(this.bands, ({ first, weights }) => {
      let sum = 0;
      for (let i = 0; i < weights.length; i += 1) sum += weights[i] * power[first + i];
      return (10 * Math.log10(Math.max(sum, LEAST_POWER)) - lowest) / step;
    });
  }
}

// The triangle of each band: weights from the frequency `first` of the FFT on.
function melBands({ n_fft: size, sample_rate: rate, points }) {
  return points.slice(0, -2).map((low, band) => {
    const [centre, high] = [points[band + 1], points[band + 2]];
    const first = Math.ceil((low * size) / rate), last = Math.min(size / 2, Math.floor((high * size) / rate));
    const weights = [];
    for (let k = first; k <= last; k += 1) {
      const hertz = (k * rate) / size;
      weights.push((Math.max(0, Math.min((hertz - low) / (centre - low), (high - hertz) / (high - centre))) * 2) / (high - low));
    }
    return { first, weights };
  });
}
