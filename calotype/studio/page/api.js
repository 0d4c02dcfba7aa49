// Requests to the server.

/** The server rejected a request; the message is its reason. */
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

/** The server is unreachable. */
export class Unreachable extends Error {
  constructor() {
    super("the server does not respond: is calotype studio still running?");
  }
}

async function request(path, options = {}) {
  let response;
  let body;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable();
  }
  if (!response.ok) throw new Refused(response.status, body);
  return body;
}

export function get(path, query = {}, { signal } = {}) {
  const text = new URLSearchParams(query).toString();
  return request(text ? `${path}?${text}` : path, { signal });
}

export function post(path, data = {}, { signal } = {}) {
  return request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(data),
    signal,
  });
}
