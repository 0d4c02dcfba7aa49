// Dialogs: a title and a close button. The browser handles Escape and restores the focus.

import { el } from "./dom.js";

/** Fills and opens a `<dialog>`. */
export function openDialog(dialog, title, ...children) {
  const close = el(
    "button",
    { type: "button", class: "close", "aria-label": "Close", onclick: () => dialog.close() },
    "✕",
  );
  const body = el("div", { class: "dialog-body" }, ...children);
  if (!body.querySelector("button, input, select")) body.tabIndex = 0; // text that keys can scroll
  dialog.replaceChildren(el("header", {}, el("h2", { id: `${dialog.id}-title` }, title), close), body);
  dialog.showModal();
}

/** A control with its label. */
export function field(label, control) {
  return el("label", { class: "field" }, el("span", {}, label), control);
}

/** A checkbox with its label. */
export function tick(label, input) {
  return el("label", { class: "tick" }, input, el("span", {}, label));
}
