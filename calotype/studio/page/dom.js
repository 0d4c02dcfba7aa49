// Elements from plain values. What comes from the dataset becomes text here, never markup.

/** An element with attributes (`on…`: listeners; false, null: left out) and children (texts, elements, null). */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") element[name] = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

// Controls, marks that turn the direction of text round, and blanks of no width: they are in file names to deceive, and
// in captions by accident.
const ODD = /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]/g;

/** A text as nodes, with what can't be seen spelt out. */
export function spelt(text) {
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(ODD)) {
    nodes.push(text.slice(from, match.index), el("span", { class: "odd" }, codeOf(match[0])));
    from = match.index + 1;
  }
  return [...nodes, text.slice(from)].filter((node) => node !== "");
}

/** The same as one string, for titles and labels. */
export const speltText = (text) => text.replace(ODD, (sign) => `[${codeOf(sign)}]`);

/** The kinds of invisible signs in a text, but for line ends, which an editor shows. */
export const oddSigns = (text) => [...new Set(text.match(ODD) ?? [])].filter((sign) => sign !== "\n").map(codeOf);

function codeOf(sign) {
  return sign === "\n" ? "↵" : `U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}

/** "1 picture", "3 pictures". */
export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** Calls `action` when it has not been asked for `ms` milliseconds. */
export function calm(ms, action) {
  let timer;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...args), ms);
  };
}
