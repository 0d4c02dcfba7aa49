// Undo and redo: what they would take back, and the list of all steps.

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
      button.title = summary[way] === null ? "" : `${way === "undo" ? "Take back" : "Do again"}: ${summary[way]}`;
    }
  }

  async go(way) {
    await this.saver.flush();
    if (this.saver.unsaved) {
      this.say("There is something that is not saved yet: see to that first.", { bad: true });
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
    if (answer.label === null) this.say(way === "undo" ? "There is nothing to undo." : "There is nothing to redo.");
    else this.say(`${way === "undo" ? "Taken back" : "Done again"}: ${answer.label}`);
    if (answer.conflicts.length) {
      this.say(`${count(answer.conflicts.length, "picture")} changed on the disk since, and left as found.`, {
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
      steps.length ? null : el("p", {}, "Nothing has been changed since calotype studio was started."),
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
                ` ${count(rows, "picture")}, ${time.format(at * 1000)}${undone ? ", taken back" : ""}`,
              ),
            ),
          ),
      ),
    );
  }
}
