"""Nothing is bonded on a program that the contracts, this machine or this party could not answer for."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.compiler.ir import Builder, Const
from ree.errors import ChainError, InputError, PlatformError
from ree.kernels import macro
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.settlement import gate
from ree.settlement.work import call_facts, memory_run
from ree.verde.fault import recompute
from ree.verde.moves import Phase, Prove
from ree.verde.party import Party
from ree.verde.rehearsal import descents, rehearse
from ree.verde.testing import open_time_program
from ree.verde.testing import program_of as program_of_one

TERMS = SimpleNamespace(grace=60)
PLENTY = gate.Need("tokens", 1, 1, "units")


def program_of(build):
    b = Builder()
    outs = tuple(build(b, b.input(TensorType(DType.F32, (4, 3)))))
    return Program(b.finish(outs), Names(("x",), tuple(f"y{i}" for i in range(len(outs))), ()), ())


def many_moves(count):
    def build(b, x):
        y = b.add("neg", x)
        for _ in range(count):
            y = b.add("permute", y, dims=(1, 0))
        return [b.add("neg", y)]

    return build


def constant(b, x):
    return [b.add("neg", x), b.const(np.ones((4, 3), np.float32))]


def layers(b, x):
    for _ in range(3):
        x = b.add("softmax", b.add("permute", b.add("add", x, x), dims=(1, 0)), dim=1)
        x = b.add("permute", x, dims=(1, 0))
    y = b.add_node("sort", (x,), {"dim": 1, "descending": True})
    return [y.value, b.add("sum", x, dim=0, keepdim=False)]


GIVEN = {"x": np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)}


def party():
    run, instance = memory_run(program_of(layers), GIVEN)
    return Party(run, instance.digest), instance


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (many_moves(13), "13 moves away, expected 12"),
        (many_moves(255), "255 moves"),
        (many_moves(256), "256 moves"),
        (many_moves(700), "700 moves"),
        (constant, "a constant"),
    ],
)
def test_what_cannot_be_decided_has_no_facts_and_no_party(build, why):
    p = program_of(build)
    for ask in (call_facts, memory_run):
        with pytest.raises(InputError, match=f"no contract can decide this program: .*{why}"):
            ask(p, GIVEN)


def of_bits(bits):
    raw = np.full((4, 3), bits, np.uint32).tobytes()
    return lambda b, x: [b.add("add", x, b.const(Const(TensorType(DType.F32, (4, 3)), raw)))]


@pytest.mark.parametrize("bits", [0x7FC12345, 0xFFC00000, 0x7F800001])
def test_what_no_loader_has_seen_must_be_legal_too(bits):
    p = program_of(of_bits(bits))
    for made in (call_facts, memory_run):
        with pytest.raises(InputError, match="bits are not canonical"):
            made(p, GIVEN)


def test_what_does_not_fit_into_memory_is_refused_with_the_number(monkeypatch):
    p, need = program_of(layers), gate.memory(program_of(layers).instance({}))
    assert need.met
    monkeypatch.setattr(gate, "available", lambda: need.needed)
    call_facts(p, GIVEN)
    monkeypatch.setattr(gate, "available", lambda: need.needed - 1)
    with pytest.raises(
        InputError, match=rf"cannot be answered: memory needs {need.needed:,} bytes"
    ):
        call_facts(p, GIVEN)


def test_an_honest_party_passes_and_kinds_are_played_once():
    honest, instance = party()
    rows = gate.table(instance, TERMS, honest, PLENTY, 60)
    gate.require(rows)
    assert len(rows) == 7
    played = [what for what, _ in rehearse(honest, honest.game.apply)]
    assert len(played) == len(set(played))
    heads = {what.split(" of ")[-1] for what in played}
    # layers after the first are alike
    assert heads == {"add %0", "softmax %2", "add %4", "sort %12", "sort %13", "sum %14"}


def test_a_recurrent_layer_is_rehearsed_as_it_is_written_out():
    program = open_time_program()
    run, instance = memory_run(program, {"x": program.examples["x"][:3]})
    honest = Party(run, instance.digest)
    gate.require(gate.table(instance, TERMS, honest, PLENTY, 60))
    heads = {
        what.split(" of ")[-1].split(" ")[0] for what, _ in rehearse(honest, honest.game.apply)
    }
    assert heads == {"full", "linear", "add", "sigmoid", "tanh", "mul", "cat", "softmax"}


def test_a_drawn_token_is_rehearsed_as_it_is_written_out():
    case = next(s for s in macro.get("sample").samples() if s.name == "18x129")
    program, _ = program_of_one("sample", case)
    run, instance = memory_run(program, dict(zip(program.names.inputs, case.inputs, strict=True)))
    honest = Party(run, instance.digest)
    gate.require(gate.table(instance, TERMS, honest, PLENTY, 60))
    heads = {
        what.split(" of ")[-1].split(" ")[0] for what, _ in rehearse(honest, honest.game.apply)
    }
    assert heads >= {"div", "sort", "sub", "exp", "cumsum", "scatter", "uniform", "argmax", "where"}


@pytest.mark.parametrize("row", ["tokens", "time of a move"])
def test_too_little_is_named_with_the_numbers(row):
    honest, instance = party()
    money = gate.Need("tokens", 5, 4, "units") if row == "tokens" else PLENTY
    rows = gate.table(
        instance, SimpleNamespace(grace=59 if row != "tokens" else 60), honest, money, 60
    )
    with pytest.raises(ChainError, match=rf"nothing was bonded: {row} needs (5|60) .*, has (4|59)"):
        gate.require(rows)
    assert not any(r.what.startswith("answers") for r in rows)


def test_descents_reach_every_phase_of_a_call():
    honest, _ = party()
    phases = set()

    def ask(s):
        phases.add(s.phase)
        return honest.move(s)

    ends = dict(descents(honest.game, honest.game.begin(honest.statement), honest.game.apply, ask))
    assert len(ends) == 4
    assert {e.winner for e in ends.values()} == {"defender"}
    assert phases >= {Phase.OPEN, Phase.REVEAL, Phase.TENSOR, Phase.BODY, Phase.DERIVE, Phase.PROVE}


def test_what_compiled_code_makes_is_compared_with_exact_arithmetic():
    """A value that is false where no pointer looks, and all that follows from it."""
    honest, instance = party()
    y = np.array(honest.run.values[0])
    y.reshape(-1)[5] += 1
    false = Party(recompute(honest.run, 0, y), instance.digest)
    false.derived = lambda s, d, x: [*d.entries(x)[:-1], s.bits]
    with pytest.raises(
        ChainError, match=r"in rehearsal there is no answer: .*add, .* of element 5"
    ):
        gate.rehearsed(false, instance, TERMS)


def test_a_move_dearer_than_a_block_is_found():
    honest, instance = party()
    rows = gate.table(instance, TERMS, honest, PLENTY, 60, block=100_000)
    with pytest.raises(ChainError, match=r"dearest move needs \d+,\d+ gas, has 100,000"):
        gate.require(rows)


def test_without_contracts_nothing_is_rehearsed(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrevm", None)
    who, instance = party()
    with pytest.raises(PlatformError, match="a rehearsal needs 'pyrevm'"):
        gate.table(instance, TERMS, who, PLENTY, 1)


def test_a_party_that_cannot_answer_is_found():
    class Forgets(Party):
        def move(self, s):
            m = super().move(s)
            return replace(m, openings=m.openings[:-1]) if isinstance(m, Prove) else m

    honest, instance = party()
    with pytest.raises(ChainError, match="in rehearsal there is no answer: "):
        gate.rehearsed(Forgets(honest.run, instance.digest), instance, TERMS)


def test_a_party_that_computes_otherwise_is_found():
    class Wrong(Party):
        def derived(self, s, d, sources):
            entries = super().derived(s, d, sources)
            return [entries[0] ^ 1, *entries[1:]]

    honest, instance = party()
    with pytest.raises(ChainError, match=r"in rehearsal a pointer at .* wins: executed"):
        gate.rehearsed(Wrong(honest.run, instance.digest), instance, TERMS)


def test_an_answer_that_takes_too_long_is_found(monkeypatch):
    honest, instance = party()
    ticks = iter(range(0, 10**6, 16))
    # of this module alone: others' threads read the clock too
    monkeypatch.setattr(gate, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    rows = gate.rehearsed(honest, instance, TERMS)
    with pytest.raises(ChainError, match=r"answers \(\d+\) needs 16 s each, has 15"):
        gate.require(rows)


def test_answers_that_take_too_long_together_are_found(monkeypatch):
    """Each in time, and all of a dispute in more than a dispute of a crowd may take."""
    honest, instance = party()
    ticks = iter(range(0, 10**6, 8))
    # of this module alone: others' threads read the clock too
    monkeypatch.setattr(gate, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    rows = gate.rehearsed(honest, instance, TERMS)
    assert rows[0].met
    with pytest.raises(ChainError, match=r"answers of a dispute needs [0-9.]+ s, has 30"):
        gate.require(rows)
