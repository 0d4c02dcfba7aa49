// Find and replace in many captions: first a preview, then the change.

import { post } from "./api.js";
import { field, openDialog, tick } from "./dialog.js";
import { byId, count, el, spelt } from "./dom.js";
import { scopeOf, scopes } from "./selection.js";

/** Returns a text with marked parts; `spans`: [from, to] in code points. */
function marked(text, spans, tag) {
  const signs = [...text];
  const nodes = [];
  let from = 0;
  for (const [start, end] of spans) {
    nodes.push(...spelt(signs.slice(from, start).join("")));
    if (end > start) nodes.push(el(tag, {}, spelt(signs.slice(start, end).join(""))));
    from = end;
  }
  return [...nodes, ...spelt(signs.slice(from).join(""))];
}

function example({ id, before, after, spans }) {
  return el(
    "li",
    {},
    el("p", { class: "id", dir: "auto" }, spelt(id)),
    el(
      "p",
      { class: "text", dir: "auto" },
      marked(
        before,
        spans.map(([a, b]) => [a, b]),
        "del",
      ),
    ),
    el(
      "p",
      { class: "text", dir: "auto" },
      marked(
        after,
        spans.map(([, , a, b]) => [a, b]),
        "ins",
      ),
    ),
  );
}

export function openBulk({ rows, filter, saver, done }) {
  const find = el("input", { type: "text", required: true, autocomplete: "off", spellcheck: "false", dir: "auto" });
  const replace = el("input", { type: "text", autocomplete: "off", spellcheck: "false", dir: "auto" });
  const regex = el("input", { type: "checkbox" });
  const ignoreCase = el("input", { type: "checkbox" });
  const where = scopes(rows, rows.selected.size > 1 ? "selected" : "shown");
  const found = el("div", { class: "bulk-found", "aria-live": "polite" });
  const apply = el("button", { type: "button", class: "main", disabled: true, onclick: () => submit() }, "Replace");
  let plan = null;

  const old = () => {
    plan = null;
    apply.disabled = true;
    apply.textContent = "Replace";
    found.replaceChildren();
  };
  const preview = async () => {
    old();
    await saver.flush();
    try {
      plan = await post("/api/bulk/preview", {
        find: find.value,
        replace: replace.value,
        regex: regex.checked,
        ignore_case: ignoreCase.checked,
        ...scopeOf(where.value, rows, filter),
      });
    } catch (error) {
      found.replaceChildren(el("p", { class: "notice", role: "alert" }, error.message));
      return;
    }
    apply.disabled = !plan.rows;
    apply.textContent = plan.rows ? `Replace in ${count(plan.rows, "image")}` : "Replace";
    found.replaceChildren(
      el(
        "p",
        {},
        plan.rows
          ? `${count(plan.occurrences, "time")} in ${count(plan.captions, "caption")} of ${count(plan.rows, "image")}.`
          : "Not found.",
      ),
      plan.emptied ? el("p", { class: "notice" }, `${count(plan.emptied, "caption")} would be empty and are removed.`) : "",
      plan.captions > plan.examples.length ? el("p", {}, `The first ${plan.examples.length}:`) : "",
      el("ol", { class: "examples" }, plan.examples.map(example)),
    );
  };
  const submit = async () => {
    apply.disabled = true;
    try {
      const answer = await post("/api/bulk/apply", { plan: plan.plan });
      dialog.close();
      done(answer);
    } catch (error) {
      if (error.body?.conflicts) {
        dialog.close();
        done(error.body);
      } else found.replaceChildren(el("p", { class: "notice", role: "alert" }, error.message));
    }
  };
  const form = el(
    "form",
    {
      class: "fields",
      oninput: old,
      onsubmit: (event) => {
        event.preventDefault();
        preview();
      },
    },
    field("Find", find),
    field("Replace with", replace),
    field("In", where),
    el(
      "div",
      { class: "ticks" },
      tick("Regular expression (Python’s; \\1 in the replacement)", regex),
      tick("Ignore case", ignoreCase),
    ),
    el("div", { class: "choices" }, el("button", { type: "submit" }, "Preview"), apply),
  );
  const dialog = byId("bulk");
  openDialog(dialog, "Find and replace", form, found);
  find.focus();
}
