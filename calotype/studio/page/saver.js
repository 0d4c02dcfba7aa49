// Autosave: unsaved changes, and writing them to disk.

import { Unreachable, Refused, post } from "./api.js";

const DEBOUNCE_MS = 600; // pause in typing before a caption is written
const BACKOFF = [1, 2, 4, 8]; // seconds until the next attempt while the server is unreachable

/**
 * Drafts by row: { id, captions?, rejected?, version, group, edits, sending, conflict, refused }. `id` and `version` are
 * of what the person saw, so that nothing else is written over; `conflict` is what the server found instead; `refused`
 * says why the server will not have it.
 *
 * Events: `state` (`detail`: { state, text, number? }), `saved` ({ number, version }), `conflict` (number), `undo`.
 */
export class Saver extends EventTarget {
  #rows;
  #drafts = new Map();
  #timer = null;
  #running = null;
  #failures = 0;
  #why = null;

  constructor(rows) {
    super();
    this.#rows = rows;
    rows.addEventListener("rows", ({ detail }) => detail.forEach((number) => this.#compare(number)));
    addEventListener("online", () => this.flush());
    addEventListener("beforeunload", (event) => this.#drafts.size && event.preventDefault());
  }

  draft(number) {
    return this.#drafts.get(number);
  }

  get unsaved() {
    return this.#drafts.size;
  }

  /** Changes a row: { captions, rejected }; `version`: the one that the person saw, by default the loaded row's. */
  change(number, changes, { group = null, version = null, atOnce = false } = {}) {
    const row = this.#rows.get(number);
    const draft = this.#drafts.get(number) ?? {
      id: row.id,
      version: version ?? row.version,
      group,
      edits: 0,
      sending: false,
      conflict: null,
    };
    Object.assign(draft, changes, { edits: draft.edits + 1, refused: null });
    if (group !== null) draft.group = group;
    this.#drafts.set(number, draft);
    this.#tell();
    if (draft.conflict) {
      this.dispatchEvent(new CustomEvent("conflict", { detail: number }));
      return;
    }
    clearTimeout(this.#timer);
    if (atOnce) this.flush();
    else this.#timer = setTimeout(() => this.flush(), DEBOUNCE_MS);
  }

  /** Resolves a conflict: overwrites this version with `captions`, or discards the draft (null). */
  settle(number, captions) {
    const draft = this.#drafts.get(number);
    const { conflict } = draft;
    if (captions === null) {
      this.#drafts.delete(number);
      this.#rows.invalidate([number]);
      this.#rows.want([number]);
      this.dispatchEvent(new CustomEvent("saved", { detail: { number, version: null } }));
      this.#tell();
      return;
    }
    draft.conflict = null;
    draft.version = conflict.version;
    this.change(number, { captions }, { atOnce: true });
  }

  /** Writes all drafts, one row after the other. `unsaved` tells whether any is left. */
  flush() {
    clearTimeout(this.#timer);
    this.#running ??= this.#run().finally(() => {
      this.#running = null;
      this.#tell();
    });
    return this.#running;
  }

  async #run() {
    let next;
    while ((next = [...this.#drafts].find(([, draft]) => !draft.conflict && !draft.refused))) {
      const [number, draft] = next;
      try {
        await this.#write(number, draft);
      } catch (error) {
        if (isPassing(error)) {
          this.#again(error);
          return;
        }
        draft.refused = error.message;
      }
      this.#failures = 0;
      this.#why = null;
    }
  }

  async #write(number, draft) {
    const edits = draft.edits;
    draft.sending = true;
    this.#tell();
    const { id, captions, rejected, version, group } = draft;
    let body;
    try {
      body = await post("/api/edit", {
        edits: [{ n: number, id, version, captions, rejected }],
        group: group ?? undefined,
      });
    } catch (error) {
      if (!(error instanceof Refused) || error.kind !== "conflict" || !error.body.conflicts) throw error;
      body = error.body;
    } finally {
      draft.sending = false;
    }
    const conflict = body.conflicts.find((one) => one.n === number);
    if (conflict) this.#conflict(number, draft, conflict);
    else {
      const row = body.rows.find((one) => one.n === number);
      draft.version = row.version;
      if (draft.edits === edits) {
        this.#drafts.delete(number);
        this.dispatchEvent(new CustomEvent("saved", { detail: { number, version: row.version } }));
      }
    }
    this.#rows.take(body.rows, body.seq);
    this.dispatchEvent(new CustomEvent("undo", { detail: body.undo }));
  }

  #again(error) {
    const seconds = BACKOFF[Math.min(this.#failures++, BACKOFF.length - 1)];
    this.#why = `${error.message} Trying again every few seconds.`;
    this.#timer = setTimeout(() => this.flush(), seconds * 1000);
  }

  /** A row was reloaded: if it changed under a draft, that is a conflict. */
  #compare(number) {
    const draft = this.#drafts.get(number);
    const row = this.#rows.get(number);
    if (
      !draft ||
      draft.sending ||
      row.id !== draft.id ||
      draft.conflict?.version === row.version ||
      row.version === draft.version
    )
      return;
    if (draft.captions === undefined || same(draft.captions, row.captions)) draft.version = row.version;
    else this.#conflict(number, draft, row);
  }

  #conflict(number, draft, { version, captions, rejected, missing }) {
    draft.conflict = { version, captions, rejected, missing };
    this.dispatchEvent(new CustomEvent("conflict", { detail: number }));
    this.#tell();
  }

  #tell() {
    this.dispatchEvent(new CustomEvent("state", { detail: this.#state() }));
  }

  #state() {
    const drafts = [...this.#drafts];
    if (!drafts.length) return { state: "saved", text: "All saved" };
    if (this.#why) return { state: "failed", text: `Not saved: ${this.#why}` };
    const held = drafts.find(([, draft]) => draft.refused ?? draft.conflict);
    if (!held) return { state: "saving", text: "Saving…" };
    const [number, { refused }] = held;
    return { state: "failed", text: `Not saved: ${refused ?? "changed on disk meanwhile"}`, number };
  }
}

/** Whether a retry may help: the server is unreachable, failing, or restarted. */
function isPassing(error) {
  return error instanceof Unreachable || (error instanceof Refused && (error.status >= 500 || error.status === 401));
}

/** Whether captions are equal; empty ones don't count. */
export function same(some, others) {
  const kept = (texts) => JSON.stringify(texts.map((text) => text.trim()).filter(Boolean));
  return kept(some) === kept(others);
}
