"""Programs, altered artifacts, terms and training runs at random: compiled code, interpreter and contracts
agree on bytes, lies lose, the honest are whole, what is illegal is refused. Longer: benchmarks/adversary.py."""

import collections
import re

import numpy as np
import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree import _core, program
from ree.artifact import reading
from ree.compiler import legal, text
from ree.compiler.interp import outputs
from ree.errors import InputError
from ree.kernels import opdef
from ree.runtime import inputs, session
from ree.settlement.testing import adversary
from ree.settlement.testing.altered_artifacts import loaded, may_be
from ree.settlement.testing.court import World
from ree.settlement.testing.random_programs import LARGE, Maker, Nothing
from ree.training import step
from ree.verde.derivation import run_all
from ree.verde.selections import ArgExtreme
from ree.verde.testing import open_time_program

CHECKS = adversary.kinds()
# kind: how many seeds from 0, in how many tests
SEEDS = {
    "program": (20, 20),
    "large": (2, 2),
    "artifact": (160, 2),
    "terms": (160, 4),
    "run": (2, 2),
}
FOUND = [
    ("terms", 401),
    ("terms", 506),
    ("program", 5212),
    ("program", 3004387),
]  # seeds that have found something
CAME_TO = {
    "program": {"played", "refused", "no such index", "nothing"},
    "large": {"played", "refused", "no such index", "nothing"},
    "artifact": {"nothing", "refused", "played", "no such index", "of other inputs", "large"},
    "terms": {"refused: file", "read", "refused: client", "posted", "refused: Court", "played", "claims differ",
              "of no token"},
    "run": {"played", "diverged", "refused", "no lie shows"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "part"), [(k, i) for k, (_, n) in SEEDS.items() for i in range(n)]
)
def test_at_random(kind, part):
    seeds, parts = SEEDS[kind]
    came_to = collections.Counter(CHECKS[kind](s) for s in range(part, seeds, parts))
    assert set(came_to) <= CAME_TO[kind]
    if kind == "artifact":
        assert came_to["refused"] > 60
    if kind == "terms":  # most are impossible
        assert min(came_to["played"], came_to["refused: Court"]) > 0


@pytest.mark.parametrize(("kind", "seed"), FOUND)
def test_what_was_found(kind, seed):
    assert CHECKS[kind](seed) in CAME_TO[kind]


def test_altered_artifacts_with_a_macro():
    """A program with recurrent layers over an open time: refused in a line, or everywhere the same bits."""
    ends = collections.Counter()
    for seed in range(120):
        rng = np.random.default_rng(seed)
        other, note = loaded(open_time_program(), rng, f"seed {seed}")
        if other is None or str(other.graph.inputs[0]) != "f32[s0,2,12]":
            ends["refused"] += 1
            continue
        x = rng.standard_normal((int(rng.integers(1, 4)), 2, 12)).astype(np.float32)
        try:
            want = outputs(other.bound({"s0": len(x)}), [x], other.weights)
        except InputError as e:
            adversary.one_line(e)
            ends["refused at a size"] += 1
            continue
        for isa in _core.isa_names():
            have = other.run(x, isa=isa, threads=2).outputs
            assert [y.tobytes() for y in have] == [y.tobytes() for y in want], note
        ends["run"] += 1
    assert ends["refused"] > 60
    assert ends["run"] > 1


def test_most_programs_are_played_and_all_sources_occur():
    kinds, ops = collections.Counter(), set()
    for seed in range(300):
        try:
            case = Maker(seed).make()
        except Nothing:
            continue
        g = case.program.graph
        ops |= {n.op for n in g.nodes}
        moves = any(n.op in ("permute", "slice", "flip", "expand") for n in g.nodes)
        deep = (
            sum(n.op in ("view", "permute", "slice", "flip", "expand", "pad") for n in g.nodes) > 12
        )
        kinds.update(
            all=1, constants=bool(g.consts), weights=bool(g.weights), moves=moves, deep=deep
        )
    assert kinds["all"] > 250
    assert min(kinds["constants"], kinds["weights"], kinds["moves"]) > 50
    assert kinds["deep"] > 10
    assert len(ops) > 60


def test_large_programs_are_large():
    sizes = []
    for seed in range(20):
        try:
            g = Maker(seed, large=True).make().program.graph
        except Nothing:
            continue
        sizes.append(max(t.numel for t in (*g.inputs, *g.weights, *g.value_types())))
    assert len(sizes) > 12
    assert min(sizes) >= min(LARGE)
    assert max(sizes) > 2**16


def test_a_fault_is_found(monkeypatch):
    """A derivation that is not that of the contracts."""
    monkeypatch.setattr(ArgExtreme, "entries", lambda d, x: d.packed([1, *run_all(d, x)[1:]]))
    for seed in range(2000):
        try:
            case = Maker(seed).make()
        except Nothing:
            continue
        if not any(n.op in ("argmax", "argmin") for n in case.program.graph.nodes):
            continue
        with pytest.raises(AssertionError) as found:
            adversary.check(seed)
        assert f"seed {seed}" in found.value.__notes__[0]
        return
    pytest.fail("not found")


def found(kind, seeds, text):
    """Whether some of the seeds find a fault with a text."""
    for seed in seeds:
        try:
            CHECKS[kind](seed)
        except Exception as e:  # whichever sees it first
            if re.search(text, str(e)):
                return True
    return False


def test_an_artifact_that_is_not_looked_at_is_found(monkeypatch):
    monkeypatch.setattr(reading, "is_canonical", lambda x: True)
    assert found("artifact", range(60), "loaded in spite of")


def test_a_schema_that_is_open_is_found(monkeypatch):
    """Three places look at it while an artifact is loaded."""
    for module in (legal, text, opdef):
        monkeypatch.setattr(module, "check_attrs", lambda *_: None)
    assert found("artifact", range(60), "loaded in spite of")


def test_money_that_stays_behind_is_found(monkeypatch):
    send = World.send
    monkeypatch.setattr(
        World, "send", lambda w, n, f, *a: None if f == "collect" else send(w, n, f, *a)
    )
    assert found("terms", range(60), "money is left behind")


def test_bits_that_are_taken_as_they_come_are_found(monkeypatch):
    for module in (program, inputs):
        monkeypatch.setattr(module, "canonical_array", lambda a, pool=None: a)
    for module in (step, session):
        monkeypatch.setattr(module, "canonical", lambda a: a)
    assert found("run", range(1), "other bits, other run|bool: expected")
    assert found("program", range(40), "other bits of")


def test_what_an_attribute_may_be():
    from ree.kernels.schema import Attr, AttrKind

    for kind, good, bad in (
        (AttrKind.INT, ["0", "-3", "7"],
         ["8", "-4", "00", "-0", "true", "f32", "s0", "", "(1)", "f0x00000000"]),
        (AttrKind.INTS, ["()", "(1)", "(1,7)"], ["1", "(8)", "(1,)", "(true)", "(" + ",".join("1" * 9) + ")"]),
        (AttrKind.F32, ["f0x7fc00000", "f0x80000000"], ["f0x7fc00001", "f0xffc00000", "1", "f0x0", "1.0"]),
        (AttrKind.BOOL, ["true", "false"], ["1", "True", ""]),
        (AttrKind.DTYPE, ["f32", "bool"], ["f64", "float32", "1"]),
    ):  # fmt: skip
        a = Attr(kind, -3, 7)
        assert all(may_be(a, x) for x in good), kind
        assert not any(may_be(a, x) for x in bad), kind
