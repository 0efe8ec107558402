// What OpenAI's client for Node gets from a server: one JSON object on standard output.
import OpenAI from "openai";

const [url, keyed, key] = process.argv.slice(2);
const ai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "hi" }];
const chat = { model: "tiny", messages, seed: 2, max_tokens: 9 };
const tools = ["f", "g"].map((name) => ({
  type: "function",
  function: { name, parameters: { type: "object", properties: { a: { type: "boolean" } }, required: ["a"], additionalProperties: false } },
}));

async function failure(call) {
  try {
    await call();
  } catch (e) {
    return { kind: e.constructor.name, status: e.status ?? null, code: e.code ?? null, param: e.param ?? null };
  }
  return null;
}

const out = { models: [] };
for await (const model of ai.models.list()) out.models.push(model.id);
out.whole = await ai.chat.completions.create(chat);

out.streamed = "";
const stream = await ai.chat.completions.create({ ...chat, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  out.streamed += chunk.choices[0]?.delta?.content ?? "";
  if (chunk.usage) out.usage = chunk.usage;
}

const forced = { ...chat, max_tokens: undefined, tools, tool_choice: "required" };
out.called = (await ai.chat.completions.create(forced)).choices[0];
out.runner = await ai.chat.completions.stream(forced).finalChatCompletion();
out.completion = await ai.completions.create({ model: "tiny", prompt: "the", seed: 2, max_tokens: 4 });
out.vector = (await ai.embeddings.create({ model: "words", input: "the cat" })).data[0].embedding;

const controller = new AbortController();
const long = await ai.chat.completions.create({ ...chat, max_tokens: 400, stream: true }, { signal: controller.signal });
out.before_abort = 0;
for await (const _ of long) if (++out.before_abort === 2) controller.abort();

const closed = (apiKey) => new OpenAI({ baseURL: `${keyed}/v1`, apiKey, maxRetries: 0 });
out.with_key = [];
for await (const model of closed(key).models.list()) out.with_key.push(model.id);
out.failures = {
  wrong_key: await failure(() => closed("wrong").models.list()),
  no_model: await failure(() => ai.chat.completions.create({ ...chat, model: "x" })),
  bad_field: await failure(() => ai.chat.completions.create({ ...chat, temperature: -1 })),
  too_long: await failure(() => ai.embeddings.create({ model: "words", input: "a ".repeat(50) })),
  nobody: await failure(() => new OpenAI({ baseURL: "http://127.0.0.1:9/v1", apiKey: "-", maxRetries: 0 }).models.list()),
};
console.log(JSON.stringify(out));
