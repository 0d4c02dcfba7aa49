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

/** Events: `list` (other rows are shown), `rows` (`detail`: numbers of rows that have changed), `current`, `selection`. */
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
  /** Numbers of the selected rows, all of them in the list; empty: only the current one is. */
  selected = new Set();
  #anchor = null;
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
    if (this.selected.size) this.setSelection(numbers.filter((number) => this.selected.has(number)));
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

  /** Selects these rows; `add`: besides those that are. */
  setSelection(numbers, { add = false } = {}) {
    this.selected = new Set([...(add ? this.selected : []), ...numbers]);
    this.#tell("selection");
  }

  selectAll() {
    this.setSelection(this.list);
  }

  clearSelection() {
    if (this.selected.size) this.setSelection([]);
  }

  /** Adds a row to the selection, or removes it; the current row is the first of a new one. */
  toggle(number) {
    const selected = new Set(this.selected.size || this.current === null ? this.selected : [this.current]);
    if (!selected.delete(number) || (number === this.current && !this.selected.size)) selected.add(number);
    this.#anchor = number;
    this.setSelection(selected);
    this.select(number);
  }

  /** Selects all rows from the one that was chosen last. */
  selectTo(number) {
    const anchor = this.placeOf(this.#anchor ?? this.current);
    const [from, to] = [Math.max(0, anchor), this.placeOf(number)].sort((a, b) => a - b);
    this.#anchor = this.list[Math.max(0, anchor)];
    this.setSelection(this.list.slice(from, to + 1));
    this.select(number);
  }

  /** Chooses one row, and clears the selection. */
  choose(number) {
    this.#anchor = number;
    this.clearSelection();
    this.select(number);
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
