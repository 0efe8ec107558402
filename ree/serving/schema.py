"""Requests of OpenAI's chat and completions endpoints, with the fields that vLLM adds to them.

A field is honoured, or has no effect (`INFORMATION`), or is refused by name unless its value is the one that
asks for nothing (`NEUTRAL`). Fields that are not known at all are listed in `unknown`, or refused if strict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ree.errors import InputError, ReeError
from ree.generation.generator import MOST_LOGPROBS
from ree.generation.grammar import LARK, REGEX, Grammar
from ree.generation.messages import check_messages, check_tools
from ree.generation.receipt import NOTHING
from ree.generation.receipt_schema import is_hex
from ree.generation.request import REPETITION
from ree.generation.streams import MAX_STOP_LENGTH, MAX_STOPS
from ree.serving.errors import ApiError
from ree.serving.fields import Fields, is_number, is_text, is_token, read_object, shown

MAX_CHOICES = 16
MAX_PROMPTS = 64
MAX_ANSWERS = 128  # prompts times choices
MAX_TOKENS = 1 << 20
MAX_STOP_TOKENS = 64
MAX_BIASES = 1024
MAX_BIAS = 100.0
MOST_PENALTY = 2.0  # either way, as in OpenAI's API
COMPLETION_TOKENS = 16  # of /v1/completions where nothing is said, as in OpenAI's API
I32, I64 = 1 << 31, 1 << 63

# what a request may say without any effect on the answer
INFORMATION = (
    "user", "metadata", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "service_tier", "request_id",
)  # fmt: skip
_NOT_HERE = "this is not supported"
# what asks for nothing: any other value is refused
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "length_penalty": (1,), "use_beam_search": (False,), "prompt_logprobs": (), "truncate_prompt_tokens": (),
    "priority": (0,),
    "allowed_token_ids": (), "bad_words": ([],), "logprob_token_ids": (), "logits_processors": (),
    "guided_json": (), "guided_regex": (), "guided_choice": (), "guided_grammar": (),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,), "kv_transfer_params": (), "return_tokens_as_token_ids": (False,),
}  # fmt: skip
NEUTRAL_IN_CHAT: Mapping[str, tuple[Any, ...]] = {
    "modalities": (["text"],), "audio": (), "prediction": (),
    "functions": (), "function_call": ("none", "auto"), "parallel_tool_calls": (True,), "reasoning_effort": (),
    "verbosity": (), "web_search_options": (), "chat_template": (), "chat_template_kwargs": ({},),
    "add_generation_prompt": (True,), "continue_final_message": (False,), "add_special_tokens": (False,),
    "documents": ([],), "echo": (False,), "include_reasoning": (True,),
}  # fmt: skip
NEUTRAL_IN_COMPLETIONS: Mapping[str, tuple[Any, ...]] = {
    "suffix": ("",), "best_of": (1,), "add_special_tokens": (True,), "prompt_embeds": (),
}  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """What chat and completions have in common.

    max_tokens: None is as many as there is room for. top_k: 0 is off. bias: added to logits, by token.
    penalties: by name, as Sampling has them. stop_tokens: beside the model's own, which do not count if
    ignore_eos. logprobs: how many of the likeliest tokens beside each, None for no log-probabilities. grammar:
    what the answer may be, form: the field that says it. previous: digest of the receipt before this answer's.
    salt: only requests of the same share what was read before. unknown: fields that nobody knows.
    """

    model: str
    choices: int
    max_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int | None
    penalties: Mapping[str, float]
    bias: Mapping[int, float]
    min_tokens: int
    stop: tuple[str, ...]
    include_stop: bool
    stop_tokens: tuple[int, ...]
    ignore_eos: bool
    stream: bool
    include_usage: bool
    return_tokens: bool
    logprobs: int | None
    grammar: Grammar | None
    form: str
    previous: str
    salt: str
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChatRequest(Wanted):
    """A request of /v1/chat/completions; messages and tools in the form of ree/generation/messages.py.

    date: what the template takes for the present, ISO 8601; None is today. forced: the tools of which one has
    to be called, if there are any.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    tools: list[dict[str, Any]] | None = None
    date: str | None = None
    forced: tuple[str, ...] = ()

    @classmethod
    def of(cls, raw: bytes, *, strict: bool = False) -> ChatRequest:
        """The request in a body; ApiError."""
        f = Fields(read_object(raw))
        given = f.raw("messages")
        if given is None:
            raise ApiError("messages is missing", "messages", code="missing_required_parameter")
        try:
            messages, tools = check_messages(given), check_tools(f.raw("tools"))
        except ReeError as e:
            raise ApiError.of(e, "tools" if e.message.startswith("tools") else "messages") from e
        tools, forced = _tool_choice(f, tools)
        both = [f.integer(k, 1, MAX_TOKENS, None) for k in ("max_tokens", "max_completion_tokens")]
        if None not in both and both[0] != both[1]:
            raise ApiError("max_tokens and max_completion_tokens differ", "max_completion_tokens")
        date = f.text("date", None)
        try:
            date = date and datetime.fromisoformat(date).isoformat()
        except ValueError as e:
            raise f.wrong("date", "one as 2026-01-31") from e
        _only(f, NEUTRAL_IN_CHAT)
        most = next((x for x in both if x is not None), None)
        top = f.integer("top_logprobs", 0, MOST_LOGPROBS, None)
        wanted = f.flag("logprobs")
        if top is not None and not wanted:
            raise ApiError("top_logprobs are given without logprobs", "top_logprobs")
        common = _common(f, most, strict, (top or 0) if wanted else None)
        if common["grammar"] is not None and tools is not None:
            raise ApiError("response_format and tools do not go together", "response_format",
                           code="unsupported_value", hint="tool_choice none leaves the tools out")  # fmt: skip
        if forced:
            common["form"] = "tool_choice"
        return cls(**common, messages=messages, tools=tools, date=date, forced=forced)


@dataclass(frozen=True)
class CompletionRequest(Wanted):
    """A request of /v1/completions; a prompt is a text or token ids."""

    prompts: tuple[str | tuple[int, ...], ...] = ()
    echo: bool = False

    @classmethod
    def of(cls, raw: bytes, *, strict: bool = False) -> CompletionRequest:
        """The request in a body; ApiError."""
        f = Fields(read_object(raw))
        prompts, echo = _prompts(f), f.flag("echo")
        most = f.integer("max_tokens", 0 if echo else 1, MAX_TOKENS, COMPLETION_TOKENS)
        _only(f, NEUTRAL_IN_COMPLETIONS)
        top = f.integer("logprobs", 0, MOST_LOGPROBS, None)
        out = cls(**_common(f, most, strict, top), prompts=prompts, echo=echo)
        if len(prompts) * out.choices > MAX_ANSWERS:
            raise ApiError(
                f"{len(prompts)} prompts with n = {out.choices} are over {MAX_ANSWERS} answers",
                "prompt",
            )
        return out


def _only(f: Fields, neutral: Mapping[str, tuple[Any, ...]]) -> None:
    for name, allowed in neutral.items():
        f.only(name, allowed, _NOT_HERE)


def _prompts(f: Fields) -> tuple[str | tuple[int, ...], ...]:
    given = f.raw("prompt")
    if given is None:
        raise ApiError("prompt is missing", "prompt", code="missing_required_parameter")
    if isinstance(given, str) or (isinstance(given, list) and given and all(map(is_token, given))):
        given = [given]
    if not isinstance(given, list) or not 0 < len(given) <= MAX_PROMPTS:
        raise f.wrong("prompt", f"a text, token ids, or a list of 1 to {MAX_PROMPTS} of them")
    for i, p in enumerate(given):
        if not is_text(p) and not (isinstance(p, list) and p and all(map(is_token, p))):
            raise ApiError(
                f"prompt[{i}] is {shown(p)}, expected a text or token ids, not empty", "prompt"
            )
    return tuple(p if isinstance(p, str) else tuple(p) for p in given)


def _tool_choice(
    f: Fields, tools: list[dict[str, Any]] | None
) -> tuple[list[dict[str, Any]] | None, tuple[str, ...]]:
    """(tools that the model is told of, those of which one has to be called)."""
    choice = f.raw("tool_choice")
    names = tuple(t["function"]["name"] for t in tools or ())
    if choice == "none":
        return None, ()
    if choice is None or (choice == "auto" and names):
        return tools, ()
    if choice == "required" and names:
        return tools, names
    named = choice.get("function") if isinstance(choice, dict) else None
    if isinstance(named, dict) and choice == {
        "type": "function",
        "function": {"name": named.get("name")},
    }:
        if named["name"] in names:
            return tools, (named["name"],)
        raise ApiError(
            f"tool_choice names {shown(named['name'])}, which is none of the tools", "tool_choice"
        )
    raise ApiError(f"tool_choice is {shown(choice)}, expected none; with tools auto, required or one of their "
                   "functions", "tool_choice", code="unsupported_value")  # fmt: skip


def _grammar(f: Fields) -> tuple[Grammar | None, str]:
    """What an answer may be, and the field that says so: response_format, or structured_outputs as in vLLM."""
    found: tuple[Grammar | None, str] = None, ""
    for name, read in (("response_format", _response_format), ("structured_outputs", _structured)):
        try:
            grammar = read(f)
        except InputError as e:
            raise ApiError.of(e, name) from e
        if grammar is not None and found[0] is not None:
            raise ApiError(f"{found[1]} and {name} are both given", name)
        found = found if grammar is None else (grammar, name)
    return found


def _response_format(f: Fields) -> Grammar | None:
    form = f.object("response_format")
    if form is None:
        return None
    kind, schema = form.text("type", None), form.object("json_schema")
    if form.rest() or kind not in ("text", "json_object", "json_schema") or (
        (schema is None) == (kind == "json_schema")
    ):  # fmt: skip
        raise f.wrong(
            "response_format", "a type of text, json_object, or json_schema with a json_schema"
        )
    if schema is None:
        return None if kind == "text" else Grammar.json_schema({"type": "object"})
    wanted = schema.raw("schema")
    for name in ("name", "description", "strict"):
        schema.raw(name)
    if schema.rest() or not isinstance(wanted, dict):
        raise f.wrong("response_format", "a json_schema with name, schema and strict")
    return Grammar.json_schema(wanted)


def _structured(f: Fields) -> Grammar | None:
    form = f.object("structured_outputs")
    if form is None:
        return None
    kinds = {k: form.raw(k) for k in ("json", "regex", "choice", "grammar")}
    given = [k for k, x in kinds.items() if x is not None]
    expected = "one of json (a schema), regex, choice (texts) and grammar (of llguidance)"
    if form.rest() or len(given) != 1:
        raise f.wrong("structured_outputs", expected)
    x = kinds[given[0]]
    if given[0] == "json" and isinstance(x, dict):
        return Grammar.json_schema(x)
    if given[0] == "choice" and isinstance(x, list) and x and all(map(is_text, x)):
        return Grammar.choice(x)
    if given[0] in ("regex", "grammar") and is_text(x):
        return Grammar(REGEX if given[0] == "regex" else LARK, x)
    raise f.wrong("structured_outputs", expected)


def _common(
    f: Fields, max_tokens: int | None, strict: bool, logprobs: int | None
) -> dict[str, Any]:
    """The fields of `Wanted`; after those that only one endpoint has."""
    for name in INFORMATION:
        f.raw(name)
    _only(f, NEUTRAL)
    model = f.text("model", None)
    if model is None:
        raise ApiError("model is missing", "model", code="missing_required_parameter")
    stream, (grammar, form) = f.flag("stream"), _grammar(f)
    out = {
        "model": model,
        "choices": f.integer("n", 1, MAX_CHOICES, 1),
        "max_tokens": max_tokens,
        "temperature": f.number("temperature", 0, 1e6, 1.0),
        "top_p": f.number("top_p", 0, 1, 1.0),
        "top_k": max(f.integer("top_k", -1, I32 - 1, 0), 0),
        "min_p": f.number("min_p", 0, 1, 0.0),
        "seed": f.integer("seed", -I64, I64 - 1, None),
        "penalties": {
            "repetition_penalty": f.number("repetition_penalty", *REPETITION, 1.0),
            "presence_penalty": f.number("presence_penalty", -MOST_PENALTY, MOST_PENALTY, 0.0),
            "frequency_penalty": f.number("frequency_penalty", -MOST_PENALTY, MOST_PENALTY, 0.0),
        },
        "bias": _bias(f),
        "min_tokens": f.integer("min_tokens", 0, MAX_TOKENS, 0),
        "stop": _stops(f),
        "include_stop": f.flag("include_stop_str_in_output"),
        "stop_tokens": f.list_of("stop_token_ids", MAX_STOP_TOKENS, is_token, "token ids"),
        "ignore_eos": f.flag("ignore_eos"),
        "stream": stream,
        "include_usage": _include_usage(f, stream),
        "return_tokens": f.flag("return_token_ids"),
        "logprobs": logprobs,
        "grammar": grammar,
        "form": form,
        "previous": f.text("previous_receipt", NOTHING),
        "salt": f.text("cache_salt", ""),
    }
    if not is_hex(out["previous"], 32):
        raise f.wrong(
            "previous_receipt", "the digest of a receipt, 64 lower-case hexadecimal digits"
        )
    unknown = f.rest()
    if unknown and strict:
        raise ApiError(
            f"there is no field {shown(unknown[0])}", unknown[0][:60], code="unknown_parameter"
        )
    return out | {"unknown": unknown}


def _stops(f: Fields) -> tuple[str, ...]:
    given = f.raw("stop")
    stops = [given] if isinstance(given, str) else given or []
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(
        is_text(s) and len(s) <= MAX_STOP_LENGTH for s in stops
    ):  # fmt: skip
        raise f.wrong(
            "stop", f"a text or a list of at most {MAX_STOPS}, of 1 to {MAX_STOP_LENGTH} characters"
        )
    return tuple(stops)


def _bias(f: Fields) -> dict[int, float]:
    given = f.raw("logit_bias")
    if given is None:
        return {}
    expected = (
        f"an object of at most {MAX_BIASES} numbers from -{MAX_BIAS:g} to {MAX_BIAS:g} by token id"
    )
    if not isinstance(given, dict) or len(given) > MAX_BIASES:
        raise f.wrong("logit_bias", expected)
    for k, x in given.items():
        plain = (
            k.isascii() and k.isdecimal() and len(k) < 8 and k == str(int(k)) and is_token(int(k))
        )
        if not plain or not is_number(x) or abs(x) > MAX_BIAS:
            raise ApiError(f"logit_bias has {shown({k: x})}, expected {expected}", "logit_bias")
    return {int(k): float(x) for k, x in given.items()}


def _include_usage(f: Fields, stream: bool) -> bool:
    options = f.object("stream_options")
    if options is None:
        return False
    if not stream:
        raise ApiError("stream_options are given without stream", "stream_options")
    usage = options.flag("include_usage")
    options.only("continuous_usage_stats", (False,), _NOT_HERE)
    options.raw("include_obfuscation")
    if options.rest():
        raise ApiError(f"there is no field {shown(options.rest()[0])}", "stream_options")
    return usage
