// Draws many dots. A few are drawn with soft edges; thousands are written into the pixels, which is much faster where
// the browser has no graphics card.

const MAX_SOFT = 2000;
const FAINT = 0.22; // of the colour of a dot that is not meant; the rest is the background

export class DotPainter {
  constructor() {
    Object.assign(this, { sprites: new Map(), parsed: new Map(), image: null });
    this.probe = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  }

  // `xs`, `ys`: CSS pixels of each dot; `codes`: index of its colour; `isFaint(row)`; `ratio`: pixels of a CSS pixel.
  paint(context, { xs, ys, codes, colors, isFaint, radius, ratio, background }) {
    if (xs.length > MAX_SOFT) this.paintPixels(context, { xs, ys, codes, colors, isFaint, radius: radius * ratio, ratio, background });
    else this.paintSprites(context, { xs, ys, codes, colors, isFaint, radius, ratio, background });
  }

  paintSprites(context, { xs, ys, codes, colors, isFaint, radius, ratio, background }) {
    const sprites = colors.map((color) => this.sprite(color, radius, ratio, background));
    for (const faint of [true, false]) {
      context.globalAlpha = faint ? FAINT : 1;
      for (let row = 0; row < xs.length; row += 1) {
        if (isFaint(row) !== faint) continue;
        const sprite = sprites[codes[row]];
        context.drawImage(sprite, xs[row] - sprite.size / 2, ys[row] - sprite.size / 2, sprite.size, sprite.size);
      }
    }
    context.globalAlpha = 1;
  }

  sprite(color, radius, ratio, background) {
    const key = `${color} ${radius.toFixed(1)} ${ratio} ${background}`;
    let sprite = this.sprites.get(key);
    if (!sprite) {
      if (this.sprites.size > 200) this.sprites.clear();
      const size = 2 * Math.ceil(radius + 1);
      sprite = new OffscreenCanvas(Math.ceil(size * ratio), Math.ceil(size * ratio));
      sprite.size = sprite.width / ratio;
      const context = sprite.getContext("2d");
      context.scale(ratio, ratio);
      context.arc(sprite.size / 2, sprite.size / 2, radius, 0, 2 * Math.PI);
      Object.assign(context, { fillStyle: color, strokeStyle: background, lineWidth: 0.7 });
      context.fill();
      context.stroke();
      this.sprites.set(key, sprite);
    }
    return sprite;
  }

  paintPixels(context, { xs, ys, codes, colors, isFaint, radius, ratio, background }) {
    const { width, height } = context.canvas;
    if (this.image?.width !== width || this.image.height !== height) this.image = context.createImageData(width, height);
    const pixels = new Uint32Array(this.image.data.buffer);
    pixels.fill(0);
    const reach = Math.max(1, Math.round(radius));
    const widths = Array.from({ length: 2 * reach + 1 }, (_, row) => Math.floor(Math.sqrt((reach + 0.4) ** 2 - (row - reach) ** 2)));
    for (const faint of [true, false]) {
      const values = colors.map((color) => this.pixel(color, faint ? FAINT : 1, background));
      for (let row = 0; row < xs.length; row += 1) {
        if (isFaint(row) !== faint) continue;
        const x = Math.round(xs[row] * ratio), y = Math.round(ys[row] * ratio);
        if (x < reach || y < reach || x >= width - reach || y >= height - reach) continue;
        const value = values[codes[row]];
        for (let line = 0; line <= 2 * reach; line += 1) {
          const middle = (y + line - reach) * width + x;
          pixels.fill(value, middle - widths[line], middle + widths[line] + 1);
        }
      }
    }
    context.putImageData(this.image, 0, 0);
  }

  // A colour, mixed with the background, as a pixel.
  pixel(color, share, background) {
    const key = `${color} ${share} ${background}`;
    if (!this.parsed.has(key)) {
      Object.assign(this.probe, { globalAlpha: 1, fillStyle: background });
      this.probe.fillRect(0, 0, 1, 1);
      Object.assign(this.probe, { globalAlpha: share, fillStyle: color });
      this.probe.fillRect(0, 0, 1, 1);
      this.parsed.set(key, new Uint32Array(this.probe.getImageData(0, 0, 1, 1).data.buffer)[0]);
    }
    return this.parsed.get(key);
  }
}
