"""lm-evaluation-harness over HTTP: python benchmarks/harness.py PYTHON [ART.ree].

PYTHON is an interpreter of an environment of its own that has lm-eval[api]. A task of multiple choice, whose
questions stand below, is scored through `ree serve` one text at a time, eight in a request, and eight in each
of four requests at once: the scores have to be the same bits. Each is also computed from the model's logits in
float64. Writes benchmarks/results/harness.json.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from serving import Server

from ree.generation.engine import Engine
from ree.generation.model import LanguageModel, compile_model
from ree.generation.models import smollm2_path

RESULTS = Path(__file__).parent / "results" / "harness.json"
WAYS = {
    "one": (1, 1),
    "eight": (8, 1),
    "eight_of_four": (8, 4),
}  # texts of a request, requests at once
TOLERANCE = 1e-4  # of a log-likelihood, against float64 from the same logits
QUESTIONS = [
    ("The capital of France is", ["Paris", "London", "Rome", "Berlin"], 0),
    ("Two plus two is", ["three", "four", "nine"], 1),
    ("Water freezes when it is very", ["hot", "loud", "cold", "green"], 2),
    ("A week has", ["seven days", "ten days", "three days"], 0),
    ("The opposite of up is", ["left", "down", "blue"], 1),
    ("Fish live in", ["the water", "the sky", "books", "fire"], 0),
    ("The sun rises in the", ["west", "north", "east", "evening"], 2),
    ("A young dog is called a", ["kitten", "puppy", "calf"], 1),
    ("Bread is made of", ["flour", "glass", "stone and sand"], 0),
    ("The largest planet of the solar system is", ["Mars", "Earth", "Jupiter"], 2),
    ("She opened the door with her", ["key", "soup", "cloud"], 0),
    ("Once upon a time there was a king who had three", ["daughters", "of", "Tuesday"], 0),
    ("The chemical symbol of gold is", ["Au", "Fe", "O", "Na"], 0),
    ("Birds fly with their", ["wings", "teeth", "roots"], 0),
    ("Shakespeare wrote", ["Hamlet", "Faust", "Don Quixote"], 0),
    ("To see in the dark we turn on the", ["light", "tap", "dog"], 0),
]  # fmt: skip
TASK = {
    "task": "ree_questions", "dataset_path": "json", "output_type": "multiple_choice", "test_split": "test",
    "doc_to_text": "{{question}}", "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "acc"}],
}  # fmt: skip


def write_task(folder):
    """The task's files: a YAML, which JSON is, and its lines."""
    lines = [json.dumps({"question": q, "choices": c, "answer": a}) for q, c, a in QUESTIONS]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    files = {"data_files": {"test": str(folder / "questions.jsonl")}}
    (folder / "questions.yaml").write_text(json.dumps(TASK | {"dataset_kwargs": files}))


def write_tokenizer(folder, model):
    (folder / "tokenizer.json").write_bytes(model.program.files["tokenizer.json"])
    told = {"tokenizer_class": "PreTrainedTokenizerFast", **model.settings.special}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


def score(python, folder, host, name):
    """(accuracy, [log-likelihood, whether it is greedy] of every choice) as the harness has them."""
    texts, at_once = WAYS[name]
    arguments = {"model": "m", "base_url": f"http://{host}/v1/completions", "num_concurrent": at_once,
                 "tokenizer_backend": "huggingface", "tokenizer": folder, "max_retries": 1}  # fmt: skip
    command = [python, "-m", "lm_eval", "--model", "local-completions", "--model_args",
               ",".join(f"{k}={v}" for k, v in arguments.items()), "--tasks", TASK["task"],
               "--include_path", folder, "--batch_size", texts, "--log_samples",
               "--output_path", folder / name]  # fmt: skip
    quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "cache")}
    subprocess.run(list(map(str, command)), check=True, cwd=folder, env=os.environ | quiet,
                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    (totals,) = (folder / name).rglob("results_*.json")
    (samples,) = (folder / name).rglob("samples_*.jsonl")
    lines = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda x: x["doc_id"])
    assert len(lines) == len(QUESTIONS)
    said = [[r[0] for r in x["resps"]] for x in lines]
    return json.loads(totals.read_text())["results"][TASK["task"]]["acc,none"], said


def expected(model):
    """The log-likelihood of every choice, in float64 from the model's logits."""
    engine, out = Engine(model.forward, positions=128), []
    for question, choices, _ in QUESTIONS:
        out.append([])
        given = len(model.tokenizer.encode(question))
        for choice in choices:
            tokens = model.tokenizer.encode(f"{question} {choice}")
            logits = engine.read(0, tokens, 0, first=0).astype(np.float64)
            top = logits.max(1, keepdims=True)
            logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
            places = range(given - 1, len(tokens) - 1)
            out[-1].append(sum(logs[i, tokens[i + 1]] for i in places))
    return out


def main():
    python, *rest = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="ree-harness-"))
    path = Path(rest[0]) if rest else folder / "s.ree"
    if not rest:
        compile_model(smollm2_path()).save(path)
    model = LanguageModel.load(path)
    write_task(folder)
    write_tokenizer(folder, model)
    server = Server(path)
    try:
        found = {name: score(python, folder, server.host, name) for name in WAYS}
    finally:
        server.close()
    first = found["one"]
    assert all(f == first for f in found.values()), found
    numbers = [[float(x) for x, _ in choices] for choices in first[1]]
    far = max(abs(a - b) for got, want in zip(numbers, expected(model), strict=True)
              for a, b in zip(got, want, strict=True))  # fmt: skip
    assert far < TOLERANCE, far
    version = subprocess.run([python, "-c", "from importlib.metadata import version as v; print(v('lm_eval'))"],
                             check=True, capture_output=True, text=True).stdout.strip()  # fmt: skip
    out = {
        "model": model.settings.name, "lm_eval": version, "ways": {n: list(w) for n, w in WAYS.items()},
        "questions": len(QUESTIONS), "choices": sum(map(len, numbers)), "accuracy": first[0],
        "same_bits_in_every_way": True, "farthest_from_float64": far,
        "log_likelihoods": numbers,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(out, indent=1) + "\n")
    print(json.dumps({k: x for k, x in out.items() if k != "log_likelihoods"}, indent=1))


if __name__ == "__main__":
    main()
