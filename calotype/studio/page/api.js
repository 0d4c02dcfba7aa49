// The server: every question and answer goes through here.

/** The server answered that it will not, and why. */
export class Refused extends Error {
  constructor(status, body) {
    const error = body?.error ?? {};
    super(error.message ?? `the server answered ${status}`);
    this.status = status;
    this.kind = error.kind ?? "internal";
    this.details = error;
    this.body = body;
  }
}

/** The server did not answer. */
export class Away extends Error {
  constructor() {
    super("the server does not answer: is calotype studio still running?");
  }
}

async function ask(path, options = {}) {
  let response;
  let body;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Away();
  }
  if (!response.ok) throw new Refused(response.status, body);
  return body;
}

export function get(path, query = {}, { signal } = {}) {
  const text = new URLSearchParams(query).toString();
  return ask(text ? `${path}?${text}` : path, { signal });
}

export function post(path, data = {}, { signal } = {}) {
  return ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(data),
    signal,
  });
}
