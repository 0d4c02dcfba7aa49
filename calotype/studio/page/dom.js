// DOM helpers. Text from the dataset is inserted as text, never as markup.

/** Creates an element with attributes (`on…`: listeners; false and null are skipped) and children. */
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

// Control characters, bidirectional marks and zero-width spaces: deceptive in file names, accidental in captions.
const ODD = /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]/g;

/** Returns a text as nodes, with invisible characters escaped. */
export function spelt(text) {
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(ODD)) {
    nodes.push(text.slice(from, match.index), el("span", { class: "odd" }, codeOf(match[0])));
    from = match.index + 1;
  }
  return [...nodes, text.slice(from)].filter((node) => node !== "");
}

/** The same as a string, for titles and labels. */
export const speltText = (text) => text.replace(ODD, (sign) => `[${codeOf(sign)}]`);

/** The distinct invisible characters of a text, without line breaks. */
export const oddSigns = (text) => [...new Set(text.match(ODD) ?? [])].filter((sign) => sign !== "\n").map(codeOf);

function codeOf(sign) {
  return sign === "\n" ? "↵" : `U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}

/** "1 image", "3 images". */
export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** Debounces `action`: calls it `ms` milliseconds after the last call. */
export function debounce(ms, action) {
  let timer;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...args), ms);
  };
}

/** Seconds in words: "40 s", "3 min". */
export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
