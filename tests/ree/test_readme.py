"""Every line of the README runs as shown, with small models in the places of the examples."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from ree.cli import main
from ree.cli.commands import COMMANDS
from ree.cli.grammar import make_parser
from ree.generation.testing import gguf

from ..generation.conftest import byte_level_json  # noqa: TID252 (tests have no name of their own)
from ..generation.test_gguf_model import converted  # noqa: TID252 (tests have no name of their own)
from ..generation.test_source import made  # noqa: TID252
from ..generation.tiny import TEMPLATE  # noqa: TID252 (tests have no name of their own)

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
LONG = {
    "audit",
    "conformance",
    "party",
    "dispute",
    "verdict",
    "demo",
    "serve",
}  # run by tests of their own
MODEL = """import torch
def model():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)
def example_inputs(): return (torch.ones(1, 3),)
"""
TRAIN = (
    MODEL
    + """from ree import optim
def loss(model, batch): return model(batch[0]).square().mean()
def optimizer(): return optim.SGD(0.01)
def batch(step): return (torch.full((2, 3), step / 100),)
"""
)


def test_what_make_is_told_is_a_rule():
    root = Path(__file__).parents[2]
    rules = set(re.findall(r"^(\w+):", (root / "Makefile").read_text(), re.MULTILINE))
    said = set()
    for f in (root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").glob("*.md")):
        said |= set(re.findall(r"(?:`|^ *)make (\w+)", f.read_text(), re.MULTILINE))
    assert {"demo", "test", "check", "quick"} <= said
    assert said <= rules


def commands():
    lines = [x for language, text in BLOCKS if not language for x in text.splitlines()]
    return [x.partition(" #")[0].strip() for x in lines if re.match(r"(\w+=\S+ )*ree ", x)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "examples" / "training").mkdir(parents=True)
    (tmp_path / "examples" / "minilm.py").write_text(MODEL)
    (tmp_path / "examples" / "training" / "digits.py").write_text(TRAIN)
    more = {"tokenizer.chat_template": TEMPLATE, "llama.context_length": 512}
    tiny = gguf(*converted(made("llama", max_position_embeddings=512), byte_level_json(), **more))
    (tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(tiny)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_runs(here, monkeypatch):
    found = commands()
    assert len(found) > 15
    ran = set()
    for line in found:
        words = shlex.split(line)
        with monkeypatch.context() as m:
            while "=" in words[0]:
                m.setenv(*words.pop(0).split("="))
            assert words.pop(0) == "ree"
            make_parser(COMMANDS).parse_args(words)
            if words[0] not in LONG:
                assert main(words) == 0, line
                ran.add(words[0])
    assert ran >= {"compile", "run", "verify", "diff", "inspect", "doctor", "train", "trace"}
    assert ran >= {"generate", "claim", "key"}


def test_every_line_of_python_runs(here):
    torch.manual_seed(0)
    scope = {"torch": torch, "module": torch.nn.Linear(3, 2), "x": torch.ones(1, 3)}
    exec(TRAIN, scope)
    scope["model"] = scope["model"]()
    blocks = [text for language, text in BLOCKS if language == "python"]
    assert len(blocks) >= 2
    for text in blocks:
        exec(text, scope)
    assert scope["report"].same
