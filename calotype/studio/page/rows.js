// The rows that the page knows, and those that the filter keeps; tells whoever listens what has changed.

import { get } from "./api.js";

const MOST = 500;

/** `numbers` as the server takes them: "0-59,120". */
export function asRanges(numbers) {
  const ranges = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last && last[1] + 1 === number) last[1] = number;
    else ranges.push([number, number]);
  }
  return ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(",");
}

/** Events: `list` (other rows are shown), `rows` (`detail`: numbers of rows that are new or others), `current`. */
export class Rows extends EventTarget {
  #known = new Map();
  #seqs = new Map();
  #stale = new Set();
  #wanted = new Set();
  #asking = false;
  #places = new Map();
  /** Numbers of the rows that the filter keeps, in order. */
  list = [];
  total = 0;
  current = null;
  #place = 0;

  get(number) {
    return this.#known.get(number);
  }

  /** Where a row is in the list; -1: it is not there. */
  placeOf(number) {
    return this.#places.get(number) ?? -1;
  }

  /** Where the current row is, or was before the list lost it. */
  get place() {
    const place = this.placeOf(this.current);
    return place < 0 ? Math.min(this.#place, this.list.length - 1) : place;
  }

  setList(numbers, total) {
    this.list = numbers;
    this.total = total;
    this.#places = new Map(numbers.map((number, place) => [number, place]));
    this.#tell("list");
    if (this.current === null && numbers.length) this.select(numbers[0]);
  }

  select(number) {
    if (number === this.current) return;
    this.current = number;
    this.#place = Math.max(0, this.placeOf(number));
    this.#tell("current");
    this.want([number]);
  }

  /** One step along the list; true where there was one to take. */
  step(by) {
    if (!this.list.length) return false;
    const lost = this.placeOf(this.current) < 0;
    const place = lost && by > 0 ? this.place + by - 1 : this.place + by;
    const next = this.list[Math.max(0, Math.min(this.list.length - 1, place))];
    if (next === this.current) return false;
    this.select(next);
    return true;
  }

  /** Rows as they were at `seq` of the server. What comes late, behind an answer that is newer, is left out. */
  take(rows, seq) {
    const fresh = rows.filter(({ n }) => !(this.#seqs.get(n) > seq));
    for (const row of fresh) {
      this.#known.set(row.n, row);
      this.#seqs.set(row.n, seq);
      this.#stale.delete(row.n);
    }
    if (fresh.length)
      this.#tell(
        "rows",
        fresh.map(({ n }) => n),
      );
  }

  /** What is known of these rows (null: of all) is old. */
  spoil(numbers) {
    for (const number of numbers ?? this.#known.keys()) if (this.#known.has(number)) this.#stale.add(number);
    this.#tell("stale", numbers);
  }

  /** Sees to it that these rows become known, soon, many with one question. What was wanted before is forgotten. */
  want(numbers, { more = true } = {}) {
    if (!more) this.#wanted.clear();
    for (const number of numbers) {
      if (!this.#known.has(number) || this.#stale.has(number)) this.#wanted.add(number);
    }
    if (this.#wanted.size && !this.#asking) {
      this.#asking = true;
      queueMicrotask(() => this.#ask());
    }
  }

  async #ask() {
    while (this.#wanted.size) {
      const numbers = [...this.#wanted].slice(0, MOST);
      this.#wanted = new Set([...this.#wanted].slice(MOST));
      try {
        const { rows, seq } = await get("/api/rows/details", { numbers: asRanges(numbers) });
        this.take(rows, seq);
      } catch {
        this.#wanted.clear(); // the poll finds out when the server is back, and the grid wants them again
      }
    }
    this.#asking = false;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
