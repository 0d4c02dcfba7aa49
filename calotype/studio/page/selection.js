// The selection of several images: the bar above the grid, and what is done to all of them at once.

import { post } from "./api.js";
import { field, openDialog } from "./dialog.js";
import { byId, count, el } from "./dom.js";
import { suggestTags } from "./tags.js";

const ACTIONS = [
  ["add", "Add"],
  ["remove", "Remove"],
  ["replace", "Replace"],
];

export class Selection {
  /** `done(answer)` is called after a change. */
  constructor({ rows, filter, saver, say, done, writable }) {
    Object.assign(this, { rows, filter, saver, say, done, writable });
    this.bar = byId("selection");
    const button = (text, action, more = {}) => el("button", { type: "button", onclick: action, ...more }, text);
    this.count = el("strong", {});
    this.all = button("", () => rows.selectAll());
    const change = { disabled: !writable };
    this.bar.append(
      this.count,
      button("Tags and words…", () => this.open(), change),
      button("Reject", () => this.reject(true), change),
      button("Restore", () => this.reject(false), change),
      this.all,
      button("Clear", () => rows.clearSelection()),
    );
    rows.addEventListener("selection", () => this.#show());
    rows.addEventListener("list", () => this.#show());
  }

  #show() {
    const { size } = this.rows.selected;
    const rest = this.rows.list.some((number) => !this.rows.selected.has(number));
    this.bar.hidden = size < 2;
    this.count.textContent = `${count(size, "image")} selected`;
    this.all.hidden = !rest;
    this.all.textContent = `Select all ${this.rows.list.length.toLocaleString("en")}`;
  }

  /** `x` with a selection: rejects all, or restores them if all are rejected. */
  rejectOrRestore() {
    const chosen = [...this.rows.selected];
    this.reject(!chosen.every((number) => this.rows.get(number)?.rejected));
  }

  async reject(rejected) {
    await this.#change("/api/bulk/reject", { numbers: [...this.rows.selected], rejected });
  }

  /** The dialog that changes a tag or word. */
  open() {
    if (!this.writable) return;
    const choice = (options, chosen) =>
      el(
        "select",
        {},
        options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)),
      );
    const text = () =>
      el("input", { type: "text", required: true, autocomplete: "off", spellcheck: "false", dir: "auto", list: "tags" });
    const [what, to] = [text(), text()];
    const action = choice(ACTIONS, "add");
    const unit = choice(
      [
        ["tag", "a tag (between commas)"],
        ["word", "a word"],
      ],
      "tag",
    );
    const at = choice(
      [
        ["end", "at the end"],
        ["start", "at the start"],
      ],
      "end",
    );
    const { size } = this.rows.selected;
    const where = scopes(this.rows, size > 1 ? "selected" : "shown");
    const atField = field("Where in the caption", at);
    const toField = field("With", to);
    const wrong = el("p", { class: "notice", role: "alert", hidden: true });
    const arrange = () => {
      atField.hidden = action.value !== "add";
      toField.hidden = action.value !== "replace";
      to.required = action.value === "replace";
    };
    const form = el(
      "form",
      {
        class: "fields",
        onchange: arrange,
        onsubmit: async (event) => {
          event.preventDefault();
          const problem = await this.#change("/api/bulk/tags", {
            ...scopeOf(where.value, this.rows, this.filter),
            action: action.value,
            unit: unit.value,
            text: what.value,
            ...(action.value === "replace" ? { to: to.value } : {}),
            ...(action.value === "add" ? { at: at.value } : {}),
          });
          wrong.hidden = problem === null;
          wrong.textContent = problem ?? "";
          if (problem === null) byId("tagging").close();
        },
      },
      field("Do", action),
      field("What", unit),
      field("Text", what),
      toField,
      atField,
      field("In", where),
      wrong,
      el("div", { class: "choices" }, el("button", { type: "submit", class: "main" }, "Change")),
      suggestTags("tags"),
    );
    arrange();
    openDialog(byId("tagging"), "Tags and words", form);
    what.focus();
  }

  /** Returns the error message, or null. */
  async #change(path, body) {
    await this.saver.flush();
    try {
      this.done(await post(path, body));
    } catch (error) {
      if (!error.body?.conflicts) {
        this.say(error.message, { bad: true });
        return error.message;
      }
      this.done(error.body);
    }
    return null;
  }
}

/** A select of the images that something is done to; `one`: also the current one. */
export function scopes(rows, chosen, { one = false } = {}) {
  const number = (some) => some.toLocaleString("en");
  const options = [
    ["selected", `those selected (${number(rows.selected.size)})`],
    ["shown", `those shown (${number(rows.list.length)})`],
    ["one", "this one"],
    ["all", `all (${number(rows.total)})`],
  ].filter(([value]) => (value === "selected" ? rows.selected.size > 1 : value !== "one" || (one && rows.current !== null)));
  return el(
    "select",
    {},
    options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)),
  );
}

/** The same as a request. */
export function scopeOf(value, rows, filter) {
  return {
    selected: { numbers: [...rows.selected] },
    shown: { filter: filter.shown },
    one: { numbers: [rows.current] },
    all: {},
  }[value];
}
