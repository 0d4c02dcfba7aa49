// The grid: only as many cells as fit on the screen; they are reused while scrolling.

import { count, el, spelt } from "./dom.js";
import { listenToDrags } from "./drag.js";

const GAP = 10;
const WORDS = 64; // pixels below an image
const SPARE = 2; // extra rows of cells above and below the viewport

class Cell {
  constructor(grid) {
    this.number = null;
    this.img = el("img", { alt: "", decoding: "async", draggable: "false" });
    this.name = el("span", { class: "name", dir: "auto" });
    this.words = el("span", { class: "words", dir: "auto" });
    this.flags = el("span", { class: "flags" });
    this.element = el("div", { class: "cell", role: "option" }, this.img, this.name, this.words, this.flags);
    this.img.addEventListener("load", () => this.element.classList.remove("loading"));
    this.img.addEventListener("error", () => {
      this.element.classList.remove("loading");
      this.element.classList.add("no-image");
    });
    this.element.addEventListener("click", (event) => grid.choose(this.number, event));
    this.element.addEventListener("contextmenu", (event) => {
      if (event.pointerType !== "touch") return; // a long press
      event.preventDefault();
      grid.rows.toggle(this.number);
    });
    this.element.addEventListener("dblclick", () => grid.open(this.number));
  }

  show(number, row) {
    const other = number !== this.number;
    this.number = number;
    this.element.id = `cell-${number}`;
    if (other) {
      this.#image(null);
      this.element.classList.remove("rejected", "uncaptioned");
      this.name.textContent = this.words.textContent = this.flags.textContent = "";
    }
    if (!row) return;
    this.#image(row.missing ? null : row.thumb);
    this.element.classList.toggle("rejected", row.rejected);
    this.element.classList.toggle("uncaptioned", !row.captions.length);
    this.element.classList.toggle("no-image", row.missing);
    this.name.replaceChildren(...spelt(row.id));
    this.words.replaceChildren(...(row.captions.length ? spelt(row.captions[0]) : ["no caption"]));
    this.flags.textContent = flagsOf(row).join(" · ");
  }

  #image(src) {
    if (src === this.img.getAttribute("src")) return;
    this.element.classList.remove("no-image");
    this.element.classList.toggle("loading", src !== null);
    if (src === null)
      this.img.removeAttribute("src"); // cancels loading
    else this.img.setAttribute("src", src);
  }
}

function flagsOf(row) {
  return [
    row.rejected && "rejected",
    row.missing && "removed from disk",
    row.problem && !row.missing && "unreadable",
    row.duplicates?.length && "duplicate",
    row.captions.length > 1 && count(row.captions.length, "caption"),
  ].filter(Boolean);
}

/** Keeps the focus and references the current cell (`aria-activedescendant`), because cells are reused. */
export class Grid {
  #cells = new Map();
  #spare = [];
  #columns = 1;
  #height = 1;
  #least = 150;
  #scrolled = { top: 0, at: 0 };
  #later = null;

  /** `open` edits a row, `look` shows it on small screens. */
  constructor(element, rows, { open, look }) {
    this.element = element;
    this.sheet = element.querySelector(".sheet");
    this.rows = rows;
    this.open = (number) => {
      rows.select(number);
      open();
    };
    this.look = look;
    let frame = 0;
    const soon = () => (frame ||= requestAnimationFrame(() => ((frame = 0), this.draw())));
    element.addEventListener("scroll", soon, { passive: true });
    new ResizeObserver(() => this.measure()).observe(element);
    rows.addEventListener("list", () => this.measure());
    rows.addEventListener("stale", soon);
    rows.addEventListener("selection", soon);
    rows.addEventListener("rows", ({ detail }) => {
      for (const number of detail) this.#cells.get(number)?.show(number, rows.get(number));
    });
    rows.addEventListener("current", () => this.follow());
    element.addEventListener("keydown", (event) => this.#key(event));
    listenToDrags(element, this.sheet, {
      touched: (...corners) => this.#touched(...corners),
      select: (numbers, options) => rows.setSelection(numbers, options),
    });
  }

  /** A click: chooses one image; with Ctrl, or by a tap while others are selected, adds or removes it; with Shift
   * selects up to it. */
  choose(number, { ctrlKey, metaKey, shiftKey, pointerType }) {
    this.element.focus({ preventScroll: true });
    const tap = pointerType === "touch" && this.rows.selected.size > 0;
    if (ctrlKey || metaKey || tap) this.rows.toggle(number);
    else if (shiftKey) this.rows.selectTo(number);
    else {
      this.rows.choose(number);
      this.look();
    }
  }

  /** Sets the minimum width of a cell in pixels. */
  resize(least) {
    this.#least = least;
    this.measure();
    this.follow();
  }

  /** The rows whose cells a rectangle of the sheet touches. */
  #touched(x0, y0, x1, y1) {
    const column = (x) => Math.floor(x / (this.width + GAP));
    const found = [];
    for (let line = Math.max(0, Math.floor(y0 / this.#height)); line * this.#height <= y1; line++) {
      const first = Math.max(0, column(x0));
      for (let i = first; i <= Math.min(this.#columns - 1, column(x1)); i++) {
        const number = this.rows.list[line * this.#columns + i];
        if (number !== undefined) found.push(number);
      }
    }
    return found;
  }

  /** Lays out all rows; the one at the top keeps its position. */
  measure() {
    const width = this.sheet.clientWidth;
    if (!width) return;
    const top = this.#firstShown();
    this.#columns = Math.max(2, Math.floor((width + GAP) / (this.#least + GAP)));
    this.width = Math.floor((width - GAP * (this.#columns - 1)) / this.#columns);
    this.#height = this.width + WORDS + GAP;
    const lines = Math.ceil(this.rows.list.length / this.#columns);
    this.sheet.style.height = `${Math.max(0, lines * this.#height - GAP)}px`;
    this.sheet.classList.toggle("nothing", !lines);
    this.element.style.setProperty("--cell", `${this.width}px`);
    if (top > 0) this.element.scrollTop = Math.floor(top / this.#columns) * this.#height;
    this.draw({ moved: true });
  }

  /** Numbers of the rows that have a cell, and of the current one. */
  get shown() {
    const { current } = this.rows;
    return [...new Set([...(current === null ? [] : [current]), ...this.#cells.keys()])];
  }

  #firstShown() {
    return Math.floor(this.element.scrollTop / this.#height) * this.#columns;
  }

  draw({ moved = false } = {}) {
    const { list } = this.rows;
    const top = this.element.scrollTop;
    const first = Math.max(0, Math.floor(top / this.#height) - SPARE) * this.#columns;
    const lines = Math.ceil(this.element.clientHeight / this.#height) + 2 * SPARE;
    const shown = list.slice(first, first + lines * this.#columns);
    const kept = new Set(shown);
    for (const [number, cell] of this.#cells) {
      if (kept.has(number)) continue;
      this.#cells.delete(number);
      this.#spare.push(cell);
    }
    const all = String(list.length);
    shown.forEach((number, i) => {
      let cell = this.#cells.get(number);
      if (!cell || moved || cell.element.ariaSetSize !== all) {
        if (!cell) {
          cell = this.#spare.pop() ?? new Cell(this);
          this.#cells.set(number, cell);
          cell.show(number, this.rows.get(number));
        }
        this.#put(cell, first + i, all);
      }
      const { current, selected } = this.rows;
      cell.element.setAttribute("aria-selected", String(selected.size ? selected.has(number) : number === current));
      cell.element.classList.toggle("current", number === current);
      cell.element.classList.toggle("chosen", selected.has(number));
    });
    for (const cell of this.#spare.splice(0)) cell.element.remove();
    this.#order(shown);
    this.#name();
    this.#want(shown, top);
  }

  #put(cell, place, all) {
    const x = (place % this.#columns) * (this.width + GAP);
    const y = Math.floor(place / this.#columns) * this.#height;
    cell.element.style.transform = `translate(${x}px, ${y}px)`;
    cell.element.setAttribute("aria-posinset", place + 1);
    cell.element.setAttribute("aria-setsize", all);
  }

  /** Orders the cells in the document as in the list, for screen readers. */
  #order(shown) {
    let next = this.sheet.firstElementChild;
    for (const number of shown) {
      const { element } = this.#cells.get(number);
      if (element === next) next = next.nextElementSibling;
      else this.sheet.insertBefore(element, next);
    }
  }

  /** Requests the visible rows; during fast scrolling only once it slows down. */
  #want(shown, top) {
    const now = performance.now();
    const speed = Math.abs(top - this.#scrolled.top) / Math.max(1, now - this.#scrolled.at);
    this.#scrolled = { top, at: now };
    clearTimeout(this.#later);
    const wanted = this.rows.current === null ? shown : [this.rows.current, ...shown];
    this.#later = setTimeout(() => this.rows.want(wanted, { more: false }), speed > 8 ? 90 : 0);
  }

  #name() {
    const current = this.#cells.get(this.rows.current);
    if (current) this.element.setAttribute("aria-activedescendant", current.element.id);
    else this.element.removeAttribute("aria-activedescendant");
  }

  /** Scrolls the current row into view. */
  follow() {
    const place = this.rows.placeOf(this.rows.current);
    if (place >= 0) {
      const y = Math.floor(place / this.#columns) * this.#height;
      const room = this.element.clientHeight - this.#height;
      if (y < this.element.scrollTop) this.element.scrollTop = y;
      else if (y > this.element.scrollTop + room) this.element.scrollTop = Math.min(y, y - room);
    }
    this.draw();
  }

  #key(event) {
    const { rows } = this;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "a") {
      event.preventDefault();
      rows.selectAll();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.#height)) * this.#columns;
    const all = this.rows.list.length;
    const steps = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: this.#columns,
      ArrowUp: -this.#columns,
      PageDown: page,
      PageUp: -page,
      Home: -all,
      End: all,
    };
    if (event.key === "Enter") this.open(rows.current);
    else if (event.key === " " && rows.current !== null) rows.toggle(rows.current);
    else if (event.key === "Escape" && rows.selected.size) rows.clearSelection();
    else if (event.key in steps && event.shiftKey && rows.list.length) {
      rows.selectTo(rows.list[Math.max(0, Math.min(all - 1, rows.place + steps[event.key]))]);
    } else if (event.key in steps) rows.step(steps[event.key]);
    else return;
    event.preventDefault();
  }
}
