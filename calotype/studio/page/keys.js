// Keyboard shortcuts, and the help dialog with them and the filter's syntax.

import { openDialog } from "./dialog.js";
import { byId, el } from "./dom.js";

const KEYS = [
  ["j", "k", "next and previous image"],
  ["e", "Enter", "edit its caption; Escape leaves it"],
  ["x", "reject it, or undo that"],
  ["r", "caption it again"],
  ["u", "Ctrl Z", "undo"],
  ["Ctrl Shift Z", "redo"],
  ["/", "to the filter; Escape clears it"],
  ["← ↑ ↓ →", "in the grid; also Home, End, Page up, Page down"],
  ["Ctrl A", "select all that are shown; Escape clears the selection"],
  ["Space", "add the image to the selection; Ctrl and a click do, too"],
  ["Shift", "with an arrow or a click: select all up to there; or drag over the grid"],
  ["t", "change a tag or word of those selected"],
  ["z", "true pixels, and back"],
  ["s", "statistics"],
  ["?", "this page"],
];

const WORDS = [
  ["red", 'captions with “red” in them; "red car" for a text with a space'],
  ['tag:"red hair" word:red', "exactly this tag between commas, or this word"],
  ["folder:cats bucket:768x512", "in a folder; trained in a bucket (width x height)"],
  ["id:holiday", "names with “holiday”"],
  ["tokens>75", "longest caption by any tokenizer; tokens.clip>75: by one"],
  ["captions>=2 words<5", "number of captions, number of words"],
  ["width<1024 height>=512 pixels>1000000 aspect>2", "of the image; aspect is width over height"],
  ["no:caption has:caption", ""],
  ["is:rejected is:duplicate is:missing is:unreadable", ""],
  ["is:long", "its end is cut off: more tokens than a tokenizer takes"],
  ["red AND (car OR bus) NOT blue", "adjacent terms are joined by AND; -blue is NOT blue"],
];

const list = (rows) => el("dl", {}, rows);
const syntax = () => list(WORDS.flatMap(([words, about]) => [el("dt", {}, el("code", {}, words)), el("dd", {}, about)]));

/** What the filter understands. */
export function openSyntax() {
  openDialog(byId("help"), "The filter", syntax());
}

export function openHelp() {
  openDialog(
    byId("help"),
    "Help",
    el("h3", {}, "Keys"),
    list(
      KEYS.flatMap((row) => [
        el(
          "dt",
          {},
          row
            .slice(0, -1)
            .map((key, i) => [i ? " or " : "", el("kbd", {}, key)])
            .flat(),
        ),
        el("dd", {}, row.at(-1)),
      ]),
    ),
    el("h3", {}, "The filter"),
    syntax(),
    el("p", {}, "Rejected images are marked and left out of training. Nothing is ever deleted."),
  );
}

const typing = (element) => element.matches("textarea, select, input:not([type=checkbox], [type=range])");

/** `actions`: function of each key. Keys typed into a field are ignored. */
export function listenToKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || typing(event.target) || document.querySelector("dialog[open]"))
      return;
    const held = event.ctrlKey || event.metaKey;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const name = held ? `Ctrl${event.shiftKey ? "+Shift" : ""}+${key}` : key;
    if (!(name in actions)) return;
    event.preventDefault();
    actions[name]();
  });
}
