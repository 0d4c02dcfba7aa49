// The caption fields of one image, with token counts and invisible characters.

import { count, el, oddSigns } from "./dom.js";
import { TagCompletion } from "./tags.js";

let groups = 0;

/** Caption fields; calls `changed(captions, group)` on every input, with one group per time they were filled. */
export class CaptionFields {
  #fields = [];
  #group = "";

  constructor({ tokens, several, writable, changed, leave }) {
    Object.assign(this, { tokens, several, writable, changed, leave });
    this.list = el("ol", { class: "captions" });
    this.add = el("button", { type: "button", class: "add", onclick: () => this.#new() }, "Add a caption");
    this.element = el("div", { class: "caption-fields" }, this.list, several && writable ? this.add : null);
  }

  get values() {
    return this.#fields.map(({ box }) => box.value);
  }

  /** Shows the captions of a row. The focused field keeps the focus. */
  fill(captions, counts) {
    this.#group = `page-${Date.now()}-${groups++}`;
    const texts = captions.length ? captions : [""];
    while (this.#fields.length > texts.length) this.#fields.pop().item.remove();
    texts.forEach((text, i) => {
      if (!this.#fields[i]) this.#append();
      const { box, line } = this.#fields[i];
      if (box.value !== text) box.value = text;
      this.tokens.show(line, counts?.[i] ?? null, text);
    });
    this.#arrange();
    this.#count();
  }

  focus() {
    const { box } = this.#fields[0];
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
  }

  #append() {
    const box = el("textarea", {
      rows: 3,
      dir: "auto",
      readonly: !this.writable,
      spellcheck: "true",
      oninput: () => this.#edited(),
      onkeydown: (event) => {
        if (event.key !== "Escape" || !field.completion.list.hidden) return;
        event.preventDefault();
        event.stopPropagation();
        this.leave();
      },
    });
    const field = { box, completion: new TagCompletion(box, `tags-${groups++}`) };
    field.line = el("p", { class: "tokens" });
    field.hidden = el("p", { class: "hidden-signs", hidden: true });
    field.label = el("label", {});
    field.words = el("span", { class: "word-count" });
    field.remove = el("button", { type: "button", class: "remove", onclick: () => this.#remove(field) }, "Remove");
    field.item = el(
      "li",
      {},
      el("div", { class: "caption-head" }, field.label, field.words, this.writable ? field.remove : null),
      el("div", { class: "box" }, box, field.completion.list),
      field.line,
      field.hidden,
    );
    this.#fields.push(field);
    this.list.append(field.item);
    return field;
  }

  #new() {
    const field = this.#append();
    this.#arrange();
    this.#count();
    field.box.focus();
  }

  #remove(field) {
    const place = this.#fields.indexOf(field);
    if (this.#fields.length === 1) field.box.value = "";
    else {
      this.#fields.splice(place, 1);
      field.item.remove();
    }
    this.#edited();
    this.#fields[Math.max(0, place - 1)].box.focus();
  }

  #edited() {
    this.#arrange();
    this.changed(this.values, this.#group);
    this.#count();
  }

  /** Updates numbers, labels and heights. */
  #arrange() {
    this.#fields.forEach(({ box, label, words, remove, hidden }, i) => {
      const name = this.#fields.length > 1 ? `Caption ${i + 1}` : "Caption";
      box.id = `caption-${i}`;
      label.htmlFor = box.id;
      label.textContent = name;
      remove.setAttribute("aria-label", `Remove ${name.toLowerCase()}`);
      remove.hidden = this.#fields.length === 1 && !box.value;
      words.textContent = box.value.trim() ? count(box.value.trim().split(/\s+/).length, "word") : "";
      const signs = oddSigns(box.value);
      hidden.hidden = !signs.length;
      hidden.textContent = `Invisible characters: ${signs.join(", ")}`;
    });
  }

  #count() {
    this.tokens.count(this.#fields.map(({ box, line }) => ({ text: box.value, line })));
  }
}
