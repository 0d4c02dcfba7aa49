// The progress of a change of many files, in the page header, with a button that cancels it.

import { post } from "./api.js";
import { byId, duration, el } from "./dom.js";

const section = byId("writing");
const home = section.parentElement;

/** Shows a change in progress; null: there is none. */
export function showWriting(writing, { say }) {
  section.hidden = writing === null;
  if (!writing) {
    section.replaceChildren();
    return;
  }
  // An open dialog makes the rest of the page inert.
  const place = document.querySelector("dialog[open] .dialog-body") ?? home;
  if (section.parentElement !== place) place.append(section);
  const { label, what, unit, done, total, seconds_left: left, can_stop: canStop, stopping } = writing;
  const cancel = () => post("/api/bulk/cancel").catch((error) => say(error.message, { bad: true }));
  const focused = section.contains(document.activeElement);
  const facts = `${what}: ${done.toLocaleString("en")} of ${total.toLocaleString("en")} ${unit}`;
  const button = el("button", { type: "button", disabled: !canStop || stopping, onclick: cancel }, "Cancel");
  section.replaceChildren(
    el("strong", {}, stopping ? "Stopping…" : `${label[0].toUpperCase()}${label.slice(1)}`),
    el("progress", { max: Math.max(1, total), value: done, "aria-label": what || "Writing" }),
    el("span", {}, left ? `${facts} · ${duration(left)} left` : facts),
    canStop ? button : "",
  );
  if (focused) button.focus();
}
