// Tags that the dataset has, the most frequent first, to complete what is typed.

import { get } from "./api.js";
import { el } from "./dom.js";

let known = null;

/** The tags and their numbers of images; asked for again after `forgetTags`. */
export async function knownTags() {
  known ??= get("/api/statistics").then(({ lists }) => lists.find(({ key }) => key === "tags")?.entries ?? []);
  try {
    return await known;
  } catch {
    known = null;
    return [];
  }
}

export function forgetTags() {
  known = null;
}

/** A `<datalist>` of all tags. */
export function suggestTags(id) {
  const list = el("datalist", { id });
  knownTags().then((tags) =>
    list.replaceChildren(...tags.map(({ text, count }) => el("option", { value: text }, `${text} (${count})`))),
  );
  return list;
}

/** The part between commas around the cursor: [from, to]. */
function partAt(box) {
  const { value, selectionStart: at } = box;
  const from = value.lastIndexOf(",", at - 1) + 1;
  const next = value.indexOf(",", at);
  return [from, next < 0 ? value.length : next];
}

/** Completes the tag at the cursor of a caption's field: a list below it; arrows choose, Tab or Enter takes. */
export class TagCompletion {
  #tags = [];
  #chosen = -1;

  constructor(box, id) {
    this.box = box;
    this.list = el("ul", { class: "completion", role: "listbox", id, "aria-label": "Tags", hidden: true });
    Object.assign(box, { ariaAutoComplete: "list" });
    box.setAttribute("aria-controls", id);
    box.addEventListener("input", () => this.#look());
    box.addEventListener("blur", () => this.close());
    box.addEventListener("keydown", (event) => this.#key(event));
  }

  close() {
    this.list.hidden = true;
    this.#chosen = -1;
    this.box.removeAttribute("aria-activedescendant");
  }

  async #look() {
    const { box } = this;
    const [from, to] = partAt(box);
    const part = box.value.slice(from, to).trim().toLowerCase();
    // Prose has no tags to complete: only behind a comma, or in a short caption.
    if (part.length < 2 || part.length > 40 || box.selectionStart !== box.selectionEnd) {
      this.close();
      return;
    }
    const text = box.value;
    const tags = await knownTags();
    if (box.value !== text || document.activeElement !== box) return;
    const there = new Set(text.split(",").map((one) => one.trim().toLowerCase()));
    this.#tags = tags
      .filter(({ text: tag }) => tag.toLowerCase().startsWith(part) && !there.has(tag.toLowerCase()))
      .slice(0, 6);
    this.#chosen = -1;
    this.#show();
  }

  #show() {
    this.list.hidden = !this.#tags.length;
    this.list.replaceChildren(
      ...this.#tags.map(({ text, count }, i) =>
        el(
          "li",
          {
            role: "option",
            id: `${this.list.id}-${i}`,
            "aria-selected": String(i === this.#chosen),
            onpointerdown: (event) => {
              event.preventDefault(); // the field keeps the focus
              this.#take(i);
            },
          },
          el("span", { dir: "auto" }, text),
          el("span", { class: "faint" }, ` ${count.toLocaleString("en")}`),
        ),
      ),
    );
    if (this.#chosen >= 0) this.box.setAttribute("aria-activedescendant", `${this.list.id}-${this.#chosen}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  #key(event) {
    if (this.list.hidden) return;
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by) this.#chosen = Math.max(0, Math.min(this.#tags.length - 1, this.#chosen + by));
    else if (event.key === "Escape") this.close();
    else if ((event.key === "Enter" || event.key === "Tab") && this.#chosen >= 0) this.#take(this.#chosen);
    else return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (by) this.#show();
  }

  #take(i) {
    const { box } = this;
    const [from, to] = partAt(box);
    const before = box.value.slice(0, from);
    const text = `${before && !before.endsWith(" ") ? " " : ""}${this.#tags[i].text}`;
    box.setRangeText(text, from, to, "end");
    this.close();
    box.dispatchEvent(new InputEvent("input", { bubbles: true }));
    this.close();
  }
}
