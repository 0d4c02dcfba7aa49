// The controls of the augmentations, as the server describes them from the config's schema.

import { field, tick } from "./dialog.js";
import { el } from "./dom.js";

const isNumber = (value) => typeof value === "number" || typeof value === "boolean";

/** Controls of one transform. `options` are their values; values that no control can represent are not changed. */
export class Section {
  constructor(name, options, controls, { locked, changed }) {
    this.name = name;
    this.options = structuredClone(options);
    this.changed = changed;
    this.element = el(
      "fieldset",
      { disabled: locked },
      el("legend", {}, name),
      controls.map((one) => this.#control(one)),
    );
  }

  /** The value of an option; undefined where it, or the option that it is in, is not set. */
  #get({ path }) {
    return path.reduce((holder, key) => (typeof holder === "object" ? holder?.[key] : undefined), this.options);
  }

  /** Sets an option, or removes it (undefined), with the sections that become empty. */
  #set({ path }, value) {
    const holders = [this.options];
    for (const key of path.slice(0, -1)) {
      const holder = holders.at(-1);
      if (typeof holder[key] !== "object" || holder[key] === null) {
        if (value === undefined) return;
        holder[key] = {};
      }
      holders.push(holder[key]);
    }
    if (value === undefined) delete holders.at(-1)[path.at(-1)];
    else holders.at(-1)[path.at(-1)] = value;
    for (let i = path.length - 2; i >= 0 && !Object.keys(holders[i + 1]).length; i--) {
      // A section that is a tick stays on without its options.
      if (this.ticked?.has(path[i])) holders[i][path[i]] = true;
      else delete holders[i][path[i]];
    }
    this.changed();
  }

  #control(one) {
    const value = this.#get(one);
    const fits = {
      slider: isNumber,
      choice: (some) => one.choices.includes(some),
      text: (some) => typeof some === "string",
      count: isNumber,
      tick: (some) => typeof some === "boolean" || one.section,
    }[one.kind];
    const asWritten = value !== undefined && value !== null && fits && !fits(value);
    const element = asWritten ? this.#asWritten(one, value) : this[`_${one.kind}`](one, value ?? one.default);
    element.title = one.help;
    return element;
  }

  /** A value that no control can represent: shown and not changed. */
  #asWritten(one, value) {
    return field(one.label, el("input", { type: "text", readonly: true, value: JSON.stringify(value) }));
  }

  _slider(one, value) {
    const before = value === true ? (one.true ?? one.max) : Number(value ?? 0);
    return this.#slide(one.label, { max: Math.max(one.max, before), step: one.step, value: before }, (number) =>
      this.#set(one, number === (one.default ?? 0) ? undefined : number),
    );
  }

  #slide(label, { min = 0, max, step, value }, change) {
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

  _range(one, value) {
    let [least, most] = value ?? [1, 1];
    const side = (label, start, keep) =>
      this.#slide(`${one.label}, ${label}`, { min: 0.05, max: 1, step: 0.01, value: start }, (number) => {
        keep(number);
        const pair = [Math.min(least, most), Math.max(least, most)];
        this.#set(one, JSON.stringify(pair) === JSON.stringify(one.default) ? undefined : pair);
      });
    const sides = [
      side("at least", least, (number) => (least = number)),
      side("at most", most, (number) => (most = number)),
    ];
    const element = el("div", {}, sides);
    const above = this.ticked?.get(one.path.at(-2));
    if (above) {
      element.hidden = !above.checked;
      above.addEventListener("change", () => (element.hidden = !above.checked));
    }
    return element;
  }

  _text(one, value) {
    const placeholder = one.default ?? "";
    const oninput = ({ target }) => this.#set(one, target.value || undefined);
    const shown = value === one.default ? "" : (value ?? "");
    return field(one.label, el("input", { type: "text", value: shown, placeholder, dir: "auto", oninput }));
  }

  _count(one, value) {
    const oninput = ({ target }) => target.validity.valid && this.#set(one, Number(target.value) || undefined);
    return field(one.label, el("input", { type: "number", min: 0, step: 1, value: value ?? 0, oninput }));
  }

  _tick(one, value) {
    const input = el("input", { type: "checkbox", checked: Boolean(value) });
    if (one.section) (this.ticked ??= new Map()).set(one.path.at(-1), input);
    input.addEventListener("change", () => this.#set(one, input.checked || undefined));
    return tick(one.label, input);
  }

  _choice(one, value) {
    const onchange = ({ target }) => this.#set(one, target.value === one.default ? undefined : target.value);
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
      placeholder: "one number, or height, width",
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
}
