// The statistics panel: tags, words, tokens, buckets, sizes and folders of the images shown; a click filters by one.

import { get } from "./api.js";
import { byId, count, debounce, el, spelt } from "./dom.js";
import { hasTerm, withTerm, withoutTerm } from "./filter.js";

const FEW = 12;

export class Statistics {
  #asked = 0;

  constructor({ rows, filter, say }) {
    Object.assign(this, { rows, filter, say });
    this.element = byId("statistics");
    this.button = byId("open-statistics");
    this.whole = new Set(); // keys of the lists that are shown to their end
    this.button.addEventListener("click", () => this.toggle());
    const soon = debounce(400, () => this.open && this.load());
    rows.addEventListener("list", soon);
    rows.addEventListener("stale", soon);
  }

  get open() {
    return !this.element.hidden;
  }

  toggle() {
    this.element.hidden = this.open;
    document.body.classList.toggle("statistics-open", this.open);
    this.button.setAttribute("aria-expanded", String(this.open));
    if (this.open) this.load();
  }

  async load() {
    const asked = ++this.#asked;
    this.element.setAttribute("aria-busy", "true");
    try {
      const answer = await get("/api/statistics", { filter: this.filter.shown });
      if (asked === this.#asked) this.#show(answer);
    } catch (error) {
      this.element.replaceChildren(el("p", { class: "notice" }, error.message));
    }
    this.element.setAttribute("aria-busy", "false");
  }

  #show({ count: images, lists, pending }) {
    this.answer = { count: images, lists, pending };
    this.element.replaceChildren(
      el(
        "header",
        {},
        el("h2", {}, "Statistics"),
        el("button", { type: "button", "aria-label": "Close the statistics", onclick: () => this.#close() }, "✕"),
      ),
      el("p", { class: "faint" }, `Of ${count(images, "image")} shown. A click filters by an entry.`),
      pending.length ? el("p", { class: "faint" }, "Still counting…") : "",
      ...lists.map((list) => this.#list(list, images)),
    );
  }

  /** Shows which entries are in the filter, before the new statistics are there. */
  #press() {
    for (const button of this.element.querySelectorAll("[data-filter]"))
      button.setAttribute("aria-pressed", String(hasTerm(this.filter.text, button.dataset.filter)));
  }

  #close() {
    this.toggle();
    this.button.focus();
  }

  #list({ key, title, entries, distinct }, images) {
    const most = Math.max(...entries.map((entry) => entry.count));
    const shown = this.whole.has(key) ? entries : entries.slice(0, FEW);
    const more = entries.length - shown.length;
    return el(
      "section",
      {},
      el("h3", {}, title, el("span", { class: "faint" }, ` ${distinct.toLocaleString("en")}`)),
      el(
        "ul",
        { class: "counts" },
        shown.map((entry) => el("li", {}, this.#entry(entry, most, images))),
      ),
      more > 0
        ? el(
            "button",
            {
              type: "button",
              class: "more",
              onclick: () => {
                this.whole.add(key);
                this.#show(this.answer);
              },
            },
            `${more.toLocaleString("en")} more`,
          )
        : null,
    );
  }

  #entry({ text, count: number, filter }, most, images) {
    const bar = el("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${(100 * number) / Math.max(1, most)}%`;
    return el(
      "button",
      {
        type: "button",
        "aria-pressed": String(hasTerm(this.filter.text, filter)),
        "data-filter": filter,
        title: `${((100 * number) / Math.max(1, images)).toFixed(1)} %`,
        onclick: () => {
          const { text: before } = this.filter;
          this.filter.set(hasTerm(before, filter) ? withoutTerm(before, filter) : withTerm(before, filter));
          this.#press();
        },
      },
      bar,
      el("span", { class: "what", dir: "auto" }, spelt(text)),
      el("span", { class: "number" }, number.toLocaleString("en")),
    );
  }
}
