// The loaded rows and those that match the filter; dispatches events when they change.

import { get } from "./api.js";

const MOST = 500;

/** `numbers` as the query parameter: "0-59,120". */
export function asRanges(numbers) {
  const ranges = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last && last[1] + 1 === number) last[1] = number;
    else ranges.push([number, number]);
  }
  return ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(",");
}

/** Events: `list` (other rows are shown), `rows` (`detail`: numbers of rows that have changed), `current`. */
export class Rows extends EventTarget {
  #known = new Map();
  #seqs = new Map();
  #stale = new Set();
  #wanted = new Set();
  #asking = false;
  #places = new Map();
  /** Numbers of the matching rows, in order. */
  list = [];
  total = 0;
  current = null;
  #place = 0;

  get(number) {
    return this.#known.get(number);
  }

  /** Index of a row in the list; -1 if it is not in it. */
  placeOf(number) {
    return this.#places.get(number) ?? -1;
  }

  /** Index of the current row, or its last one. */
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

  /** Moves by one; returns whether the current row changed. */
  step(by) {
    if (!this.list.length) return false;
    const lost = this.placeOf(this.current) < 0;
    const place = lost && by > 0 ? this.place + by - 1 : this.place + by;
    const next = this.list[Math.max(0, Math.min(this.list.length - 1, place))];
    if (next === this.current) return false;
    this.select(next);
    return true;
  }

  /** Stores rows as of sequence number `seq`; an older response than the last is ignored. */
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

  /** Invalidates these rows (null: all). */
  invalidate(numbers) {
    for (const number of numbers ?? this.#known.keys()) if (this.#known.has(number)) this.#stale.add(number);
    this.#tell("stale", numbers);
  }

  /** Loads these rows soon, in one request. Replaces the rows of the last call. */
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
        this.#wanted.clear(); // the poll notices when the server is back, and the grid requests them again
      }
    }
    this.#asking = false;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
