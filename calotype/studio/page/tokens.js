// Token counts of captions while they are typed: one line per caption.

import { post } from "./api.js";
import { debounce, el } from "./dom.js";

/** A bar next to the numbers. */
function meter(share) {
  const fill = el("span", {});
  fill.style.width = `${100 * Math.min(1, share)}%`;
  return el("span", { class: "meter", "aria-hidden": "true" }, fill);
}

/** Counts below captions; `tokenizers` from /api/dataset. */
export class Tokens {
  #asked = 0;
  #stop = null;

  constructor(tokenizers) {
    this.tokenizers = tokenizers;
    this.later = debounce(180, (captions) => this.#ask(captions));
  }

  /** Shows `counts` of one caption; null: not counted yet. */
  show(line, counts, text = "", cuts = null) {
    line.replaceChildren(
      ...this.tokenizers.map(({ name, limit }, i) => {
        const number = counts?.[i] ?? null;
        const over = number !== null && limit !== null && number > limit;
        const cut = over && cuts?.[i] != null ? text.slice(0, cuts[i]).trimEnd().slice(-24) : null;
        return el(
          "span",
          { class: over ? "used over" : "used" },
          el("span", { class: "tokenizer" }, name),
          ` ${number ?? "–"}${limit === null ? "" : ` of ${limit}`}`,
          limit === null ? null : meter((number ?? 0) / limit),
          cut === null ? null : el("span", { class: "cut", dir: "auto" }, `cut off after “…${cut}”`),
          over && cut === null ? el("span", { class: "cut" }, "too long: its end is cut off") : null,
        );
      }),
    );
  }

  /** Counts when typing pauses. `captions`: [{ text, line }]. */
  count(captions) {
    if (this.tokenizers.length) this.later(captions);
  }

  async #ask(captions) {
    const asked = ++this.#asked;
    this.#stop?.abort();
    this.#stop = new AbortController();
    try {
      const texts = captions.map(({ text }) => text);
      const { counts, cuts } = await post("/api/tokens", { texts: texts.slice(0, 64) }, { signal: this.#stop.signal });
      if (asked !== this.#asked) return;
      captions.slice(0, 64).forEach(({ text, line }, i) => this.show(line, counts[i], text, cuts[i]));
    } catch {
      // The save state reports an unreachable server; the next input retries.
    }
  }
}
