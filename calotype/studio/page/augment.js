// The augmentation panel: controls, samples of the training pipeline, and the YAML that gives them.

import { get, post } from "./api.js";
import { openDialog } from "./dialog.js";
import { byId, el, spelt, speltText } from "./dom.js";
import { Section } from "./options.js";

const SHOWN = 6;

export class AugmentPanel {
  constructor({ rows, saver, say, step }) {
    Object.assign(this, { rows, saver, say, step });
    this.dialog = byId("augment");
    rows.addEventListener("current", () => this.dialog.open && this.#draw());
  }

  async open() {
    await this.saver.flush();
    try {
      this.known = await get("/api/augment");
    } catch (error) {
      this.say(error.message, { bad: true });
      return;
    }
    this.first = 0;
    const { locked, target, controls } = this.known;
    const changed = () => {
      this.offer.replaceChildren();
      this.#draw();
    };
    this.sections = Object.entries(controls).map(
      ([name, some]) => new Section(name, this.known[name], some, { locked: locked.includes(name), changed }),
    );
    this.draws = el("div", { class: "live", "aria-busy": "false", tabindex: "0", role: "group", "aria-label": "Samples" });
    this.wrong = el("p", { class: "notice", role: "alert", hidden: true });
    this.offer = el("div", { class: "offer", "aria-live": "polite" });
    const button = (text, action, more = {}) => el("button", { type: "button", onclick: action, ...more }, text);
    const notes = locked.map((name) =>
      el(
        "p",
        { class: "faint" },
        `${name} is code in the config: it acts in the draws, and is changed in the file itself.`,
      ),
    );
    openDialog(
      this.dialog,
      "Augmentations",
      el(
        "div",
        { class: "augment" },
        el(
          "form",
          { class: "controls", onsubmit: (event) => event.preventDefault() },
          this.sections.map((one) => one.element),
          notes,
          el(
            "div",
            { class: "choices" },
            button(`Preview the change of ${target}`, () => this.#save(true)),
          ),
          this.offer,
        ),
        el(
          "section",
          { class: "results", "aria-label": "Samples" },
          el(
            "div",
            { class: "choices" },
            button("‹", () => this.step(-1), { "aria-label": "Previous image" }),
            button("›", () => this.step(1), { "aria-label": "Next image" }),
            button("Other samples", () => {
              this.first += SHOWN;
              this.#draw();
            }),
          ),
          this.wrong,
          this.draws,
        ),
      ),
    );
    this.#draw();
  }

  #values() {
    return Object.fromEntries(
      this.sections.filter(({ name }) => !this.known.locked.includes(name)).map((one) => [one.name, one.options]),
    );
  }

  /** Requests samples for the current controls; while a request runs, only the latest one is queued. */
  async #draw() {
    this.again = true;
    if (this.drawing) return;
    this.drawing = true;
    this.draws.setAttribute("aria-busy", "true");
    while (this.again && this.dialog.open) {
      this.again = false;
      await this.#drawOnce();
    }
    this.drawing = false;
    this.draws.setAttribute("aria-busy", "false");
  }

  async #drawOnce() {
    const number = this.rows.current;
    if (number === null) return;
    const epochs = Array.from({ length: SHOWN }, (_, i) => this.first + i);
    try {
      const { draws } = await post("/api/augment/draw", { n: number, ...this.#values(), epochs });
      this.wrong.hidden = true;
      const id = this.rows.get(number)?.id ?? "";
      const separator = this.sections[1].options.separator ?? ",";
      this.draws.replaceChildren(...draws.map((one) => drawView(one, id, separator)));
    } catch (error) {
      this.wrong.hidden = false;
      this.wrong.textContent = error.message;
    }
  }

  async #save(dry) {
    try {
      const answer = await post("/api/augment/save", { ...this.#values(), version: this.known.version, dry_run: dry });
      if (dry) this.#offer(answer);
      else {
        this.known.version = answer.version;
        this.offer.replaceChildren(
          el("p", {}, `Written to ${answer.target}.`, answer.backup ? ` Backup: ${answer.backup}` : ""),
        );
      }
    } catch (error) {
      this.offer.replaceChildren(el("p", { class: "notice", role: "alert" }, error.message));
    }
  }

  #offer({ target, diff, lost }) {
    if (!diff) {
      this.offer.replaceChildren(el("p", {}, `${target} says so already.`));
      return;
    }
    const lines = diff
      .replace(/\n$/, "")
      .split("\n")
      .slice(2)
      .map((line) =>
        line.startsWith("+") ? el("ins", {}, line) : line.startsWith("-") ? el("del", {}, line) : el("span", {}, line),
      );
    const write = el("button", { type: "button", class: "main", onclick: () => this.#save(false) }, `Write ${target}`);
    this.offer.replaceChildren(
      el("pre", { class: "diff", tabindex: "0", role: "group", "aria-label": "Changes" }, lines),
      lost.length ? el("p", { class: "notice" }, `Comments that would be lost: ${lost.join(" ")}`) : "",
      write,
    );
    write.focus();
    write.scrollIntoView({ block: "nearest" });
  }
}

function drawView({ epoch, image, width, height, flip, rotate, caption, tokens }, id, separator) {
  const facts = [
    `${width} × ${height}`,
    flip[0] && "flipped",
    flip[1] && "upside down",
    rotate && `turned ${rotate.toFixed(1)}°`,
    tokens.length && `${Math.max(...tokens)} tokens`,
  ]
    .filter(Boolean)
    .join(" · ");
  const tags = { kept: "span", dropped: "del", moved: "mark", added: "ins" };
  const words = caption.dropped
    ? el("em", {}, "dropped: an empty caption")
    : caption.parts.flatMap(({ text, state }, i) => [
        i && state !== "added" && caption.parts[i - 1].state !== "added" ? `${separator} ` : "",
        el(tags[state], {}, spelt(text)),
      ]);
  return el(
    "figure",
    { class: "draw" },
    el("img", { src: image, alt: `${speltText(id)} as drawn in epoch ${epoch}`, width, height }),
    el("figcaption", {}, el("b", {}, `Epoch ${epoch}`), ` ${facts}`, el("p", { class: "text", dir: "auto" }, words)),
  );
}
