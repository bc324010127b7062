// Makes requests of conversations, and reads answers as they come.

import { stream } from "./api.js";
import { Gatherer } from "./probabilities.js";

const LIKELIEST = 5;
// Completions end after 16 tokens where nothing is said (OpenAI's default), which is less than a sentence.
const CONTINUED = 256;
const ENDS = { length: "cut" };

/**
 * What the server is to see of a conversation up to a turn. how: {model, chats: whether it has a chat template,
 * continues: whether it goes on with a text, rather than answer it as an encoder-decoder does}.
 */
export function seen({ model, chats, continues }, conversation, turn) {
  if (chats) return { model, messages: conversation.messages(turn) };
  const before = continues ? conversation.upTo(turn) : [turn];
  return { model, prompt: before.map((one) => one.text).join("") };
}

/** Path and body of a request for the answer to a turn. */
export function request(how, conversation, turn, settings) {
  const { chats } = how;
  const shared = {
    ...seen(how, conversation, turn), ...settings.sampling(), stream: true, stream_options: { include_usage: true },
  };
  if (!chats) {
    const asked = { max_tokens: CONTINUED, ...shared };
    return ["v1/completions", settings.logprobs ? { ...asked, logprobs: LIKELIEST } : asked];
  }
  return ["v1/chat/completions", settings.logprobs ? { ...shared, logprobs: true, top_logprobs: LIKELIEST } : shared];
}

/**
 * Asks, and yields what there is of the answer whenever there is more of it: {text, tokens, state, figures}.
 * figures: {tokens, prompt, first, rate}: seconds to the first token, tokens a second after it.
 */
export async function* answer(path, body, signal) {
  const began = performance.now();
  const gathered = new Gatherer();
  const said = { text: "", tokens: gathered.tokens, state: "writing", figures: null };
  let first = null;
  let events = 0;
  for await (const event of stream(path, body, signal)) {
    const choice = event.choices?.[0];
    if (choice) {
      const more = choice.delta?.content ?? choice.text ?? "";
      if (typeof more === "string") said.text += more;
      if (choice.logprobs) gathered.take(choice.logprobs);
      if (more) events += 1;
      if (more && first === null) first = performance.now();
      if (choice.finish_reason) said.state = ENDS[choice.finish_reason] ?? "done";
    }
    said.figures = figures(event.usage ?? said.figures?.usage, events, { began, first });
    yield said;
  }
  gathered.end();
  if (said.state === "writing") said.state = "done";
  yield said;
}

function figures(usage, events, { began, first }) {
  if (first === null) return null;
  const tokens = usage?.completion_tokens ?? events;
  const seconds = (performance.now() - first) / 1000;
  const rate = tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : null;
  return { tokens, prompt: usage?.prompt_tokens ?? null, first: (first - began) / 1000, rate, usage };
}
