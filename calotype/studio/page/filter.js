// The filter: its field, its errors, the chips, the sort order and the count.

import { Unreachable, get } from "./api.js";
import { byId, debounce, count, el } from "./dom.js";

/** Index of a term in a filter, not as a part of another one; -1: it is not there. */
function indexOf(text, term) {
  for (let at = text.indexOf(term); at >= 0; at = text.indexOf(term, at + 1)) {
    if (!/[^\s(]/.test(text[at - 1] ?? " ") && !/[^\s)]/.test(text[at + term.length] ?? " ")) return at;
  }
  return -1;
}

/** Whether a filter contains a term, and the filter with or without it. */
export const hasTerm = (text, term) => indexOf(text, term) >= 0;

export function withTerm(text, term) {
  if (!text.trim()) return term;
  return /\bOR\b/.test(text) ? `(${text.trim()}) ${term}` : `${text.trim()} ${term}`;
}

export function withoutTerm(text, term) {
  const at = indexOf(text, term);
  if (at < 0) return text;
  const rest = `${text.slice(0, at).trimEnd()} ${text.slice(at + term.length).trimStart()}`.trim();
  const inside = /^\(([^()]*)\)$/.exec(rest); // parentheses added by `withTerm`
  return inside ? inside[1] : rest;
}

export class Filter {
  #asked = 0;
  #pending = [];
  /** The filter whose rows are shown; the field may be newer. */
  shown = "";

  constructor(rows) {
    this.rows = rows;
    this.box = byId("filter");
    this.sort = byId("sort");
    this.wrong = byId("filter-error");
    this.found = byId("count");
    this.reading = byId("reading");
    this.chips = [...document.querySelectorAll(".chip")];
    const later = debounce(250, () => this.run({ keep: false }));
    this.box.addEventListener("input", () => {
      this.#marks();
      later();
    });
    this.box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault();
      if (event.key === "Escape" && this.box.value) this.set("");
      else byId("grid").focus();
      if (event.key === "Enter") this.run({ keep: false });
    });
    this.sort.addEventListener("change", () => this.run());
    for (const chip of this.chips) {
      const { term } = chip.dataset;
      chip.addEventListener("click", () => {
        const { value } = this.box;
        this.set(hasTerm(value, term) ? withoutTerm(value, term) : withTerm(value, term));
      });
    }
    this.#recall();
  }

  get text() {
    return this.box.value;
  }

  set(text) {
    this.box.value = text;
    this.#marks();
    return this.run({ keep: false });
  }

  /** Requests the matching rows; `keep`: the current row stays selected even if it does not match. */
  async run({ keep = true } = {}) {
    const asked = ++this.#asked;
    let answer;
    try {
      answer = await get("/api/rows", { filter: this.text, sort: this.sort.value });
    } catch (error) {
      if (asked === this.#asked) this.#refused(error);
      return;
    }
    if (asked !== this.#asked) return; // a newer request is pending
    this.wrong.hidden = true;
    this.box.removeAttribute("aria-invalid");
    this.shown = answer.filter;
    this.#pending = answer.pending;
    this.rows.setList(answer.numbers, answer.total);
    if (!keep && this.rows.placeOf(this.rows.current) < 0 && answer.count) this.rows.select(answer.numbers[0]);
    this.#count(answer);
    this.#remember();
  }

  #count({ count: found, total, pending }) {
    const text =
      found === total ? count(total, "image") : `${found.toLocaleString("en")} of ${count(total, "image")}`;
    const still = pending.includes("duplicates") ? "looking for duplicates…" : pending.length ? "still counting…" : "";
    this.found.value = [text, still].filter(Boolean).join(", ");
  }

  #refused(error) {
    this.wrong.hidden = false;
    if (error instanceof Unreachable || error.kind !== "filter") {
      this.wrong.replaceChildren(error.message);
      return;
    }
    this.box.setAttribute("aria-invalid", "true");
    const { position, length, expected } = error.details;
    // Positions are code points; JavaScript strings count UTF-16 units.
    const signs = [...this.text];
    const part = (from, to) => signs.slice(from, to).join("");
    const marked = part(position, position + length) || "▁";
    this.wrong.replaceChildren(
      el("code", { dir: "auto" }, part(0, position), el("mark", {}, marked), part(position + length)),
      ` ${error.message}${expected && !error.message.includes(expected) ? `; expected ${expected}` : ""}`,
    );
  }

  #marks() {
    for (const chip of this.chips) chip.setAttribute("aria-pressed", String(hasTerm(this.text, chip.dataset.term)));
  }

  /** Counts the rows of each chip. Duplicates only after a scan, which decodes every image. */
  async counts(scans) {
    for (const chip of this.chips) {
      const { term } = chip.dataset;
      if (scans.captions.state !== "done") return; // a search in the captions waits until all are read
      if (term === "is:duplicate" && scans.duplicates.state !== "done") continue;
      if (term === "is:long" && scans.tokens.state !== "done") continue;
      const answer = await get("/api/rows/count", { filter: term }).catch(() => null);
      if (!answer) continue;
      chip.querySelector("b").textContent = answer.count.toLocaleString("en");
      chip.toggleAttribute("data-empty", !answer.count && !hasTerm(this.text, term));
      if ("seldom" in chip.dataset) chip.hidden = !answer.count && !hasTerm(this.text, term);
    }
  }

  /** Scans have progressed: repeat a search that was incomplete. */
  scanned(scans) {
    if (this.#pending.some((name) => ["done", "failed"].includes(scans[name]?.state))) this.run({ keep: false });
    const share = ({ done, total }) => `${done.toLocaleString("en")} of ${total.toLocaleString("en")}`;
    if (scans.duplicates.state === "running" && this.#pending.includes("duplicates")) {
      this.found.value = `looking for duplicates: ${share(scans.duplicates)}`;
    }
    const { captions } = scans;
    this.reading.hidden = captions.state !== "running" || !captions.total;
    if (!this.reading.hidden) {
      this.reading.textContent = `reading captions: ${share(captions)}`;
    }
  }

  // The URL keeps the filter, so that a reload shows the same rows.

  #remember() {
    const kept = new URLSearchParams();
    if (this.text) kept.set("filter", this.text);
    if (this.sort.value !== "order") kept.set("sort", this.sort.value);
    history.replaceState(null, "", kept.size ? `#${kept}` : location.pathname);
  }

  #recall() {
    const kept = new URLSearchParams(location.hash.slice(1));
    this.box.value = kept.get("filter") ?? "";
    this.sort.value = kept.get("sort") ?? "order";
    if (this.sort.selectedIndex < 0) this.sort.value = "order";
    this.#marks();
  }
}
