"""Nested arguments and results: a program takes and returns what the module does."""

import pickle
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

import ree
from ree.compiler.frontend.structure import Structure
from ree.errors import ArtifactError, CaptureError, InputError

Pair = namedtuple("Pair", "first second")


@dataclass
class Both:
    a: torch.Tensor
    b: torch.Tensor | None = None


torch.export.register_dataclass(Both)
X = torch.arange(6.0).view(2, 3)


def module(forward):
    m = torch.nn.Module()
    m.forward = forward
    return m


def same(have, want):
    """Equal in structure, in the classes of it, and in every leaf."""
    assert pytree.tree_structure(have) == pytree.tree_structure(want)
    for a, b in zip(pytree.tree_leaves(have), pytree.tree_leaves(want), strict=True):
        assert type(a) is type(b)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


RESULTS = {
    "a tensor": (lambda x: x + 1, ["output0"]),
    "one in a tuple": (lambda x: (x + 1,), ["output0"]),
    "one in a list": (lambda x: [x + 1], ["output0"]),
    "a list": (lambda x: [x + 1, x - 1], ["output0", "output1"]),
    "a dict": (lambda x: {"logits": x + 1, "loss": x.sum()}, ["logits", "loss"]),
    "nested": (lambda x: {"h": (x + 1, [x - 1]), "n": None}, ["h.0", "h.1.0"]),
    "a tuple of dicts": (lambda x: ({"a": x + 1}, x - 1), ["output0.a", "output1"]),
    "numbers": (lambda x: (x + 1, None, 3, 0.5, True, "mean"), ["output0"]),
    "not finite": (lambda x: {"y": x + 1, "limit": float("inf")}, ["y"]),
    "keys that are numbers": (lambda x: {1: x + 1, 2: x - 1}, ["output1", "output2"]),
    "names that meet": (lambda x: {"a.b": x + 1, "a": {"b": x - 1}}, ["a.b", "output1"]),
    "names that no file has": (lambda x: {"": x + 1, "__metadata__": x, "x" * 999: x, "\x1b[2J": x - 1},
                               ["output0", "output1", "output2", "output3"]),
    "a namedtuple": (lambda x: Pair(x + 1, (x - 1,)), ["first", "second.0"]),
    "a dataclass": (lambda x: Both(x + 1), ["a"]),
    "an ordered dict": (lambda x: OrderedDict(z=x + 1, a=x - 1), ["z", "a"]),
    "values and indices": (lambda x: torch.max(x + 1, 1), ["values", "indices"]),
    "one tensor twice": (lambda x: (lambda y: {"a": y, "b": y})(x + 1), ["a", "b"]),
}  # fmt: skip


@pytest.mark.parametrize("what", RESULTS)
def test_what_the_module_returns_the_program_returns(what, tmp_path):
    forward, names = RESULTS[what]
    want = forward(X)
    program = ree.compile(module(lambda x: forward(x)), (X,))
    assert list(program.outputs) == names
    same(program(X), want)
    program.save(tmp_path / "m.ree")
    loaded = ree.load(tmp_path / "m.ree")
    assert list(loaded.outputs) == names
    if what == "an ordered dict":
        want = dict(want)
    if what != "values and indices":
        same(loaded(X), want)
    assert torch.equal(loaded(X).indices if what == "values and indices" else X, want.indices
                       if what == "values and indices" else X)  # fmt: skip
    numbers = [x for x in pytree.tree_leaves(loaded(X.numpy())) if isinstance(x, np.ndarray)]
    assert len(numbers) == len(names)


def test_a_class_that_is_not_here_is_a_record(tmp_path, monkeypatch):
    program = ree.compile(module(lambda x: (Both(x + 1, x), Pair(x, x - 1))), (X,))
    again = pickle.loads(pickle.dumps(program))
    monkeypatch.delitem(globals(), "Both")
    monkeypatch.delitem(globals(), "Pair")
    both, pair = again(X)
    assert torch.equal(both.a, X + 1)
    assert torch.equal(both["b"], both[1])
    assert torch.equal(pair.second, X - 1)
    assert type(both).__name__ == "Record"
    assert pair._fields == ("first", "second")


def test_a_model_of_transformers_returns_its_output():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, intermediate_size=8,
                                     num_attention_heads=2, num_labels=3)  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()
    inputs = {"input_ids": torch.ones(1, 4, dtype=torch.int64)}
    program = ree.compile(model, inputs)
    assert list(program.outputs) == ["logits"]
    with torch.no_grad():
        want = model(**inputs)
    for p in (program, pickle.loads(pickle.dumps(program))):
        have = p(**inputs)
        assert type(have) is type(want)
        torch.testing.assert_close(have.logits, want.logits)
    assert program(**inputs, labels=None).logits is not None
    with pytest.raises(InputError, match="labels"):
        program(**inputs, labels=torch.ones(1))


def test_names_are_no_part_of_the_hash():
    hashes = {ree.compile(module(f), (X,)).program_hash.hex()
              for f in (lambda x: x + 1, lambda x: {"y": x + 1}, lambda x: (x + 1, None))}  # fmt: skip
    assert len(hashes) == 1


def mixed(x, pair, options, mask=None, scale=2.0, flag=True, *, name="sum"):
    y = x * scale + pair[0] - options["shift"]
    return y if mask is None and flag and name == "sum" else -y


MIXED = (X, (X + 1, [X + 2]), {"shift": X + 3}, None, 3.0)


def test_nested_arguments_and_constants(tmp_path):
    first = ree.compile(module(mixed), MIXED)
    first.save(tmp_path / "m.ree")
    for p in (first, ree.load(tmp_path / "m.ree")):
        assert list(p.inputs) == ["x", "pair_0", "pair_1_0", "options_shift"]
        assert {k: v[0, 0] for k, v in p.examples.items()} == dict(
            zip(p.inputs, [0, 1, 2, 3], strict=True)
        )
        want = mixed(*MIXED)
        assert torch.equal(p(*MIXED), want)
        assert torch.equal(p(*MIXED, flag=True), want)
        assert torch.equal(p(*MIXED[:3], None, scale=3), want)
        assert torch.equal(p(X, pair=MIXED[1], options=MIXED[2], scale=3.0), want)
        flat = dict(zip(p.inputs, (X, X + 1, X + 2, X + 3), strict=True))
        assert torch.equal(p(**flat, scale=3.0), want)
        assert torch.equal(p.run_named(flat).value, want)
        assert ree.verify(p, p.run(*MIXED, trace="io"), MIXED).same


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((*MIXED[:4], 2.0), {}, "compiled for 3.0, got 2.0"),
        (MIXED[:4], {}, "missing input 'scale'"),  # forward would take 2.0
        ((*MIXED[:4], True), {}, "compiled for 3.0, got True"),
        ((*MIXED[:3], X, 3.0), {}, "'mask': the program was compiled for None, got Tensor"),
        (MIXED, {"flag": False}, "compiled for True, got False"),
        (MIXED, {"flag": 1}, "compiled for True, got 1"),
        (MIXED, {"name": "mean"}, "compiled for 'sum'"),
        (MIXED, {"other": 1}, "unknown input 'other'"),
        (MIXED, {"x": X}, "'x' is given twice"),
        (MIXED, {"pair_0": X}, "'pair_0' is given twice"),
        ((*MIXED, True, 1), {}, "expected 5 arguments, got 7"),
        ((X, (X,), *MIXED[2:]), {}, r"'pair': expected \(tensor, \[tensor\]\), got tuple of 1"),
        ((X, X, *MIXED[2:]), {}, "'pair': expected"),
        ((*MIXED[:2], {"shift": X, "more": X}, None, 3.0), {}, "'options': expected"),
        ((*MIXED[:2], {"Shift": X}, None, 3.0), {}, "'options': expected"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(args, kwargs, message):
    program = ree.compile(module(mixed), MIXED)
    with pytest.raises(InputError, match=message):
        program(*args, **kwargs)


def test_arguments_without_a_name():
    m = module(lambda *xs: xs[0] + xs[1] * 2)
    program = ree.compile(m, (X, X + 1))
    assert torch.equal(program(X, X + 1), m(X, X + 1))


def test_dataclasses_and_namedtuples_go_in():
    program = ree.compile(
        module(lambda b, p: b.a + b.b * p.first - p.second), (Both(X, X + 1), Pair(X, X + 2))
    )
    want = X + (X + 1) * X - (X + 2)
    assert torch.equal(program(Both(X, X + 1), Pair(X, X + 2)), want)
    assert torch.equal(program({"a": X, "b": X + 1}, (X, X + 2)), want)
    with pytest.raises(InputError, match="b_b"):
        program(Both(X), Pair(X, X))


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: (x + 1, x.shape[0]), "output 1 is a number that depends on a size"),
        (lambda x: {(1, 2): x + 1}, "key"),
        (lambda x: {"y": x + 1, "d": torch.float32}, ""),
    ],
)
def test_results_that_cannot_be_kept_are_refused(forward, message):
    shapes = ({0: torch.export.Dim("n", min=2, max=9)},)
    with pytest.raises(CaptureError, match=message):
        ree.compile(module(lambda x: forward(x)), (X,), shapes)


def test_a_structure_from_another_is_checked():
    good = ree.compile(module(mixed), MIXED).names.structure
    assert Structure.decode(good.encode(), 4, 1).encode() == good.encode()
    deep = "tensor"
    for _ in range(12):
        deep = {"list": [deep]}
    wide = {"list": ["tensor"] * 100_001}
    for bad in (None, [], {"tuple": ["tensor"]}, {**good.encode(), "more": 1}):
        with pytest.raises(ValueError, match="expected"):
            Structure.decode(bad, 4, 1)
    t = "tensor"
    for result in (None, 3, "u", {}, {"set": []}, {"tuple": t}, {"dict": [["k"]]}, {"dict": [[None, t]]},
                   {"dict": [["k", t], ["k", t]]}, {"object": ["os.system"]}, {"object": [1, []]},
                   {"constant": 0.5}, {"constant": []}, {"float": "x"}, {"tuple": [t, t]}, {"tuple": []},
                   deep, wide):  # fmt: skip
        with pytest.raises(ValueError):  # noqa: PT011 (any of them)
            Structure.decode({**good.encode(), "result": result}, 4, 1)


def test_a_class_from_a_file_is_neither_imported_nor_called(tmp_path):
    program = ree.compile(module(lambda x: Both(x + 1, x)), (X,))
    files = pickle.loads(pickle.dumps(program.__reduce__()[1]))[0]
    for name in (
        b"os.system",
        b"antigravity.Both",
        b"builtins.dict",
        b"torch.nn.modules.linear.Linear",
    ):
        raw = files["manifest.json"].replace(b"test_structure.Both", name)
        made = ree.artifact.from_files({**files, "manifest.json": raw})(X)
        assert type(made).__name__ in ("Record", "Both")
    with pytest.raises(ArtifactError):
        ree.artifact.from_files({**files, "manifest.json": b"{}"})
