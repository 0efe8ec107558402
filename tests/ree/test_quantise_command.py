"""`ree quantise`: what it writes is an artifact as any other, and says that it is quantised."""

import json

import numpy as np
import pytest

import ree
from ree.cli import main
from ree.cli.quantise import BYTES, _Text
from ree.errors import InputError
from ree.verde.game import Game
from ree.verde.party import play, run_of
from ree.verde.testing import dispute

MODEL = """
import torch
class M(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = torch.nn.Linear(24, 33), torch.nn.Linear(33, 4)
    def forward(self, x):
        return self.b(torch.nn.functional.gelu(self.a(x)))
def model():
    return M()
def example_inputs():
    return (torch.randn(5, 24, generator=torch.Generator().manual_seed(1)),)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    d = tmp_path_factory.mktemp("quantised")
    (d / "model.py").write_text(MODEL)
    (d / "none.py").write_text(
        MODEL.replace("self.b(torch.nn.functional.gelu(self.a(x)))", "x.sin()")
    )
    for name in ("model", "none"):
        assert main(["compile", str(d / f"{name}.py"), "-o", str(d / f"{name}.ree")]) == 0
    assert main(["quantise", str(d / "model.ree"), "-o", str(d / "small.ree")]) == 0
    return d


def test_it_runs_and_is_verified_as_any_other(made, capsys):
    art, trace = str(made / "small.ree"), str(made / "ops.trace")
    assert main(["run", art, "--trace", trace, "--trace-level", "ops"]) == 0
    assert main(["verify", art, "--trace", trace]) == 0
    assert main(["verify", str(made / "model.ree"), "--trace", trace]) == 1  # another program
    capsys.readouterr()


def test_what_it_says_of_the_error_is_so(made, capsys):
    out = made / "again.ree"
    assert main(["quantise", str(made / "model.ree"), "-o", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    small, given = ree.load(out), ree.load(made / "model.ree")
    a, b = (p.run(**p.examples).outputs[0] for p in (given, small))
    (error,) = said["errors"].values()
    assert error["greatest"] == np.abs(a - b).max() > 0
    assert error["relative"] == pytest.approx(np.abs(a - b).max() / np.abs(a).max())
    assert error["cosine"] > 0.999
    assert (said["layers"], said["kept"], said["smoothed"]) == (2, [], True)
    assert said["program"] == small.program_hash.hex()
    assert said["bytes_after"] < 0.6 * said["bytes_before"]


def test_inputs_of_a_file_are_taken(made, capsys, tmp_path):
    x = np.random.default_rng(0).standard_normal((40, 24)).astype(np.float32)
    name = next(iter(ree.load(made / "model.ree").names.inputs))
    np.savez(tmp_path / "in.npz", **{name: x[:5] * 3})
    args = ["quantise", str(made / "model.ree"), "-o", str(tmp_path / "o.ree")]
    assert main([*args, "--inputs", str(tmp_path / "in.npz")]) == 0
    assert main(["inspect", str(tmp_path / "o.ree"), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = json.loads("\n".join(lines[next(i for i, x in enumerate(lines) if x.startswith("{")) :]))
    assert told["program"] == ree.load(made / "small.ree").program_hash.hex()
    assert told["weights_root"] != ree.load(made / "small.ree").weights_root.hex()  # other factors


def test_an_artifact_that_is_not_float32_any_more_says_so(made, capsys):
    assert main(["inspect", str(made / "small.ree")]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("precision"))
    assert "8-bit integers in 2 of 2 linear layers: not the results of float32" in line
    assert main(["inspect", str(made / "model.ree")]) == 0
    assert "precision" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("none.ree", "x.ree"), "no linear layer to quantise"),
        (("small.ree", "x.ree"), "no linear layer to quantise: 2 are in 8-bit integers already"),
        (("missing.ree", "x.ree"), "missing.ree"),
        (("model.ree", "model.ree"), "another artifact than the one to quantise"),
        (("model.ree", "model.py"), "model.py"),
        (("model.ree", "x.ree", "--inputs", "nothing.npz"), "no file"),
        (("model.ree", "x.ree", "--inputs", "model.py"), "no readable inputs"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    made, capsys, monkeypatch, args, message
):
    monkeypatch.chdir(made)
    before = sorted(p.name for p in made.iterdir())
    art, out, *more = args
    assert main(["quantise", art, "-o", out, *more]) == 2
    said, err = capsys.readouterr()
    assert said == ""
    assert message in err.splitlines()[0]
    assert len(err.splitlines()) <= 2
    assert "Traceback" not in err
    assert sorted(p.name for p in made.iterdir()) == before


def test_a_lie_about_any_value_of_it_loses(made):
    program = ree.load(made / "small.ree")
    run, instance = run_of(program, tuple(program.examples.values()))
    rng, ops = np.random.default_rng(0), set()
    for v, n in enumerate(instance.graph.nodes):
        if n.op in ("linear_i8", "amax", "cast", "round", "maximum") and n.op not in ops:
            assert dispute(run, instance, v, rng, lambda *a: play(Game(run.scope), *a))
            ops.add(n.op)
    assert len(ops) == 5


def test_a_language_model_is_quantised_and_says_how_well_it_foretells(tmp_path, capsys):
    pytest.importorskip("transformers")
    from ree.generation.engine import Engine
    from ree.generation.model import LanguageModel
    from ree.generation.perplexity import MOST
    from tests.generation.test_narrow import programs
    from tests.generation.tiny import CONTEXT, model_of

    narrow, wide = programs(offset=True)
    files = model_of().program.files
    for name, p in (("narrow", narrow), ("wide", wide)):
        p.files = files
        p.save(tmp_path / f"{name}.ree")
    (tmp_path / "text").write_text("a text that is foretold, " * 9)
    said = {}
    # as long as is read, but for one byte, which is half a character
    long, most = "x" * (BYTES * MOST - 1) + "\u00e9", tmp_path / "long"
    for text, tokens in ((long, MOST), (long[:-1] + "x\u00e9", MOST), (long[:9] + "\u00e9", 11)):
        most.write_text(text, encoding="utf-8")
        assert len(_Text(str(most), wide).tokens) == min(tokens, CONTEXT)
    most.write_bytes(long.encode()[:-1])
    with pytest.raises(InputError, match="not UTF-8"):
        _Text(str(most), wide)
    for name in ("narrow", "wide"):
        out = tmp_path / f"{name}8.ree"
        command = ["quantise", str(tmp_path / f"{name}.ree"), "-o", str(out)]
        assert main([*command, "--text", str(tmp_path / "text"), "--json"]) == 0
        said[name] = json.loads(capsys.readouterr().out)
        said[name]["model"] = LanguageModel.load(out)
    # matrices in blocks are rounded from their value: both become the same layers
    layers = [x["layers"] for x in said.values()]
    assert layers == [15, 15]
    assert said["narrow"]["perplexity"] == said["wide"]["perplexity"]
    told = said["wide"]["perplexity"]
    assert told["before"] != told["after"]
    model = LanguageModel.load(tmp_path / "wide.ree")
    tokens = model.text_prompt((tmp_path / "text").read_text())
    assert told["tokens"] == len(tokens)
    x = Engine(model.forward, positions=256).read(0, tokens, 0, first=0).astype(np.float64)[:-1]
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    mean = -np.log(p[np.arange(len(x)), tokens[1:]]).mean()
    assert told["before"] == pytest.approx(np.exp(mean))
    answers = [x["model"].forward.program.weights_root for x in said.values()]
    assert answers[0] != answers[1]  # the table of rows stays as it was kept


def test_a_text_for_another_model_and_a_wrong_text_are_one_line(made, tmp_path, capsys):
    art, out = str(made / "model.ree"), tmp_path / "t.ree"
    (tmp_path / "text").write_text("x")
    assert main(["quantise", art, "-o", str(out), "--text", str(tmp_path / "text")]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: --text is for language models"
    assert "it has no generation.json" in hint
    assert hint.count("hint") == 1
    assert not out.exists()
