// Undo and redo, and the list of all steps.

import { get, post } from "./api.js";
import { openDialog } from "./dialog.js";
import { byId, count, el, spelt } from "./dom.js";

export class Undo {
  constructor({ rows, saver, say }) {
    Object.assign(this, { rows, saver, say });
    this.buttons = { undo: byId("undo"), redo: byId("redo") };
    for (const [way, button] of Object.entries(this.buttons)) button.addEventListener("click", () => this.go(way));
    byId("open-history").addEventListener("click", () => this.history());
    saver.addEventListener("undo", ({ detail }) => this.show(detail));
  }

  show(summary) {
    for (const [way, button] of Object.entries(this.buttons)) {
      button.disabled = summary[way] === null;
      button.title = summary[way] === null ? "" : `${way === "undo" ? "Undo" : "Redo"}: ${summary[way]}`;
    }
  }

  async go(way) {
    await this.saver.flush();
    if (this.saver.unsaved) {
      this.say("There are unsaved changes: save or discard them first.", { bad: true });
      return;
    }
    let answer;
    try {
      answer = await post(`/api/${way}`);
    } catch (error) {
      if (!error.body?.conflicts) {
        this.say(error.message, { bad: true });
        return;
      }
      answer = error.body;
    }
    this.show(answer.undo);
    this.rows.take(answer.rows, answer.seq);
    if (answer.rows.length === 1) this.rows.select(answer.rows[0].n);
    if (answer.label === null) this.say(way === "undo" ? "Nothing to undo." : "Nothing to redo.");
    else this.say(`${way === "undo" ? "Undone" : "Redone"}: ${answer.label}`);
    if (answer.conflicts.length) {
      this.say(`${count(answer.conflicts.length, "image")} changed on disk since and were not overwritten.`, {
        bad: true,
      });
    }
  }

  async history() {
    const { steps } = await get("/api/history").catch(() => ({ steps: [] }));
    const time = new Intl.DateTimeFormat("en", { timeStyle: "medium" });
    openDialog(
      byId("history"),
      "History",
      steps.length ? null : el("p", {}, "No changes since calotype studio was started."),
      el(
        "ol",
        { class: "steps", reversed: true },
        steps
          .reverse()
          .map(({ label, rows, at, undone }) =>
            el(
              "li",
              { class: undone ? "undone" : null },
              el("span", { dir: "auto" }, spelt(label)),
              el(
                "span",
                { class: "faint" },
                ` ${count(rows, "image")}, ${time.format(at * 1000)}${undone ? ", undone" : ""}`,
              ),
            ),
          ),
      ),
    );
  }
}
