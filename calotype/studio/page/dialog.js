// What all dialogs share: a title, a way out, the focus back where it was.

import { el } from "./dom.js";

/** Fills a `<dialog>` and opens it; gives its body. Escape closes it, as the browser sees to. */
export function openDialog(dialog, title, ...children) {
  const before = document.activeElement;
  const close = el(
    "button",
    { type: "button", class: "close", "aria-label": "Close", onclick: () => dialog.close() },
    "✕",
  );
  const body = el("div", { class: "dialog-body" }, ...children);
  dialog.replaceChildren(el("header", {}, el("h2", { id: `${dialog.id}-title` }, title), close), body);
  dialog.addEventListener("close", () => before?.isConnected && before.focus({ preventScroll: true }), { once: true });
  dialog.showModal();
  return body;
}

/** A control with its label. */
export function field(label, control, { wide = false } = {}) {
  return el("label", { class: wide ? "field wide" : "field" }, el("span", {}, label), control);
}

/** A switch with its label. */
export function tick(label, input) {
  return el("label", { class: "tick" }, input, el("span", {}, label));
}
