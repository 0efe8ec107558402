"""Gas of each kind of move, with the transaction around it: the most observed in three disputes."""

from __future__ import annotations

import numpy as np

from ree.compiler.ir import Builder, Ref
from ree.kernels.opdef import Array
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.settlement.evidence import Evidence
from ree.settlement.testing.disputes import honest_run
from ree.settlement.testing.evm import CALLER
from ree.settlement.testing.referee import referee
from ree.verde.fault import Fault, Liar
from ree.verde.game import Game
from ree.verde.moves import Phase, State
from ree.verde.party import Party

K = 1301
Played = tuple[Phase, tuple[int, int]]


def transaction(before: bytes, move: bytes) -> tuple[int, int]:
    """Gas of `respond` without and with the transaction's base and calldata (EIP-7623)."""
    c = referee()
    data = c.selector("respond") + c.encode("respond", bytes(32), before, move)
    c._evm.message_call(CALLER, c.address, calldata=data, gas=10**9)
    used = int(c._evm.result.gas_used)
    tokens = sum(4 if x else 1 for x in data)
    return used - 21_000 - 4 * tokens, max(used, 21_000 + 10 * tokens)


def moves() -> dict[str, dict[str, int]]:
    """By kind of move: gas of the rules alone, and of a transaction that does nothing else."""
    out: dict[str, dict[str, int]] = {}
    for name, dispute in (("contraction", _contraction()), ("attention", _attention())):
        for phase, (rules, total) in dispute:
            key = f"{phase.name} {name}" if phase is Phase.PROVE else phase.name
            worst = out.setdefault(key, {"gas": 0, "transaction": 0})
            worst["gas"] = max(worst["gas"], rules)
            worst["transaction"] = max(worst["transaction"], total)
    return dict(sorted(out.items()))


def _played(program: Program, inputs: tuple[Array, ...], fault: Fault) -> list[Played]:
    run, instance = honest_run(program, inputs)
    evidence = Evidence(Game(run.scope), instance)
    honest, liar = Party(run, instance.digest), Liar(run, fault, instance.digest)
    s = State(liar.statement)
    out: list[Played] = []
    while s.phase is not Phase.OVER:
        move = (liar if s.player == "defender" else honest).move(s)
        out.append((s.phase, transaction(evidence.state(s), evidence.move(s, move))))
        s = evidence.game.apply(s, move)
    assert s.winner == "challenger"
    return out


def _chain(b: Builder, x: Ref, n: int) -> Ref:
    for _ in range(n):
        x = b.add("neg", x)
    return x


def _contraction() -> list[Played]:
    """Both operands behind moves, the entry before in another leaf."""
    rng, b = np.random.default_rng(0), Builder()
    x, w = b.input(TensorType(DType.F32, (K, 48))), b.input(TensorType(DType.F32, (2, 96, K)))
    left = b.add("permute", _chain(b, x, 60), dims=(1, 0))
    right = b.add("view", b.add("slice", w, dim=0, start=1, stop=2, step=1), shape=(96, K))
    y = b.add("linear", left, right)
    program = Program(b.finish((y,)), Names(("x", "w"), ("y",), ()), ())
    inputs = tuple(rng.standard_normal(s).astype(np.float32) for s in ((K, 48), (2, 96, K)))
    return _played(program, inputs, Fault(y.index, 77, 128 * 10, 1 << 22))


def _attention() -> list[Played]:
    """Query times key inside a row: both cut out of tensors behind two moves each."""
    rng, b = np.random.default_rng(0), Builder()
    x = _chain(b, b.input(TensorType(DType.F32, (1, 32, 96))), 60)
    parts = [b.add("permute", b.add("view", b.add("neg", x), shape=(1, 32, 3, 32)), dims=(0, 2, 1, 3))
             for _ in range(3)]  # fmt: skip
    y = b.add("attention", *parts, causal=True, scale=0.25, window=0, q_offset=0)
    program = Program(b.finish((y,)), Names(("x",), ("y",), ()), ())
    inputs = (rng.standard_normal((1, 32, 96)).astype(np.float32),)
    return _played(program, inputs, Fault(y.index, 777, 20, 1 << 22, (1, 5)))
