// The chat page. What a model or a server says is only ever put in as text.
"use strict";

const $ = (id) => document.getElementById(id);
const NONE = "0".repeat(64); // the digest of a template where there is none
const LEVELS = {
  signature: "Digests and signatures",
  text: "Prompt and text are those of the tokens",
  tokens: "Every token, by executing the model again",
};
const cards = new Map(); // models by name
let messages = [];
let under_way = null; // AbortController of the answer that is being given

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function make(tag, kind, text) {
  const e = document.createElement(tag);
  if (kind) e.className = kind;
  if (text !== undefined) e.textContent = text;
  return e;
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

// Requests -------------------------------------------------------------------------------------------

const stored = {
  get key() { try { return sessionStorage.getItem("key") || ""; } catch { return this.kept || ""; } },
  set key(k) { this.kept = k; try { sessionStorage.setItem("key", k); } catch { /* kept above */ } },
};

async function ask(path, options = {}) {
  const headers = { "Content-Type": "application/json" };
  if (stored.key) headers.Authorization = `Bearer ${stored.key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (e) {
    throw e.name === "AbortError" ? e : new Refused(0, "the server cannot be reached");
  }
  if (response.ok) return response;
  let message = `the server answered ${response.status}`;
  try { message = String((await response.json()).error.message); } catch { /* not JSON */ }
  throw new Refused(response.status, message);
}

function open_door(problem) {
  $("door-problem").textContent = problem;
  if (!$("door").open) $("door").showModal();
  $("key").select();
}

$("door").addEventListener("cancel", (e) => e.preventDefault());
$("door").querySelector("form").addEventListener("submit", (e) => {
  e.preventDefault();
  stored.key = $("key").value.trim();
  load_models();
});

async function load_models() {
  try {
    const { data } = await (await ask("v1/models")).json();
    if ($("door").open) $("door").close();
    show_models(data.filter((m) => m.kind !== "embedding"));
  } catch (e) {
    if (e.status === 401) return open_door(stored.key ? "The server does not know this key." : "");
    say(e.message, true);
    setTimeout(load_models, 2000);
  }
}

function show_models(list) {
  const chosen = $("model").value;
  cards.clear();
  $("model").replaceChildren();
  for (const m of list) {
    cards.set(m.id, m);
    const option = make("option", "", m.state ? `${m.id} (${m.state})` : m.id);
    option.value = m.id;
    option.disabled = Boolean(m.state);
    option.selected = m.id === chosen;
    $("model").append(option);
  }
  const waiting = list.some((m) => m.state === "loading");
  const ready = list.some((m) => !m.state);
  $("model").disabled = $("send").disabled = !ready;
  if (!$("model").value && ready) $("model").value = list.find((m) => !m.state).id;
  if (waiting) setTimeout(load_models, 1000);
  say(!list.length ? "no model that answers is served here" : ready ? "" : waiting ? "the model is loading" : "no model is ready",
    !ready && !waiting);
}

// An answer ------------------------------------------------------------------------------------------

function request_of(model, talk) {
  const typed = $("seed").value;
  // drawn here, so that the server had no choice of it
  const seed = typed ? Number(typed) : crypto.getRandomValues(new Uint16Array(3)).reduce((a, b) => a * 2 ** 16 + b, 0);
  const wanted = {
    model, seed, stream: true,
    temperature: Number($("temperature").value), top_p: Number($("top_p").value),
    max_tokens: Number($("max_tokens").value),
  };
  if (cards.get(model).template === NONE) return ["v1/completions", { ...wanted, prompt: talk.at(-1).content }];
  const system = $("system").value.trim();
  const given = system ? [{ role: "system", content: system }, ...talk] : talk;
  return ["v1/chat/completions", { ...wanted, messages: given }];
}

async function* events_of(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let held = ""; ;) {
    const { value, done } = await reader.read();
    if (done) throw new Refused(0, "the connection broke before the answer ended");
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      if (part === "data: [DONE]") return;
      if (part.startsWith("data: ")) yield JSON.parse(part.slice(6));
    }
  }
}

function entry(kind, who, text) {
  const item = make("li", kind);
  const said = make("p", "said", text);
  said.dir = "auto";
  item.append(make("h2", "", who), said);
  $("log").append(item);
  return [item, said];
}

async function answer(text) {
  const model = $("model").value;
  const talk = messages; // a new conversation may begin meanwhile
  $("welcome").hidden = true;
  talk.push({ role: "user", content: text });
  const [mine] = entry("user", "You", text);
  const [item, said] = entry("assistant busy", model, "");
  item.setAttribute("aria-busy", "true");
  item.scrollIntoView({ block: "end" });
  const shown = said.appendChild(document.createTextNode(""));
  const control = under_way = new AbortController();
  set_busy(true);
  let digest = null;
  try {
    const [path, wanted] = request_of(model, talk);
    const response = await ask(path, { method: "POST", body: JSON.stringify(wanted), signal: control.signal });
    for await (const event of events_of(response)) {
      if (event.error) throw new Refused(500, String(event.error.message));
      const choice = event.choices[0];
      const low = $("talk").scrollTop + $("talk").clientHeight > $("talk").scrollHeight - 80;
      shown.appendData(choice?.delta?.content ?? choice?.text ?? "");
      if (low) $("talk").scrollTop = $("talk").scrollHeight;
      if (event.ree) digest = event.ree.receipts[0];
      if (choice?.finish_reason === "length") item.append(make("p", "problem", "It ends here as it has as many tokens as it may have."));
    }
    talk.push({ role: "assistant", content: shown.data });
    say("answered");
  } catch (e) {
    const stopped = e.name === "AbortError";
    item.append(make("p", "problem", stopped ? "Stopped. What was not completed has no receipt." : e.message));
    if (stopped && shown.data) talk.push({ role: "assistant", content: shown.data });
    else { talk.pop(); mine.classList.add("unsent"); $("text").value ||= text; }
    say(stopped ? "stopped" : e.message, !stopped);
    if (e.status === 401) open_door("The server does not know this key.");
  } finally {
    item.classList.remove("busy");
    item.removeAttribute("aria-busy");
    if (under_way === control) under_way = null;
    set_busy(false);
  }
  if (digest !== null) await show_receipt(item, digest, shown.data);
}

function set_busy(busy) {
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  $("model").disabled = busy;
  if (busy) say("answering");
}

// Its receipt ----------------------------------------------------------------------------------------

async function show_receipt(item, digest, text) {
  const box = make("section", "receipt");
  box.setAttribute("aria-label", "Receipt");
  item.append(box);
  try {
    const raw = await (await ask(`v1/receipts/${encodeURIComponent(digest)}`)).text();
    fill(box, digest, raw, text);
  } catch (e) {
    box.append(make("p", "problem", `Its receipt cannot be had: ${e.message}`));
  }
  box.scrollIntoView({ block: "nearest" });
}

function fill(box, digest, raw, text) {
  const receipt = JSON.parse(raw);
  const signers = receipt.signatures.map((s) => s.key);
  const list = make("dl");
  const facts = {
    Receipt: short(digest), Seed: receipt.request.sampling.seed,
    Tokens: `${receipt.prompt_tokens.length} given, ${receipt.completion_tokens.length} drawn`,
    Signature: signers.length ? `of key ${signers.map(short).join(", ")}` : "none: nobody stands for it",
  };
  for (const [name, value] of Object.entries(facts)) {
    const pair = list.appendChild(make("div"));
    pair.append(make("dt", "", name), make("dd", "", String(value)));
  }
  list.title = signers.length ? `receipt ${digest}, key ${signers.join(", ")}` : `receipt ${digest}`;
  box.append(list);
  if (receipt.digest !== digest || receipt.text !== text) {
    box.append(make("p", "problem", "This receipt is not of the answer above."));
  }
  const file = make("a", "", "Download");
  file.href = URL.createObjectURL(new Blob([raw], { type: "application/json" }));
  file.download = `${digest.slice(0, 16)}.json`;
  const check = make("button", "", "Verify");
  check.type = "button";
  const copy = make("button", "", "Copy digest");
  copy.type = "button";
  copy.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(digest); say("copied"); } catch { say(digest); }
  });
  const acts = make("div", "acts");
  acts.append(check, file, copy);
  const found = make("div");
  found.setAttribute("aria-live", "polite");
  box.append(acts, found);
  check.addEventListener("click", () => verify(digest, check, found, file.download));
}

const short = (hex) => `${hex.slice(0, 8)}…${hex.slice(-4)}`;

async function verify(digest, button, found, file) {
  button.disabled = true;
  found.replaceChildren(make("p", "", "Verifying: the model runs over the whole text again…"));
  try {
    const path = `v1/receipts/${encodeURIComponent(digest)}/verify`;
    const report = await (await ask(path, { method: "POST" })).json();
    const list = make("ul", "checks");
    for (const [name, what] of Object.entries(LEVELS)) {
      const level = report.levels.find((l) => l.level === name);
      const mark = !level ? "–" : level.same ? "✓" : "✗";
      const line = make("li", !level ? "" : level.same ? "good" : "bad", what + (!level ? ": not reached" : level.same ? "" : `: ${level.finding.what}`));
      line.dataset.mark = mark;
      list.append(line);
    }
    const note = make("p", "", "The server that gave the answer has checked it, so this convinces only you, who trust it. Whoever else has the model runs ");
    note.append(make("code", "", `ree verify ${file} --artifact ART.ree`));
    found.replaceChildren(list, note);
  } catch (e) {
    found.replaceChildren(make("p", "problem", e.message));
  }
  button.disabled = false;
  found.scrollIntoView({ block: "nearest" });
}

// The form -------------------------------------------------------------------------------------------

function grow() {
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight + 2}px`;
}

$("composer").addEventListener("submit", async (e) => {
  e.preventDefault();
  const text = $("text").value.trim();
  if (!text || under_way || $("send").disabled) return;
  $("text").value = "";
  grow();
  await answer(text);
  grow();
  $("text").focus();
});
$("text").addEventListener("input", grow);
$("text").addEventListener("keydown", (e) => {
  if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
  e.preventDefault();
  $("composer").requestSubmit();
});
document.addEventListener("keydown", (e) => { if (e.key === "Escape") under_way?.abort(); });
$("stop").addEventListener("click", () => under_way?.abort());
$("again").addEventListener("click", () => {
  under_way?.abort();
  messages = [];
  $("log").replaceChildren();
  $("welcome").hidden = false;
  say("");
  $("text").focus();
});

load_models();
$("text").focus();
