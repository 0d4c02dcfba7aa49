// Polls for changes by other programs, every second while the page is visible.

import { Unreachable, get } from "./api.js";
import { asRanges } from "./rows.js";

const POLL_MS = 1000;
const MOST = 400; // rows that a poll names

/** Calls `changed` with each response of /api/changes, and `unreachable` with the error when there is none; `shown`
 * returns the numbers of the rows on the screen, which are compared with the disk first. */
export function follow(seq, { changed, unreachable, shown }) {
  let timer;
  let pending = false;
  const poll = async () => {
    clearTimeout(timer);
    if (pending || document.hidden) return;
    pending = true;
    try {
      const answer = await get("/api/changes", { since: seq, shown: asRanges(shown().slice(0, MOST)) });
      changed(answer);
      seq = answer.seq;
    } catch (error) {
      unreachable(error instanceof Unreachable ? error : Object.assign(error, { final: error.status === 401 }));
    }
    pending = false;
    timer = setTimeout(poll, POLL_MS);
  };
  document.addEventListener("visibilitychange", poll);
  timer = setTimeout(poll, POLL_MS);
}
