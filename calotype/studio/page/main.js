// The review page: creates the components and connects them.

import { get } from "./api.js";
import { AugmentPanel } from "./augment.js";
import { openBulk } from "./bulk.js";
import { Captioning } from "./captioning.js";
import { follow } from "./changes.js";
import { byId, debounce, count, el } from "./dom.js";
import { Filter } from "./filter.js";
import { Grid } from "./grid.js";
import { listenToKeys, openHelp, openSyntax } from "./keys.js";
import { Pane } from "./pane.js";
import { Rows } from "./rows.js";
import { Saver } from "./saver.js";
import { Selection } from "./selection.js";
import { Statistics } from "./statistics.js";
import { forgetTags } from "./tags.js";
import { Undo } from "./undo.js";
import { showWriting } from "./writing.js";

/** Shows a message for a few seconds; screen readers read it. */
function say(text, { bad = false } = {}) {
  const toast = el("p", { class: bad ? "toast bad" : "toast" }, text);
  byId("toasts").append(toast);
  setTimeout(() => toast.remove(), bad ? 12000 : 5000);
}

function showState({ state, text, number }, rows) {
  const output = byId("save-state");
  output.dataset.state = state;
  if (output.value !== text) output.value = text;
  byId("show-unsaved").hidden = number === undefined || number === rows.current;
  byId("show-unsaved").onclick = () => rows.select(number);
}

function showDataset(dataset) {
  document.title = `${dataset.name} · calotype studio`;
  byId("title").textContent = dataset.name;
  byId("title").title = `${dataset.path}, ${dataset.kind}`;
  byId("read-only").hidden = dataset.writable;
  byId("read-only").textContent = dataset.writable ? "" : `Read-only: ${dataset.why_not}`;
  if (!dataset.writable) byId("open-bulk").disabled = byId("open-tagging").disabled = true;
}

async function start() {
  const dataset = await get("/api/dataset");
  showDataset(dataset);
  const rows = new Rows();
  const saver = new Saver(rows);
  const filter = new Filter(rows);
  const undo = new Undo({ rows, saver, say });
  const captioning = new Captioning({ rows, filter, saver, say });
  let scans = dataset.scans;
  const recount = debounce(800, () => {
    forgetTags();
    filter.counts(scans);
  });

  const actions = {
    step: (by) => rows.step(by),
    reject: () => {
      const { current } = rows;
      if (rows.selected.size > 1 && dataset.writable) {
        selection.rejectOrRestore();
        return;
      }
      const row = rows.get(current);
      if (!row) return;
      if (!dataset.writable) {
        say(dataset.why_not, { bad: true });
        return;
      }
      const rejected = !(saver.draft(current)?.rejected ?? row.rejected);
      saver.change(current, { rejected }, { atOnce: true });
      pane.refresh();
    },
    again: () => rows.current !== null && captioning.again(rows.current),
  };
  const pane = new Pane(rows, saver, dataset, actions);
  const grid = new Grid(byId("grid"), rows, { open: () => pane.edit(), look: () => pane.open() });
  byId("size").addEventListener("input", ({ target }) => grid.resize(Number(target.value)));
  const augment = new AugmentPanel({ rows, saver, say, step: actions.step });
  const bulk = () => dataset.writable && openBulk({ rows, filter, saver, done: bulkDone });
  const bulkDone = (answer) => {
    undo.show(answer.undo);
    rows.invalidate(null);
    const backup = answer.backup ? ` Backup: ${answer.backup}` : "";
    const { label } = answer;
    const stopped = answer.stopped ? " It was cancelled; undo restores what was changed." : "";
    const facts = () => `${label[0].toUpperCase()}${label.slice(1)}: ${count(answer.changed, "image")}.${stopped}${backup}`;
    say(label ? facts() : "Nothing to change.");
    showWriting(null, { say });
    if (answer.conflicts.length) {
      say(`${count(answer.conflicts.length, "image")} changed on disk meanwhile and were not overwritten.`, {
        bad: true,
      });
    }
    recount();
  };

  const { writable } = dataset;
  const selection = new Selection({ rows, filter, saver, say, writable, done: bulkDone });
  const statistics = new Statistics({ rows, filter, say });

  listenToKeys({
    j: () => actions.step(1),
    k: () => actions.step(-1),
    e: () => pane.edit(),
    x: actions.reject,
    r: actions.again,
    u: () => undo.go("undo"),
    "Ctrl+z": () => undo.go("undo"),
    "Ctrl+Shift+z": () => undo.go("redo"),
    "/": () => byId("filter").select(),
    "?": openHelp,
    t: () => selection.open(),
    s: () => statistics.toggle(),
    z: () => pane.zoom(),
    Escape: () => pane.leave(),
  });
  byId("open-help").addEventListener("click", openHelp);
  byId("open-syntax").addEventListener("click", openSyntax);
  byId("open-tagging").addEventListener("click", () => selection.open());
  byId("menu").addEventListener("click", ({ currentTarget }) => {
    const open = document.body.classList.toggle("menu-open");
    currentTarget.setAttribute("aria-expanded", String(open));
  });
  byId("open-bulk").addEventListener("click", bulk);
  byId("open-captioning").addEventListener("click", () => captioning.open());
  byId("open-augment").addEventListener("click", () => augment.open());

  let serverError = null; // why the server is unreachable
  let restarted = false; // the server was restarted and may number its rows differently
  let state = { state: "saved", text: "All saved" };
  const showAll = () => showState(serverError && state.state === "saved" ? { state: "failed", text: serverError } : state, rows);
  saver.addEventListener("state", ({ detail }) => {
    state = detail;
    showAll();
  });
  saver.addEventListener("saved", recount);
  rows.addEventListener("current", showAll);

  undo.show(dataset.undo);
  captioning.show(dataset.run);
  follow(dataset.seq, {
    shown: () => grid.shown,
    changed: (answer) => {
      if (serverError) {
        serverError = null;
        showAll();
        saver.flush();
        rows.invalidate([]);
      }
      restarted ||= answer.started !== dataset.started;
      if (restarted) {
        if (!saver.unsaved) location.reload();
        return;
      }
      if (Object.keys(scans).some((name) => scans[name].state !== answer.scans[name].state)) recount();
      ({ scans } = answer);
      undo.show(answer.undo);
      captioning.show(answer.run);
      showWriting(answer.writing, { say });
      filter.scanned(scans);
      if (answer.rows === "all") rows.invalidate(null);
      else if (answer.rows.length) rows.invalidate(answer.rows);
      if (answer.total !== rows.total) filter.run();
      if (answer.rows.length) recount();
      for (const { text } of answer.notices) say(text, { bad: true });
    },
    unreachable: (error) => {
      serverError = error.message;
      showAll();
    },
  });
  filter.scanned(scans);
  await filter.run();
  filter.counts(scans);
  byId("grid").focus({ preventScroll: true });
}

start().catch((error) => {
  byId("read-only").hidden = false;
  byId("read-only").textContent = error.message;
});
