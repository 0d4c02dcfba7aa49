// The options of the augmentations and their controls.

import { field } from "./dialog.js";
import { el } from "./dom.js";

const slider = (key, label, max, step = 0.01) => ({ key, label, kind: "slider", max, step });

/** The options of both transforms; `in`: nested in another option. */
export const SECTIONS = {
  img_transform: [
    { key: "resize", label: "Resize (one number, or height, width)", kind: "size" },
    { key: "crop", label: "Crop", kind: "crop" },
    slider("horizontal_flip", "Horizontal flip", 1),
    slider("vertical_flip", "Vertical flip", 1),
    slider("rotate", "Rotate, degrees", 45, 0.5),
    { ...slider("brightness", "Brightness", 1), in: "color_jitter" },
    { ...slider("contrast", "Contrast", 1), in: "color_jitter" },
    { ...slider("saturation", "Saturation", 1), in: "color_jitter" },
    { ...slider("hue", "Hue", 0.5), in: "color_jitter" },
    { key: "interpolation", label: "Interpolation", kind: "choice", choices: ["lanczos", "bicubic", "bilinear"] },
  ],
  caption_transform: [
    { key: "trigger", label: "Trigger", kind: "text" },
    { key: "template", label: "Template", kind: "text" },
    slider("drop", "Drop the caption", 1),
    slider("shuffle_parts", "Shuffle its parts", 1),
    slider("drop_parts", "Drop parts", 0.99),
    { key: "keep_parts", label: "Parts that stay", kind: "count" },
    { key: "separator", label: "Separator", kind: "text", usual: "," },
    { key: "choose", label: "Of several captions", kind: "choice", choices: ["random", "first", "longest"] },
  ],
};

/** Controls of one transform. `options` are their values; values that no control can represent are not changed. */
export class Section {
  constructor(name, options, { locked, changed }) {
    this.name = name;
    this.options = structuredClone(options);
    this.changed = changed;
    this.element = el(
      "fieldset",
      { disabled: locked },
      el("legend", {}, name),
      SECTIONS[name].map((one) => this.#control(one)),
    );
  }

  #get(one) {
    return one.in ? this.options[one.in]?.[one.key] : this.options[one.key];
  }

  #set(one, value) {
    const holder = one.in ? (this.options[one.in] ??= {}) : this.options;
    if (value === undefined) delete holder[one.key];
    else holder[one.key] = value;
    if (one.in && !Object.keys(holder).length) delete this.options[one.in];
    this.changed();
  }

  #control(one) {
    const value = one.kind === "crop" ? null : this.#get(one);
    if (one.kind === "crop") return this.#crop();
    if (one.kind === "slider" && typeof value === "object" && value !== null) return this.#asWritten(one);
    if (one.kind === "choice" && value !== undefined && !one.choices.includes(value)) return this.#asWritten(one);
    return this[`_${one.kind}`](one, value);
  }

  /** A value that no slider can represent: shown and not changed. */
  #asWritten(one) {
    return field(one.label, el("input", { type: "text", readonly: true, value: JSON.stringify(this.#get(one)) }));
  }

  _slider(one, value) {
    const before = value === true ? (one.key === "shuffle_parts" ? 1 : 0.5) : Number(value ?? 0);
    return this.#range(one.label, { max: Math.max(one.max, before), step: one.step, value: before }, (number) =>
      this.#set(one, number === 0 ? undefined : number),
    );
  }

  #range(label, { min = 0, max, step, value }, change) {
    const number = el("input", { type: "number", min, max, step: "any", value, "aria-label": `${label}, as a number` });
    const range = el("input", { type: "range", min, max, step, value });
    range.addEventListener("input", () => {
      number.value = range.value;
      change(Number(range.value));
    });
    number.addEventListener("input", () => {
      if (number.value === "" || !number.validity.valid) return;
      range.value = number.value;
      change(Number(number.value));
    });
    return el("div", { class: "slider" }, field(label, range), number);
  }

  _text(one, value) {
    const oninput = ({ target }) => this.#set(one, target.value || undefined);
    return field(
      one.label,
      el("input", { type: "text", value: value ?? "", placeholder: one.usual, dir: "auto", oninput }),
    );
  }

  _count(one, value) {
    const oninput = ({ target }) => target.validity.valid && this.#set(one, Number(target.value) || undefined);
    return field(one.label, el("input", { type: "number", min: 0, step: 1, value: value ?? 0, oninput }));
  }

  _choice(one, value) {
    const onchange = ({ target }) => this.#set(one, target.value === one.choices[0] ? undefined : target.value);
    return field(
      one.label,
      el(
        "select",
        { onchange },
        one.choices.map((name) => el("option", { selected: name === value }, name)),
      ),
    );
  }

  _size(one, value) {
    const input = el("input", {
      type: "text",
      inputmode: "numeric",
      value: [value ?? []].flat().join(", "),
      pattern: "\\s*\\d+\\s*([,x× ]\\s*\\d+\\s*)?",
    });
    input.addEventListener("input", () => {
      if (!input.validity.valid) return;
      const numbers = (input.value.match(/\d+/g) ?? []).map(Number);
      this.#set(one, numbers.length > 1 ? numbers.slice(0, 2) : numbers[0]);
    });
    return field(one.label, input);
  }

  #crop() {
    const { center_crop: center, random_crop: random } = this.options;
    const now = random ? "random" : center ? "center" : "none";
    const [least, most] = random?.scale ?? [1, 1];
    let scale = [least, most];
    const write = () => {
      delete this.options.center_crop;
      delete this.options.random_crop;
      if (choice.value === "center") this.options.center_crop = true;
      if (choice.value === "random")
        this.options.random_crop = scale[0] === 1 && scale[1] === 1 ? true : { scale: [...scale] };
      sliders.hidden = choice.value !== "random";
      this.changed();
    };
    const side = (i, label) =>
      this.#range(label, { min: 0.05, max: 1, step: 0.01, value: scale[i] }, (number) => {
        scale[i] = number;
        scale = scale[0] > scale[1] ? [number, number] : scale;
        write();
      });
    const choice = el(
      "select",
      { onchange: write },
      ["none", "center", "random"].map((name) => el("option", { selected: name === now }, name)),
    );
    const sliders = el("div", { hidden: now !== "random" }, side(0, "Least area kept"), side(1, "Most area kept"));
    return el("div", {}, field("Crop", choice), sliders);
  }
}
