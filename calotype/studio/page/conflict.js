// Conflicts: another program has changed a caption meanwhile. Shows both texts and lets the person choose.

import { el, spelt } from "./dom.js";
import { same } from "./saver.js";

const texts = (captions) =>
  captions.length
    ? captions.map((text) => el("p", { class: "text", dir: "auto" }, spelt(text)))
    : el("p", {}, "no caption");

/** The element. `settle` gets captions, or null for theirs. */
export function conflictView(draft, { several, settle }) {
  const { captions: theirs, missing, rejected } = draft.conflict;
  const mine = draft.captions === undefined ? null : draft.captions.filter((text) => text.trim());
  const more = (mine ?? []).filter((text) => !theirs.includes(text));
  const button = (text, captions) => el("button", { type: "button", onclick: () => settle(captions) }, text);
  if (missing) {
    return el(
      "section",
      { class: "conflict", role: "alert" },
      el("h3", {}, "Removed from disk"),
      el("p", {}, "The image or its row no longer exists: your text can't be saved."),
      mine && texts(mine),
      button("Discard my text", null),
    );
  }
  return el(
    "section",
    { class: "conflict", role: "alert" },
    el("h3", {}, "Changed on disk meanwhile"),
    el("p", {}, "Another program has changed this image since you started editing. Nothing is written until you choose."),
    el(
      "div",
      { class: "sides" },
      el("div", {}, el("h4", {}, "On disk now"), texts(theirs), rejected ? el("p", {}, "rejected") : null),
      el(
        "div",
        {},
        el("h4", {}, "Yours"),
        mine ? texts(mine) : el("p", {}, draft.rejected ? "rejected" : "not rejected"),
      ),
    ),
    el(
      "div",
      { class: "choices" },
      button("Use the version on disk", null),
      button("Keep mine", mine ?? theirs),
      several && more.length && theirs.length && !same(theirs, mine) ? button("Keep both", [...theirs, ...more]) : null,
    ),
  );
}
