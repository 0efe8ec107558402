"""Gas of each kind of move: the most observed in three disputes, and that of a whole one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ree.compiler.ir import Builder, Ref
from ree.kernels.opdef import Array
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.settlement.evidence import Evidence
from ree.settlement.terms import UNREAD, OneRun
from ree.settlement.testing.deep import DeepParty
from ree.settlement.testing.evm import CALLER
from ree.settlement.testing.receipts import play
from ree.settlement.testing.referee import referee
from ree.settlement.work import run_facts
from ree.verde.fault import Fault, FaultyParty
from ree.verde.game import Game
from ree.verde.moves import Phase, State
from ree.verde.party import Party, run_of

K = 1301
BOTTOM = (Phase.PROVE, Phase.STEP, Phase.DERIVE)  # told apart by what is disputed
Played = Iterator[tuple[State, bytes, int]]


def rules(before: bytes, move: bytes) -> int:
    """Gas of the referee's `respond` without transaction and calldata."""
    c = referee()
    data = c.selector("respond") + c.encode("respond", *UNREAD, before, move)
    c._evm.message_call(CALLER, c.address, calldata=data, gas=10**9)
    tokens = sum(4 if x else 1 for x in data)
    return int(c._evm.result.gas_used) - 21_000 - 4 * tokens


def moves() -> dict[str, dict[str, int]]:
    """By kind of move: gas of the rules alone, and of the transaction that plays it in the Court, by its
    receipt; `dispute deep`: all of them."""
    out: dict[str, dict[str, int]] = {}

    def worst(name: str, gas: int, transaction: int) -> None:
        entry = out.setdefault(name, {"gas": 0, "transaction": 0})
        entry["gas"] = max(entry["gas"], gas)
        entry["transaction"] = max(entry["transaction"], transaction)

    for name, (evidence, played) in disputes().items():
        total = [0, 0]
        for s, data, transaction in played:
            used = rules(evidence.state(s), data)
            total = [total[0] + used, total[1] + transaction]
            worst(
                f"{s.phase.name} {name}" if s.phase in BOTTOM else s.phase.name, used, transaction
            )
        worst(f"dispute {name}", *total)
    return dict(sorted(out.items()))


def disputes() -> dict[str, tuple[Evidence, Played]]:
    """Disputes on the embedded chain, by name."""
    return {
        "deep": deep(),
        "deep, moved": deep(moves=2),
        "contraction": _contraction(),
        "attention": _attention(),
    }


def deep(moves: int = 0) -> tuple[Evidence, Played]:
    """The deepest dispute: `testing.deep` says over what."""
    party = DeepParty(moves=moves)
    evidence = Evidence(party.game, party.instance)
    first = party.game.begin(party.statement)
    return evidence, play(run_facts(party.instance, party.statement), evidence, first, party, party)


def _lie(program: Program, inputs: tuple[Array, ...], fault: Fault) -> tuple[Evidence, Played]:
    run, instance = run_of(program, inputs)
    evidence = Evidence(Game(run.scope), instance)
    honest, liar = Party(run, instance.digest), FaultyParty(run, fault, instance.digest)
    s = liar.statement
    facts = OneRun(instance.encoded, s.inputs, s.weights, s.states)
    return evidence, play(facts, evidence, State(s), liar, honest)


def _chain(b: Builder, x: Ref, n: int) -> Ref:
    for _ in range(n):
        x = b.add("neg", x)
    return x


def _contraction() -> tuple[Evidence, Played]:
    """Both operands behind moves, the entry before in another leaf."""
    rng, b = np.random.default_rng(0), Builder()
    x, w = b.input(TensorType(DType.F32, (K, 48))), b.input(TensorType(DType.F32, (2, 96, K)))
    left = b.add("permute", _chain(b, x, 60), dims=(1, 0))
    right = b.add("view", b.add("slice", w, dim=0, start=1, stop=2, step=1), shape=(96, K))
    y = b.add("linear", left, right)
    program = Program(b.finish((y,)), Names(("x", "w"), ("y",), ()), ())
    inputs = tuple(rng.standard_normal(s).astype(np.float32) for s in ((K, 48), (2, 96, K)))
    return _lie(program, inputs, Fault(y.index, 77, 128 * 10, 1 << 22))


def _attention() -> tuple[Evidence, Played]:
    """Query times key inside a row: both cut out of tensors behind two moves each."""
    rng, b = np.random.default_rng(0), Builder()
    x = _chain(b, b.input(TensorType(DType.F32, (1, 32, 96))), 60)
    parts = [b.add("permute", b.add("view", b.add("neg", x), shape=(1, 32, 3, 32)), dims=(0, 2, 1, 3))
             for _ in range(3)]  # fmt: skip
    y = b.add("attention", *parts, causal=True, scale=0.25, window=0, q_offset=0)
    program = Program(b.finish((y,)), Names(("x",), ("y",), ()), ())
    inputs = (rng.standard_normal((1, 32, 96)).astype(np.float32),)
    return _lie(program, inputs, Fault(y.index, 777, 20, 1 << 22, (1, 5)))
