"""Tools on a real model, Qwen2.5-Coder-0.5B: python benchmarks/tool_calls.py [GGUF].

Each question is put to `ree serve` by OpenAI's client at temperature 0: with a free choice, with a call
required and with one tool named; whole and as a stream, which must tell the same; each receipt is verified by
`ree verify`. Where a call is asked for, the answer has to be one of an offered tool, with arguments that its
schema allows (names and types are compared here). Writes benchmarks/results/tool_calls.json.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from openai import OpenAI
from serving import Server

from ree.generation.models import QWEN_SHA256, qwen_coder_path

RESULTS = Path(__file__).parent / "results" / "tool_calls.json"
REE = [sys.executable, "-m", "ree"]
TYPES = {"string": str, "number": (int, float), "integer": int, "boolean": bool}


def tool(name, what, required, **properties):
    schema = {"type": "object", "properties": properties, "required": required}
    return {
        "type": "function",
        "function": {"name": name, "description": what, "parameters": schema},
    }


TOOLS = [
    tool("get_weather", "The weather in a city", ["city"], city={"type": "string"},
         unit={"type": "string", "enum": ["celsius", "fahrenheit"]}),
    tool("add", "Add two numbers", ["a", "b"], a={"type": "number"}, b={"type": "number"}),
    tool("send_mail", "Send a message to someone", ["to", "text"], to={"type": "string"},
         text={"type": "string"}),
]  # fmt: skip
QUESTIONS = {
    "What is the weather in Paris, in celsius?": "get_weather",
    "Add 17 and 25.": "add",
    "Tell Anna that the train is late.": "send_mail",
}


def call_of(message):
    """(name, arguments) of the one call in an answer, None where it is text; ValueError for a wrong one."""
    if not message.tool_calls:
        return None
    (call,) = message.tool_calls
    name, given = call.function.name, json.loads(call.function.arguments)
    schema = next(t["function"]["parameters"] for t in TOOLS if t["function"]["name"] == name)
    if not set(schema["required"]) <= set(given) <= set(schema["properties"]):
        raise ValueError(f"{name}: arguments {sorted(given)}")
    for k, v in given.items():
        if not isinstance(v, TYPES[schema["properties"][k]["type"]]):
            raise ValueError(f"{name}: {k} is {v!r}")
    return name, given


def asked(client, model, question, choice, receipts):
    """What comes of one question: (the call, the text, the receipt's path), the same whole and as a stream."""
    said = [{"role": "user", "content": question}]
    options = {"model": model, "messages": said, "tools": TOOLS, "tool_choice": choice,
               "temperature": 0, "max_tokens": 128, "seed": 1}  # fmt: skip
    answer = client.chat.completions.create(**options)
    message = answer.choices[0].message
    called = call_of(message)
    text, names, arguments = "", [], ""
    for part in client.chat.completions.create(stream=True, **options):
        for c in part.choices:
            text += c.delta.content or ""
            for t in c.delta.tool_calls or ():
                names.append(t.function.name)
                arguments += t.function.arguments
    streamed = (names[0], json.loads(arguments)) if names else None
    if streamed != called or text != (message.content or ""):
        raise ValueError(
            f"{question}: a stream tells {streamed or text!r}, the whole answer {called or message.content!r}"
        )
    digest = answer.model_extra["ree"]["receipts"][0]
    path = receipts / f"{digest}.json"
    if not path.exists():
        raise ValueError(f"no receipt {digest}")
    return called, message.content, path


def main() -> None:
    with tempfile.TemporaryDirectory() as d:
        here = Path(d)
        model = Path(sys.argv[1]) if len(sys.argv) > 1 else qwen_coder_path(here)
        subprocess.run([*REE, "compile", model, "-o", here / "qwen.ree"], check=True)
        server = Server(here / "qwen.ree", "--receipts", here / "receipts")
        try:
            found = measure(OpenAI(base_url=f"http://{server.host}/v1", api_key="none"), here)
        finally:
            server.close()
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def measure(client, here):
    name = client.models.list().data[0].id
    rows = {}
    for question, tool_name in QUESTIONS.items():
        for choice in ("auto", "required", {"type": "function", "function": {"name": tool_name}}):
            called, text, receipt = asked(client, name, question, choice, here / "receipts")
            if choice != "auto" and called is None:
                raise ValueError(f"{question}: no call but {text!r}")
            if isinstance(choice, dict) and called[0] != tool_name:
                raise ValueError(f"{question}: a call of {called[0]}")
            subprocess.run(
                [*REE, "verify", receipt, "--artifact", here / "qwen.ree"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            label = choice if isinstance(choice, str) else "named"
            rows.setdefault(question, {})[label] = {"call": called} if called else {"text": text}
    return {"model": "Qwen2.5-Coder-0.5B-Instruct, Q4_K_M", "sha256": QWEN_SHA256,
            "receipts_verified": 3 * len(QUESTIONS), "answers": rows}  # fmt: skip


if __name__ == "__main__":
    main()
