// Conversations as lines of JSON: {"messages": [{"role", "content"}, ...]}, what training reads and writes too.
// What comes in is read or refused, line by line, with a reason.

import { Conversation, LONGEST } from "./conversation.js";
import { say } from "./words.js";

export const MOST_MEBIBYTES = 32;
const MOST_LINES = 1000;
const MOST_MESSAGES = 2048; // as the API takes
const TITLE = 60;

/** A line for each conversation: the path that is shown. Those that are empty have none. */
export function written(conversations) {
  const full = conversations.filter((one) => !one.empty);
  return full.map((one) => `${JSON.stringify({ messages: one.messages(one.last()) })}\n`).join("");
}

/** Reads text: {conversations, refused: [{line, why}]}. */
export function read(text) {
  const conversations = [];
  const refused = [];
  let count = 0;
  for (const [index, line] of text.replace(/^\uFEFF/, "").split("\n").entries()) {
    if (!line.trim()) continue;
    count += 1;
    const why = count > MOST_LINES ? say("tooManyLines", { n: MOST_LINES }) : readLine(line, conversations);
    if (why) refused.push({ line: index + 1, why });
    if (count > MOST_LINES) break;
  }
  return { conversations, refused };
}

/** Reads a line into `found`. Returns why not, or null. */
function readLine(line, found) {
  if (line.length > 4 * LONGEST) return say("lineTooLong", { n: 4 * LONGEST });
  let said;
  try {
    said = JSON.parse(line);
  } catch {
    return say("notJson");
  }
  if (!isObject(said)) return say("notObject");
  const other = Object.keys(said).find((key) => key !== "messages");
  if (other !== undefined) return say("unknownField", { field: shown(other) });
  const { messages } = said;
  if (!Array.isArray(messages) || !messages.length || messages.length > MOST_MESSAGES) {
    return say("noMessages", { n: MOST_MESSAGES });
  }
  for (const [index, message] of messages.entries()) {
    const why = wrong(message, index);
    if (why) return why;
  }
  const made = conversation(messages);
  if (made.empty) return say("onlySystem");
  found.push(made);
  return null;
}

/** Why a message is not one, or null. */
function wrong(message, index) {
  const at = { i: index + 1 };
  if (!isObject(message) || Object.keys(message).sort().join() !== "content,role") return say("badMessage", at);
  const { role, content } = message;
  const known = role === "user" || role === "assistant" || (role === "system" && index === 0);
  if (!known) return say("badRole", { ...at, role: shown(role) });
  if (typeof content !== "string" || content.length > LONGEST) return say("badContent", { ...at, n: LONGEST });
  return null;
}

function conversation(messages) {
  const [first, ...rest] = messages;
  const system = first.role === "system" ? first.content : "";
  const made = new Conversation({ system });
  for (const { role, content } of system || first.role === "system" ? rest : messages) {
    made.add(made.last(), role, content);
  }
  made.title = titleOf(made);
  return made;
}

/** The beginning of what was said first. */
export function titleOf(conversation) {
  const first = conversation.path()[0]?.text.replace(/\s+/g, " ").trim() ?? "";
  const characters = Array.from(first.slice(0, 4 * TITLE));
  return characters.length > TITLE ? `${characters.slice(0, TITLE - 1).join("")}…` : characters.join("");
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function shown(value) {
  const text = JSON.stringify(value) ?? "undefined";
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}
