// Asks the server that the page came from, and no other.

const KEY = "bestiary-key";
const LONGEST_EVENT = 1 << 23;
const REPLY = 1000; // characters of what a server says that are shown

/**
 * Why there is no answer. kind: network (nothing answered), key (401), busy (429), unavailable (503), request
 * (the server refused), broken (the stream ended before its end), strange (not what the API says).
 */
export class ApiError extends Error {
  constructor(kind, said = "", { after = null, code = null } = {}) {
    super(said);
    Object.assign(this, { kind, said: said.slice(0, REPLY), after, code });
  }
}

/** The key lasts as long as the tab. */
export const key = {
  get: () => kept(() => sessionStorage.getItem(KEY)) ?? "",
  set: (value) => kept(() => sessionStorage.setItem(KEY, value)),
  forget: () => kept(() => sessionStorage.removeItem(KEY)),
  allowed: (value) => /^[!-~]{1,512}$/.test(value),
};

function kept(done) {
  try {
    return done();
  } catch {
    return null;
  }
}

/** Asks for JSON; with a body by POST. Raises ApiError. */
export async function ask(path, body = undefined, signal = undefined) {
  const reply = await request(path, body, signal);
  try {
    return await reply.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("strange", "not JSON");
  }
}

/** Asks for a stream; yields each event's data. Raises ApiError, also for an event that tells of an error. */
export async function* stream(path, body, signal) {
  const reply = await request(path, body, signal);
  const type = reply.headers.get("content-type") ?? "";
  if (!type.startsWith("text/event-stream")) throw new ApiError("strange", type);
  for await (const data of events(reply.body, signal)) {
    if (data === "[DONE]") return;
    const said = parsed(data);
    if (said.error) throw new ApiError("broken", messageOf(said));
    yield said;
  }
  throw new ApiError("broken");
}

async function request(path, body, signal) {
  const headers = { accept: "application/json, text/event-stream" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  let reply;
  try {
    reply = await fetch(new URL(path, document.baseURI), {
      method: body === undefined ? "GET" : "POST",
      body: body === undefined ? undefined : JSON.stringify(body),
      headers, signal, credentials: "omit", redirect: "error", referrerPolicy: "no-referrer", cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("network");
  }
  if (!reply.ok) throw await refusal(reply);
  return reply;
}

async function refusal(reply) {
  const text = await reply.text().catch(() => "");
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy's own page: its status says enough.
  }
  const said = body ? messageOf(body) : `HTTP ${reply.status}`;
  const seconds = Number.parseInt(reply.headers.get("retry-after") ?? "", 10);
  const after = Number.isFinite(seconds) ? Math.min(Math.max(seconds, 1), 600) : null;
  const kind = { 401: "key", 429: "busy", 503: "unavailable" }[reply.status] ?? "request";
  return new ApiError(kind, said, { after, code: body?.error?.code ?? null });
}

function messageOf(body) {
  const said = body?.error?.message ?? body?.error;
  return typeof said === "string" ? said : "no reason given";
}

function parsed(data) {
  try {
    const said = JSON.parse(data);
    if (typeof said === "object" && said !== null) return said;
  } catch {
    // Told below.
  }
  throw new ApiError("strange", data.slice(0, 80));
}

/** The data of each event: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. */
async function* events(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    while (true) {
      const { value, done } = await read(reader, signal);
      if (done) return;
      rest += value;
      if (rest.length > LONGEST_EVENT) throw new ApiError("strange", "an event without an end");
      const ends = rest.endsWith("\r"); // its \n may come with what is read next
      const lines = (ends ? rest.slice(0, -1) : rest).split(/\r\n|\n|\r/);
      rest = lines.pop() + (ends ? "\r" : "");
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function read(reader, signal) {
  try {
    return await reader.read();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("broken");
  }
}
