// The pane: the current image with its captions, rejection mark, duplicates and conflicts.

import { CaptionFields } from "./captions.js";
import { conflictView } from "./conflict.js";
import { byId, count, el, spelt, speltText } from "./dom.js";
import { Tokens } from "./tokens.js";
import { Trained } from "./trained.js";

export class Pane {
  /** The row and version that the fields show. */
  #shown = { number: null, version: null };
  #choice = "";

  constructor(rows, saver, dataset, actions) {
    Object.assign(this, { rows, saver, dataset, actions });
    this.element = byId("pane");
    this.#build();
    rows.addEventListener("current", () => this.#turn());
    rows.addEventListener("stale", () => rows.current !== null && rows.want([rows.current]));
    rows.addEventListener("rows", ({ detail }) => {
      if (detail.includes(rows.current)) this.refresh();
      else if (rows.get(rows.current)?.duplicates?.some((number) => detail.includes(number))) this.#duplicates();
    });
    saver.addEventListener("conflict", ({ detail }) => detail === rows.current && this.refresh());
    saver.addEventListener("saved", ({ detail: { number, version } }) => {
      if (number !== this.#shown.number) return;
      this.#shown.version = version;
      queueMicrotask(() => this.refresh()); // after the row is updated
    });
  }

  #build() {
    const { several_captions: several, writable, tokenizers } = this.dataset;
    const button = (text, action, more = {}) => el("button", { type: "button", onclick: action, ...more }, text);
    this.name = el("h2", { id: "pane-name", dir: "auto" });
    this.facts = el("p", { class: "facts" });
    this.img = el("img", { class: "large", alt: "" });
    this.trained = new Trained(this.img);
    this.frame = el("div", { class: "frame" }, this.img, this.trained.overlay);
    this.zoomed = button("True pixels", () => this.zoom(), { "aria-pressed": "false", "aria-keyshortcuts": "z" });
    this.img.addEventListener("click", (event) => this.zoom(event));
    this.img.addEventListener("error", () => this.#unreadable());
    this.img.addEventListener("load", () => (this.problem.hidden = true));
    this.problem = el("p", { class: "notice", hidden: true });
    this.conflict = el("div", {});
    this.fields = new CaptionFields({
      tokens: new Tokens(tokenizers),
      several,
      writable,
      changed: (captions, group) => {
        const { number, version } = this.#shown;
        this.saver.change(number, { captions }, { group, version });
      },
      leave: () => this.leave(),
    });
    this.reject = button("Reject", () => this.actions.reject(), { "aria-keyshortcuts": "x", "aria-pressed": "false" });
    this.again = button("Caption again", () => this.actions.again(), { "aria-keyshortcuts": "r" });
    this.back = button("Back", () => this.leave(), { class: "back" });
    this.duplicates = el("section", { class: "duplicates", "aria-label": "Duplicates", hidden: true });
    this.note = el("p", { class: "faint" }, this.dataset.tokenizers_note ?? "");
    this.element.append(
      el(
        "header",
        { class: "pane-head" },
        this.back,
        button("‹", () => this.actions.step(-1), { "aria-label": "Previous image", "aria-keyshortcuts": "k" }),
        button("›", () => this.actions.step(1), { "aria-label": "Next image", "aria-keyshortcuts": "j" }),
        el("span", { class: "grow" }),
        this.reject,
        this.again,
      ),
      el("figure", {}, this.frame, this.problem),
      el("div", { class: "views" }, this.zoomed, this.trained.button),
      el("div", { class: "naming" }, this.name, this.facts, this.trained.facts),
      this.conflict,
      this.fields.element,
      this.note,
      this.duplicates,
    );
    this.reject.disabled = !writable;
    this.#empty();
  }

  /** Focuses the first caption. */
  edit() {
    if (this.rows.get(this.rows.current) === undefined) return;
    document.body.classList.add("pane-open");
    this.fields.focus();
  }

  /** On a phone the pane covers the grid until it is closed. */
  open() {
    document.body.classList.add("pane-open");
    if (this.back.offsetParent) this.back.focus();
  }

  /** Shows the image at its true pixels, around the point of a click, or as a whole again. */
  zoom(event) {
    const on = !this.frame.classList.contains("zoomed");
    const { left, top, width, height } = this.img.getBoundingClientRect();
    const [x, y] = event ? [(event.clientX - left) / width, (event.clientY - top) / height] : [0.5, 0.5];
    this.frame.classList.toggle("zoomed", on);
    this.zoomed.setAttribute("aria-pressed", String(on));
    if (on) {
      this.frame.tabIndex = 0; // scrolled by keys
      this.frame.scrollLeft = x * this.frame.scrollWidth - this.frame.clientWidth / 2;
      this.frame.scrollTop = y * this.frame.scrollHeight - this.frame.clientHeight / 2;
    } else this.frame.removeAttribute("tabindex");
  }

  leave() {
    document.body.classList.remove("pane-open");
    this.saver.flush();
    byId("grid").focus({ preventScroll: true });
  }

  #empty() {
    this.element.classList.toggle("empty", this.rows.current === null);
  }

  #turn() {
    if (this.saver.unsaved) this.saver.flush();
    this.#empty();
    this.#shown = { number: null, version: null };
    if (this.rows.get(this.rows.current)) this.refresh();
    else this.img.removeAttribute("src");
  }

  /** Shows the current state of the row. */
  refresh() {
    const { current } = this.rows;
    const row = this.rows.get(current);
    if (!row) return;
    const draft = this.saver.draft(current);
    const other = this.#shown.number !== current;
    this.#image(row);
    this.trained.show(row);
    this.name.replaceChildren(...spelt(row.id));
    this.#facts(row);
    const rejected = draft?.rejected ?? row.rejected;
    this.reject.setAttribute("aria-pressed", String(rejected));
    this.reject.textContent = rejected ? "Rejected" : "Reject";
    this.element.classList.toggle("rejected", rejected);
    if (other) {
      this.fields.fill(draft?.captions ?? row.captions, draft?.captions ? null : row.tokens);
      this.#shown = { number: current, version: draft?.version ?? row.version };
    } else if (!draft && this.#shown.version !== row.version) {
      this.fields.fill(row.captions, row.tokens);
      this.#shown.version = row.version;
    }
    this.#conflicts();
    this.#duplicates();
    if (other) this.#ahead();
  }

  #image(row) {
    if (this.img.getAttribute("src") === row.image) return;
    this.img.alt = `Image ${speltText(row.id)}`;
    this.problem.hidden = true;
    if (row.width) {
      this.img.width = row.width;
      this.img.height = row.height;
    } else {
      this.img.removeAttribute("width");
      this.img.removeAttribute("height");
    }
    this.img.src = row.image;
  }

  #unreadable() {
    const row = this.rows.get(this.rows.current);
    this.problem.hidden = false;
    this.problem.textContent = row?.missing ? "Removed from disk." : (row?.problem ?? "The image can't be read.");
  }

  #facts(row) {
    const parts = [
      row.width ? `${row.width} × ${row.height}` : null,
      `${(this.rows.placeOf(row.n) + 1 || "–").toLocaleString("en")} of ${this.rows.list.length.toLocaleString("en")}`,
      row.missing ? "removed from disk" : null,
      row.problem && !row.missing ? row.problem : null,
    ];
    this.facts.textContent = parts.filter(Boolean).join(" · ");
  }

  #conflicts() {
    const draft = this.saver.draft(this.#shown.number);
    const { several_captions: several } = this.dataset;
    const choice = draft?.conflict ? JSON.stringify([this.#shown.number, draft.conflict, draft.captions]) : "";
    if (choice === this.#choice) return; // keeps the focus
    this.#choice = choice;
    if (!draft?.conflict) {
      this.conflict.replaceChildren();
      return;
    }
    const { number } = this.#shown;
    const settle = (captions) => {
      if (captions !== null) this.fields.fill(captions, null);
      this.saver.settle(number, captions);
      this.#conflicts();
      this.fields.focus();
    };
    this.conflict.replaceChildren(conflictView(draft, { several, settle }));
  }

  #duplicates() {
    const numbers = this.rows.get(this.rows.current)?.duplicates ?? [];
    this.duplicates.hidden = !numbers.length;
    if (!numbers.length) return;
    this.rows.want(numbers.slice(0, 12));
    this.duplicates.replaceChildren(
      el("h3", {}, `${count(numbers.length, "image")} (nearly) like this one`),
      el(
        "div",
        { class: "row" },
        numbers.slice(0, 12).map((number) => {
          const row = this.rows.get(number);
          return (
            row &&
            el(
              "button",
              { type: "button", onclick: () => this.rows.select(number), class: row.rejected ? "rejected" : null },
              el("img", { src: row.thumb, alt: speltText(row.id) }),
            )
          );
        }),
      ),
    );
  }

  /** Prefetches the next image. */
  #ahead() {
    const next = this.rows.get(this.rows.list[this.rows.place + 1]);
    if (next) new Image().src = next.image;
  }
}
