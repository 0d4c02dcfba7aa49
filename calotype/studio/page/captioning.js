// Captioning runs: the dialog that starts them, and their progress in the page header.

import { get, post } from "./api.js";
import { field, openDialog, tick } from "./dialog.js";
import { byId, count, duration, el, spelt } from "./dom.js";
import { scopeOf, scopes } from "./selection.js";

const RUNNING = ["starting", "running", "cancelling"];
const MODES = [
  ["fill", "for images without captions"],
  ["add", "added to existing ones"],
  ["replace", "replacing existing ones"],
];

export class Captioning {
  #last = null;

  constructor({ rows, filter, saver, say }) {
    Object.assign(this, { rows, filter, saver, say });
    this.strip = byId("run");
  }

  async open() {
    const about = await get("/api/captioning").catch((error) => ({ available: false, note: error.message }));
    if (!about.available) {
      openDialog(
        byId("captioning"),
        "Caption",
        el("p", { class: "notice" }, about.note ?? "Captioning is not available."),
      );
      return;
    }
    this.#form(about);
  }

  #form({ backends, presets, defaults, note, run }) {
    const chosen = (options, value) =>
      el(
        "select",
        {},
        options.map(([key, text]) => el("option", { value: key, selected: key === value }, text)),
      );
    const text = (value, more = {}) =>
      el("input", { type: "text", value: value ?? "", autocomplete: "off", spellcheck: "false", ...more });
    const backend = chosen(
      backends.map(({ name }) => [name, name]),
      defaults.backend,
    );
    const preset = chosen(
      presets.map(({ name, about }) => [name, about ? `${name}: ${about}` : name]),
      defaults.preset,
    );
    const mode = chosen(MODES, "fill");
    const where = scopes(this.rows, this.rows.selected.size > 1 ? "selected" : "shown", { one: true });
    const url = text(defaults.url, { placeholder: "http://127.0.0.1:8000/v1" });
    const model = text(defaults.model, { placeholder: "auto" });
    const classWord = text(defaults.class_word, { placeholder: "dog" });
    const several = el("input", { type: "number", min: 1, max: 20, placeholder: 1, value: defaults.n ?? "" });
    const force = el("input", { type: "checkbox" });
    const wrong = el("p", { class: "notice", role: "alert", hidden: true });
    const urlField = field("URL of the server", url);
    const classWordField = field("Class word", classWord);
    const forceTick = tick("Also replace captions that a person has edited", force);
    // An option without effect is hidden, and not sent: the server refuses it.
    const arrange = () => {
      urlField.hidden = !backends.find(({ name }) => name === backend.value)?.needs.includes("url");
      classWordField.hidden = !presets.find(({ name }) => name === preset.value)?.class_word;
      forceTick.hidden = mode.value !== "replace";
    };
    const form = el(
      "form",
      {
        class: "fields",
        onchange: arrange,
        onsubmit: async (event) => {
          event.preventDefault();
          const problem = await this.start({
            ...scopeOf(where.value, this.rows, this.filter),
            backend: backend.value,
            model: model.value || null,
            url: (!urlField.hidden && url.value) || null,
            preset: preset.value,
            mode: mode.value,
            force: !forceTick.hidden && force.checked,
            n: Number(several.value) || null,
            class_word: (!classWordField.hidden && classWord.value) || null,
          });
          wrong.hidden = problem === null;
          wrong.textContent = problem ?? "";
          if (problem === null) byId("captioning").close();
        },
      },
      field("Images", where),
      field("Captions", mode),
      field("Preset", preset),
      field("Captions per image", several),
      field("Backend", backend),
      urlField,
      field("Model", model),
      classWordField,
      el("div", { class: "ticks" }, forceTick),
      wrong,
      el("div", { class: "choices" }, el("button", { type: "submit", class: "main", disabled: running(run) }, "Start")),
    );
    arrange();
    openDialog(byId("captioning"), "Caption", note ? el("p", { class: "faint" }, note) : null, form);
  }

  /** Starts a run; returns the error message, or null. */
  async start(options) {
    await this.saver.flush();
    try {
      this.show((await post("/api/captioning/start", options)).run);
      return null;
    } catch (error) {
      return error.message;
    }
  }

  /** `r`: captions one image again. */
  async again(number) {
    const problem = await this.start({ numbers: [number], mode: "replace", force: true });
    if (problem) this.say(problem, { bad: true });
  }

  /** Shows the progress of a run, unless it ended before the page was loaded. */
  show(run) {
    const before = this.#last;
    if (run && before && Number(run.id) < Number(before.id)) return; // a late response
    this.#last = run ?? null;
    if (!run || (before === null && !running(run))) return;
    const same = before && before.id === run.id && JSON.stringify(before) === JSON.stringify(run);
    if (same) return;
    this.strip.hidden = false;
    const { state, total, done, failed, failures, seconds_left: left, error } = run;
    const facts = [
      `${done.toLocaleString("en")} of ${count(total, "image")}`,
      failed ? `${failed} failed` : null,
      run.skipped ? `${run.skipped} had captions` : null,
      running(run) && left !== null && left !== undefined ? `${duration(left)} left` : null,
    ]
      .filter(Boolean)
      .join(" · ");
    const button = running(run)
      ? el("button", { type: "button", disabled: state === "cancelling", onclick: () => this.#cancel() }, "Cancel")
      : el("button", { type: "button", onclick: () => (this.strip.hidden = true) }, "Dismiss");
    const focused = this.strip.contains(document.activeElement);
    this.strip.replaceChildren(
      el("strong", {}, TITLES[state] ?? state),
      el("progress", { max: Math.max(1, total), value: done, "aria-label": "Captioned" }),
      el("span", {}, facts),
      button,
      error ? el("p", { class: "notice" }, error) : "",
      failures?.length
        ? el(
            "details",
            {},
            el("summary", {}, `Why ${count(failures.length, "image")} failed`),
            el(
              "ul",
              {},
              failures.map(({ id, reason, n }) =>
                el(
                  "li",
                  {},
                  el("button", { type: "button", onclick: () => this.rows.select(n) }, spelt(id)),
                  ` ${reason}`,
                ),
              ),
            ),
          )
        : "",
    );
    if (focused) button.focus();
    if (before && running(before) && !running(run))
      this.say(`${TITLES[state] ?? state}: ${facts}`, { bad: state === "failed" });
  }

  async #cancel() {
    try {
      this.show((await post("/api/captioning/cancel")).run);
    } catch (error) {
      this.say(error.message, { bad: true });
    }
  }
}

const TITLES = {
  starting: "Loading the captioner…",
  running: "Captioning",
  cancelling: "Stopping…",
  done: "Captioned",
  cancelled: "Captioning cancelled",
  failed: "Captioning failed",
};

const running = (run) => Boolean(run && RUNNING.includes(run.state));
