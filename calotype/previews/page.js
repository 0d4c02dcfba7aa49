// The comforts of the preview page: keys, switches, a filter. All of the page is there without them.

"use strict";

const samples = [...document.querySelectorAll(".sample")];
const tools = document.querySelector(".tools");
const tool = (name) => tools.querySelector(`[data-tool="${name}"]`);
tools.hidden = false;

function toggle(button) {
  const on = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(on));
  return on;
}

function crops() {
  document.documentElement.classList.toggle("no-crops", !toggle(tool("crops")));
}

function tokens() {
  const open = toggle(tool("tokens"));
  for (const list of document.querySelectorAll(".tokens details")) list.open = open;
}

function filter() {
  const part = tool("filter").value.trim().toLowerCase();
  for (const sample of samples) sample.hidden = !sample.dataset.id.toLowerCase().includes(part);
  const found = samples.filter((sample) => !sample.hidden).length;
  tool("found").textContent = part ? `${found} of ${samples.length}` : "";
}

// The sample that has the focus, while it is on the screen; else the first that is.
function current(shown) {
  const onScreen = (sample) => {
    const box = sample.getBoundingClientRect();
    return box.bottom > innerHeight / 3 && box.top < innerHeight;
  };
  const focused = document.activeElement.closest(".sample");
  return focused && onScreen(focused) ? shown.indexOf(focused) : shown.findIndex(onScreen) - 0.5;
}

function go(step) {
  const shown = samples.filter((sample) => !sample.hidden);
  if (!shown.length) return;
  const place = current(shown) + step;
  const next = shown[Math.max(0, Math.min(shown.length - 1, step > 0 ? Math.floor(place) : Math.ceil(place)))];
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "start" });
}

const keys = {
  j: () => go(1),
  ArrowRight: () => go(1),
  k: () => go(-1),
  ArrowLeft: () => go(-1),
  c: crops,
  t: tokens,
  "/": () => tool("filter").focus(),
};

tool("crops").addEventListener("click", crops);
tool("tokens").addEventListener("click", tokens);
tool("filter").addEventListener("input", filter);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches('input[type="search"]')) return;
  const action = keys[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
