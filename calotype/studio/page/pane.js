// The pane: the current picture, large; its captions, marks, duplicates; conflicts.

import { CaptionFields } from "./captions.js";
import { conflictView } from "./conflict.js";
import { byId, count, el, spelt, speltText } from "./dom.js";
import { Tokens } from "./tokens.js";

export class Pane {
  /** The row, and the version of it, that the fields hold, or were filled with before the person went on. */
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
      queueMicrotask(() => this.refresh()); // when the row is known as it was written
    });
  }

  #build() {
    const { several_captions: several, writable, tokenizers } = this.dataset;
    const button = (text, action, more = {}) => el("button", { type: "button", onclick: action, ...more }, text);
    this.name = el("h2", { id: "pane-name", dir: "auto" });
    this.facts = el("p", { class: "facts" });
    this.img = el("img", { class: "large", alt: "" });
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
    this.twins = el("section", { class: "twins", "aria-label": "Duplicates", hidden: true });
    this.note = el("p", { class: "faint" }, this.dataset.tokenizers_note ?? "");
    this.element.append(
      el(
        "header",
        { class: "pane-head" },
        this.back,
        button("‹", () => this.actions.step(-1), { "aria-label": "Previous picture", "aria-keyshortcuts": "k" }),
        button("›", () => this.actions.step(1), { "aria-label": "Next picture", "aria-keyshortcuts": "j" }),
        el("span", { class: "grow" }),
        this.reject,
        this.again,
      ),
      el("figure", {}, this.img, this.problem),
      el("div", { class: "naming" }, this.name, this.facts),
      this.conflict,
      this.fields.element,
      this.note,
      this.twins,
    );
    this.reject.disabled = !writable;
    this.#empty();
  }

  /** Into the first caption. */
  edit() {
    if (this.rows.get(this.rows.current) === undefined) return;
    document.body.classList.add("pane-open");
    this.fields.focus();
  }

  /** On a phone the pane lies over the grid until it is left. */
  open() {
    document.body.classList.add("pane-open");
    if (this.back.offsetParent) this.back.focus();
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

  /** Shows the current row as it is known now. */
  refresh() {
    const { current } = this.rows;
    const row = this.rows.get(current);
    if (!row) return;
    const draft = this.saver.draft(current);
    const other = this.#shown.number !== current;
    this.#picture(row);
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

  #picture(row) {
    if (this.img.getAttribute("src") === row.picture) return;
    this.img.alt = `Picture ${speltText(row.id)}`;
    this.problem.hidden = true;
    if (row.width) {
      this.img.width = row.width;
      this.img.height = row.height;
    } else {
      this.img.removeAttribute("width");
      this.img.removeAttribute("height");
    }
    this.img.src = row.picture;
  }

  #unreadable() {
    const row = this.rows.get(this.rows.current);
    this.problem.hidden = false;
    this.problem.textContent = row?.missing ? "Gone from the disk." : (row?.problem ?? "The picture can't be read.");
  }

  #facts(row) {
    const parts = [
      row.width ? `${row.width} × ${row.height}` : null,
      `${(this.rows.placeOf(row.n) + 1 || "–").toLocaleString("en")} of ${this.rows.list.length.toLocaleString("en")}`,
      row.missing ? "gone from the disk" : null,
      row.problem && !row.missing ? row.problem : null,
    ];
    this.facts.textContent = parts.filter(Boolean).join(" · ");
  }

  #conflicts() {
    const draft = this.saver.draft(this.#shown.number);
    const { several_captions: several } = this.dataset;
    const choice = draft?.conflict ? JSON.stringify([this.#shown.number, draft.conflict, draft.captions]) : "";
    if (choice === this.#choice) return; // who is about to choose keeps the focus
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
    this.twins.hidden = !numbers.length;
    if (!numbers.length) return;
    this.rows.want(numbers.slice(0, 12));
    this.twins.replaceChildren(
      el("h3", {}, `${count(numbers.length, "picture")} (nearly) like this one`),
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

  /** The next picture is there before one asks for it. */
  #ahead() {
    const next = this.rows.get(this.rows.list[this.rows.place + 1]);
    if (next) new Image().src = next.picture;
  }
}
