// OpenAI's client for Node against the server that the environment names. `npm ci && npm test`, or by pytest.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";

const url = process.env.BESTIARY_CONFORMANCE_URL;
const model = process.env.BESTIARY_CONFORMANCE_MODEL;
const embedder = process.env.BESTIARY_CONFORMANCE_EMBEDDER || model;
const key = process.env.BESTIARY_CONFORMANCE_KEY || "none";
const without = new Set((process.env.BESTIARY_CONFORMANCE_WITHOUT || "").split(",").map((name) => name.trim()));

const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0, timeout: 120_000 });

/** Declare a test of what the server claims; what it does not is left out, as pytest leaves it out. */
function claims(needs, name, body) {
  if (!needs.some((one) => without.has(one))) test(name, body);
}

function chat(changes = {}) {
  const messages = [{ role: "user", content: "Count from one to twenty in words." }];
  return { model, messages, max_tokens: 24, temperature: 0, seed: 7, ...changes };
}

async function written(stream) {
  const texts = [];
  const reasons = [];
  const ids = new Set();
  let usage = null;
  for await (const chunk of stream) {
    ids.add(chunk.id);
    usage = chunk.usage ?? usage;
    for (const choice of chunk.choices) {
      texts[choice.index] = (texts[choice.index] ?? "") + (choice.delta?.content ?? choice.text ?? "");
      if (choice.finish_reason) reasons[choice.index] = choice.finish_reason;
    }
  }
  assert.equal(ids.size, 1);
  return { texts, reasons, usage };
}

claims([], "the model is listed and retrieved", async () => {
  const names = [];
  for await (const one of client.models.list()) names.push(one.id);
  assert.ok(names.includes(model));
  assert.equal((await client.models.retrieve(model)).id, model);
});

claims(["chat"], "chat is answered", async () => {
  const answer = await client.chat.completions.create(chat());
  assert.equal(answer.object, "chat.completion");
  assert.equal(answer.choices[0].message.role, "assistant");
  assert.ok(answer.choices[0].message.content);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

claims(["chat"], "a stream is the same as an answer", async () => {
  for (const changes of [{}, { temperature: 1 }, { n: 2, temperature: 1 }]) {
    const whole = await client.chat.completions.create(chat(changes));
    const asked = chat({ ...changes, stream: true, stream_options: { include_usage: true } });
    const streamed = await written(await client.chat.completions.create(asked));
    assert.deepEqual(streamed.texts, whole.choices.map((choice) => choice.message.content));
    assert.deepEqual(streamed.reasons, whole.choices.map((choice) => choice.finish_reason));
    assert.equal(streamed.usage.total_tokens, whole.usage.total_tokens);
  }
});

claims(["chat"], "the client's helper follows a stream", async () => {
  const whole = await client.chat.completions.create(chat());
  const runner = client.chat.completions.stream(chat());
  let text = "";
  runner.on("content", (delta) => {
    text += delta;
  });
  const final = await runner.finalChatCompletion();
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(final.choices[0].message.content, text);
});

claims(["chat"], "logprobs tell of every token", async () => {
  const answer = await client.chat.completions.create(chat({ logprobs: true, top_logprobs: 2 }));
  const { content } = answer.choices[0].logprobs;
  assert.ok(content.length > 0);
  for (const token of content) {
    assert.ok(token.logprob <= 0);
    assert.equal(token.top_logprobs.length, 2);
  }
});

claims(["chat"], "a stream that is left disturbs nobody", async () => {
  const want = (await client.chat.completions.create(chat())).choices[0].message.content;
  for (let count = 0; count < 8; count += 1) {
    const stream = await client.chat.completions.create(chat({ stream: true, max_tokens: 200 }));
    for await (const _ of stream) break; // the client aborts the request
  }
  const controller = new AbortController();
  const asked = client.chat.completions.create(chat({ max_tokens: 200 }), { signal: controller.signal });
  controller.abort();
  await assert.rejects(asked, OpenAI.APIUserAbortError);
  assert.equal((await client.chat.completions.create(chat())).choices[0].message.content, want);
});

claims(["chat"], "answers at once are answers alone", async () => {
  const questions = [1, 2, 3, 4].map((n) => chat({ messages: [{ role: "user", content: `Say ${n}.` }] }));
  const alone = [];
  for (const question of questions) {
    alone.push((await client.chat.completions.create(question)).choices[0].message.content);
  }
  const together = await Promise.all(questions.map((question) => client.chat.completions.create(question)));
  assert.deepEqual(together.map((answer) => answer.choices[0].message.content), alone);
});

claims(["completions"], "completions are given, several at once, whole and streamed", async () => {
  const asked = { model, prompt: ["One, two,", "A, B,"], max_tokens: 12, temperature: 0 };
  const whole = await client.completions.create(asked);
  assert.equal(whole.object, "text_completion");
  const streamed = await written(await client.completions.create({ ...asked, stream: true }));
  assert.deepEqual(streamed.texts, whole.choices.map((choice) => choice.text));
  const echo = await client.completions.create({ ...asked, prompt: "One, two,", echo: true });
  assert.equal(echo.choices[0].text, "One, two," + whole.choices[0].text);
});

claims(["embeddings"], "embeddings are numbers, also as base64", async () => {
  const asked = { model: embedder, input: ["The parrot is dead.", "一二三"] };
  const byDefault = await client.embeddings.create(asked); // the client asks for base64
  const floats = await client.embeddings.create({ ...asked, encoding_format: "float" });
  assert.equal(byDefault.data.length, 2);
  byDefault.data.forEach((one, index) => {
    const other = floats.data[index].embedding;
    assert.equal(one.embedding.length, other.length);
    const size = Math.max(...other.map(Math.abs));
    one.embedding.forEach((value, at) => assert.ok(Math.abs(value - other[at]) <= 1e-4 * size));
  });
});

claims(["responses"], "responses are given, whole and streamed", async () => {
  const asked = { model, input: "Count to ten.", max_output_tokens: 24, temperature: 0, store: false };
  const whole = await client.responses.create(asked);
  assert.equal(whole.object, "response");
  assert.ok(whole.output_text);
  let text = "";
  let sequence = 0;
  let last = null;
  for await (const event of await client.responses.create({ ...asked, stream: true })) {
    assert.equal(event.sequence_number, sequence);
    sequence += 1;
    if (event.type === "response.output_text.delta") text += event.delta;
    last = event;
  }
  assert.equal(text, whole.output_text);
  assert.ok(["response.completed", "response.incomplete"].includes(last.type));
});

const tools = [
  {
    type: "function",
    function: {
      name: "weather",
      parameters: { type: "object", properties: { city: { enum: ["Paris", "Rome"] } }, additionalProperties: false },
    },
  },
];

claims(["chat", "tools"], "tools are taken", async () => {
  const answer = await client.chat.completions.create(chat({ tools }));
  for (const call of answer.choices[0].message.tool_calls ?? []) {
    assert.equal(call.type, "function");
    JSON.parse(call.function.arguments);
  }
});

claims(["chat", "tools", "forced"], "a tool that must be called is called", async () => {
  const forced = { type: "function", function: { name: "weather" } };
  const answer = await client.chat.completions.create(chat({ tools, tool_choice: forced, max_tokens: 200 }));
  assert.equal(answer.choices[0].message.tool_calls[0].function.name, "weather");
});

claims(["chat"], "errors are the client's classes", async () => {
  await assert.rejects(client.chat.completions.create(chat({ temperature: 3 })), OpenAI.BadRequestError);
  await assert.rejects(client.chat.completions.create(chat({ temperature: 3, stream: true })), OpenAI.BadRequestError);
  await assert.rejects(client.chat.completions.create(chat({ model: "no-such-model" })), (problem) => {
    assert.ok(problem instanceof OpenAI.NotFoundError);
    assert.equal(problem.code, "model_not_found");
    return true;
  });
  await assert.rejects(client.models.retrieve("no-such-model"), OpenAI.NotFoundError);
});

claims(["key"], "a wrong key is refused", async () => {
  const other = new OpenAI({ baseURL: url, apiKey: "wrong-key-of-nobody", maxRetries: 0 });
  await assert.rejects(other.models.list(), OpenAI.AuthenticationError);
});

claims(["chat"], "a client in a hurry gives up, and nobody else", async () => {
  await assert.rejects(
    client.chat.completions.create(chat({ max_tokens: 200 }), { timeout: 1 }),
    OpenAI.APIConnectionTimeoutError,
  );
  assert.ok((await client.chat.completions.create(chat())).choices[0].message.content);
});
