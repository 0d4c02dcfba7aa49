// The crop and the bucket with which the current image is trained, drawn over it.

import { post } from "./api.js";
import { el } from "./dom.js";

/** `button` turns it on, `overlay` is drawn over the image, `facts` is a line of text. */
export class Trained {
  #asked = 0;
  #row = null;
  #key = null;

  constructor(img) {
    this.img = img;
    this.button = el(
      "button",
      { type: "button", "aria-pressed": "false", onclick: () => this.#toggle() },
      "As trained",
    );
    this.overlay = el("div", { class: "crop", hidden: true });
    this.facts = el("p", { class: "facts", role: "status", hidden: true });
    new ResizeObserver(() => this.#place()).observe(img);
  }

  get #on() {
    return this.button.getAttribute("aria-pressed") === "true";
  }

  #toggle() {
    this.button.setAttribute("aria-pressed", String(!this.#on));
    this.#key = null;
    if (this.#row) this.show(this.#row);
  }

  /** Shows a row; nothing unless it is turned on. */
  async show(row) {
    this.#row = row;
    const key = this.#on ? row.image : null;
    if (key !== null && key === this.#key) return;
    this.#key = key;
    const asked = ++this.#asked;
    this.overlay.hidden = this.facts.hidden = true;
    if (!key) return;
    this.facts.hidden = false;
    this.facts.textContent = "…";
    try {
      const { original, draws } = await post("/api/augment/draw", { n: row.n, epochs: [0] });
      if (asked !== this.#asked) return;
      this.found = { ...draws[0], original };
      this.#place();
    } catch (error) {
      if (asked === this.#asked) this.facts.textContent = error.message;
    }
  }

  #place() {
    if (!this.#on || !this.found || !this.#key) return;
    const { box, original, width, height, flip, rotate } = this.found;
    const [top, left, high, wide] = box;
    const { offsetLeft: x, offsetTop: y, clientWidth, clientHeight } = this.img;
    const [across, down] = [clientWidth / original.width, clientHeight / original.height];
    Object.assign(this.overlay.style, {
      left: `${x + left * across}px`,
      top: `${y + top * down}px`,
      width: `${wide * across}px`,
      height: `${high * down}px`,
    });
    this.overlay.hidden = false;
    const cut = 100 * (1 - (wide * high) / (original.width * original.height));
    const scale = Math.max(width / wide, height / high);
    this.facts.textContent = [
      `Trained as ${width} × ${height}`,
      cut >= 0.05 ? `${cut.toFixed(cut < 10 ? 1 : 0)} % is cropped` : "nothing is cropped",
      scale > 1.005 ? `enlarged ${scale.toFixed(2)} ×` : null,
      flip[0] && "flipped",
      flip[1] && "upside down",
      rotate && `turned ${rotate.toFixed(1)}°`,
    ]
      .filter(Boolean)
      .join(" · ");
  }
}
