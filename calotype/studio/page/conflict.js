// A caption that somebody else has changed meanwhile: both texts, and a choice.

import { el, spelt } from "./dom.js";
import { same } from "./saver.js";

const texts = (captions) =>
  captions.length
    ? captions.map((text) => el("p", { class: "text", dir: "auto" }, spelt(text)))
    : el("p", {}, "no caption");

/** The choice, as an element. `settle` gets captions, or null for theirs. */
export function conflictView(draft, { several, settle }) {
  const { captions: theirs, missing, rejected } = draft.conflict;
  const mine = draft.captions === undefined ? null : draft.captions.filter((text) => text.trim());
  const more = (mine ?? []).filter((text) => !theirs.includes(text));
  const button = (text, captions) => el("button", { type: "button", onclick: () => settle(captions) }, text);
  if (missing) {
    return el(
      "section",
      { class: "conflict", role: "alert" },
      el("h3", {}, "Gone from the disk"),
      el("p", {}, "The picture, or what names it, is no longer there: what you wrote can't be saved."),
      mine && texts(mine),
      button("Give up my text", null),
    );
  }
  return el(
    "section",
    { class: "conflict", role: "alert" },
    el("h3", {}, "Changed on the disk meanwhile"),
    el("p", {}, "Somebody else has changed this picture since you began. Nothing is written until you choose."),
    el(
      "div",
      { class: "sides" },
      el("div", {}, el("h4", {}, "On the disk now"), texts(theirs), rejected ? el("p", {}, "rejected") : null),
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
      button("Take what is on the disk", null),
      button("Keep mine", mine ?? theirs),
      several && more.length && theirs.length && !same(theirs, mine) ? button("Keep both", [...theirs, ...more]) : null,
    ),
  );
}
