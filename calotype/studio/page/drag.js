// Selecting by dragging over the grid: a rectangle, and the cells that it touches.

import { el } from "./dom.js";

const LEAST = 6; // pixels before a press becomes a drag

/** `touched(x0, y0, x1, y1)`: numbers in a rectangle of the sheet; `select(numbers, { add })`. */
export function listenToDrags(grid, sheet, { touched, select }) {
  const band = el("div", { class: "band", hidden: true });
  sheet.append(band);
  let start = null;
  const at = ({ clientX, clientY }) => {
    const { left, top } = sheet.getBoundingClientRect();
    return [clientX - left, clientY - top];
  };
  const move = (event) => {
    const [x, y] = at(event);
    if (!start.dragging && Math.hypot(x - start.x, y - start.y) < LEAST) return;
    start.dragging = true;
    const [x0, x1] = [Math.min(x, start.x), Math.max(x, start.x)];
    const [y0, y1] = [Math.min(y, start.y), Math.max(y, start.y)];
    band.hidden = false;
    Object.assign(band.style, { left: `${x0}px`, top: `${y0}px`, width: `${x1 - x0}px`, height: `${y1 - y0}px` });
    select(touched(x0, y0, x1, y1), { add: start.add });
    const { top, bottom } = grid.getBoundingClientRect();
    if (event.clientY < top + 30) grid.scrollTop -= 20;
    else if (event.clientY > bottom - 30) grid.scrollTop += 20;
  };
  const stop = () => {
    removeEventListener("pointermove", move);
    removeEventListener("pointerup", stop);
    removeEventListener("pointercancel", stop);
    band.hidden = true;
    if (!start.dragging) return;
    // The click that follows would choose a single image.
    const swallow = (event) => event.stopPropagation();
    addEventListener("click", swallow, { capture: true });
    setTimeout(() => removeEventListener("click", swallow, { capture: true }));
  };
  grid.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType !== "mouse" || event.shiftKey) return;
    if (event.offsetX > grid.clientWidth && event.target === grid) return; // the scroll bar
    const [x, y] = at(event);
    start = { x, y, add: event.ctrlKey || event.metaKey, dragging: false };
    addEventListener("pointermove", move);
    addEventListener("pointerup", stop);
    addEventListener("pointercancel", stop);
  });
}
