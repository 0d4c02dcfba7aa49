// What others change: the server is asked every second while the page is to be seen.

import { Away, get } from "./api.js";

const EVERY = 1000;

/** Calls `changed` with each answer of /api/changes, `away` with the error when there is none. */
export function follow(seq, { changed, away }) {
  let timer;
  let asking = false;
  const ask = async () => {
    clearTimeout(timer);
    if (asking || document.hidden) return;
    asking = true;
    try {
      const answer = await get("/api/changes", { since: seq });
      changed(answer);
      seq = answer.seq;
    } catch (error) {
      away(error instanceof Away ? error : Object.assign(error, { final: error.status === 401 }));
    }
    asking = false;
    timer = setTimeout(ask, EVERY);
  };
  document.addEventListener("visibilitychange", ask);
  timer = setTimeout(ask, EVERY);
}
