"""Disputes about single operators, for tests and figures: programs to lie about, and lies in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from ree.compiler.instance import Instance
from ree.compiler.ir import Builder, Kind, Node, Origin, Ref, Symbol
from ree.kernels import opdef, registry
from ree.kernels.opdef import Form, Sample
from ree.kernels.scalar.language import T
from ree.kernels.types import DType, TensorType, symbol
from ree.program import Names, Program
from ree.verde.derivation import Copy, Derivation, ElementRead, FunctionCall, Scalar
from ree.verde.fault import Fault, FaultyParty, MaskedFault
from ree.verde.moves import State
from ree.verde.party import Party, Run, run_of
from ree.verde.protocol import Reason
from ree.verde.scope import ROW, VALUES, ProgramScope, computed

# of a number; the higher ones are rarely rounded away
FLIPS = (1, 1 << 12, 1 << 20, 1 << 28, 1 << 31)
# a training file, for `ree train`
TRAIN = """
import torch
import ree.optim
def model():
    torch.manual_seed(0)
    return torch.nn.Linear(6, 3)
def loss(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])
def optimizer():
    return ree.optim.AdamW(lr=0.01)
def batch(step):
    g = torch.Generator().manual_seed(step)
    return torch.randn(4, 6, generator=g), torch.randint(0, 3, (4,), generator=g)
"""

TRIES = 25  # places and bits tried until a lie shows

Play = Callable[[State, Party, Party], State]  # a dispute of defender and challenger, to its end


def operators() -> list[str]:
    """The operators that have leaves of their own."""
    return [n for n in registry.names() if opdef.get(n).form is not Form.MOVEMENT]


def samples(op: str, many: int) -> list[Sample]:
    """About `many` samples of an operator whose results have elements."""
    found = []
    for s in opdef.get(op).samples():
        types = [TensorType(DType.of(x.dtype), x.shape) for x in s.inputs]
        if (types or opdef.get(op).form is Form.CREATE) and all(
            t.numel for t in opdef.bind(op, types, s.attrs, {}).outputs
        ):
            found.append(s)
    return found[:: max(1, len(found) // many)]


def program_of(op: str, sample: Sample) -> tuple[Program, Node]:
    """A program that calls one operator; its results go through two more, so that lies spread."""
    b = Builder()
    refs = [b.input(TensorType(DType.of(x.dtype), x.shape)) for x in sample.inputs]
    node = b.add_node(op, tuple(refs), sample.attrs)
    outs = []
    for i, t in enumerate(node.results):
        flat = b.add("view", Ref(Kind.VALUE, node.first + i), shape=(t.numel,))
        outs.append(b.add("neg", flat) if t.dtype is DType.F32 else flat)
    names = Names(
        tuple(f"i{i}" for i in range(len(refs))), tuple(f"o{i}" for i in range(len(outs))), ()
    )
    return Program(b.finish(tuple(outs)), names, ()), node


def open_time_program() -> Program:
    """A bidirectional LSTM over an open time, and a classifier of its last states; an example of 5 steps."""
    rng = np.random.default_rng(3)
    b, weights = Builder(), []
    b.symbols.append(Symbol("s0", 1, 1 << 20))
    x = b.input(TensorType(DType.F32, (symbol("s0"), 2, 12)))

    def weight(*shape: int) -> Ref:
        weights.append(rng.standard_normal(shape).astype(np.float32) / 3)
        return b.weight(TensorType(DType.F32, shape))

    last = []
    for way in ("forward", "backward"):
        b.origin = Origin("lstm", "lstm", "model.py:7", "self.lstm(x)", f"lstm {way}")
        gates = b.add("linear", x, weight(20, 12))
        zero = b.add("full", shape=(2, 5), value=0.0, dtype=DType.F32)
        attrs = {"bias": True, "projection": False, "reverse": way == "backward"}
        node = b.add_node("lstm", (gates, zero, zero, weight(20, 5), weight(20)), attrs)
        last.append(Ref(Kind.VALUE, node.first + 1))
    b.origin = Origin()
    y = b.add("softmax", b.add("linear", b.add("cat", *last, dim=1), weight(3, 10)), dim=1)
    names = Names(("x",), ("y",), tuple(f"w{i}" for i in range(len(weights))))
    example = rng.standard_normal((5, 2, 12)).astype(np.float32)
    return Program(b.finish((y,)), names, weights, {"x": example})


def along(op: str, n: int) -> Sample:
    """A case of an operator along an axis of n elements, some of them equal."""
    x, y = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
    x[:: max(n // 5, 1)] = 0.5
    match op:
        case "linear":
            return Sample(f"{n}", (x[None], y[None]))
        case "sort":
            return Sample(f"{n}", (x,), {"dim": 0, "descending": bool(n & 1)})
        case "cumsum":
            return Sample(f"{n}", (x,), {"dim": 0})
        case "scatter" | "scatter_add" | "index_put" | "index_add":
            index = np.random.default_rng(1).integers(0, 3, n)
            return Sample(f"{n}", (np.zeros(3, np.float32), index, x), {"dim": 0})
    return Sample(f"{n}", (x,), {"dim": 0, "keepdim": False})


def last_fault(scope: ProgramScope, value: int, element: int) -> Fault:
    """The lowest bit of an element is false, and so is the operation that makes it: this always shows."""
    if scope.row_program(VALUES, value) is None:
        return Fault(value, element, scope.derivation(VALUES, value, element).count - 1)
    inner = scope.inside((VALUES, value, element))
    row = len(inner.nodes) - 1, inner.element
    return Fault(value, element, inner.derivation(ROW, *row).count - 1, 1, row)


def inner_faults(scope: ProgramScope, value: int, rng: np.random.Generator) -> Iterator[Fault]:
    """TRIES bits of operations before an element's last; many vanish. None if it has only one."""
    program, size = scope.row_program(VALUES, value), scope.type(VALUES, value).numel
    for flip in islice(cycle(FLIPS), TRIES):
        element, row = int(rng.integers(size)), None
        if program is None:
            d = scope.derivation(VALUES, value, element)
            last = d.count - 1
        else:
            inner = scope.inside((VALUES, value, element))
            node = int(rng.choice(computed(inner, ROW)))
            row = node, int(rng.integers(inner.nodes[node].out.numel))
            d = inner.derivation(ROW, *row)
            last = d.count - (row == (len(inner.nodes) - 1, inner.element))
        if last == 0:
            continue
        at = int(rng.integers(last))
        yield Fault(value, element, at, flip if _is_number(d, at) else 1, row)


def _is_number(d: Derivation, i: int) -> bool:
    """Whether an operation's result is a float or an integer: any bit of it may be flipped."""
    match d.operation(i):
        case Scalar(step):
            return step.result is not T.BOOL
        case FunctionCall(program):
            return program.steps[-1].result is not T.BOOL
        case Copy(ElementRead(source)):
            return d.node.inputs[source].dtype is not DType.BOOL
    return False


def liars(
    run: Run, instance: Instance, value: int, rng: np.random.Generator
) -> Iterator[FaultyParty]:
    """Liars about a value: about the last operation of an element, then about an earlier one if any of
    TRIES shows in the value."""
    element = int(rng.integers(run.scope.type(VALUES, value).numel))
    yield FaultyParty(run, last_fault(run.scope, value, element), instance.digest)
    for fault in inner_faults(run.scope, value, rng):
        try:
            yield FaultyParty(run, fault, instance.digest)
            return
        except MaskedFault:
            continue


@dataclass(frozen=True)
class Lie:
    """A lie that was played both ways, and lost. `inner`: about an operation before the last one."""

    fault: Fault
    inner: bool
    moves: int


def dispute(
    run: Run, instance: Instance, value: int, rng: np.random.Generator, play: Play
) -> list[Lie]:
    """Lies about a value lose by execution, and lose against the truth; AssertionError if one does not."""
    honest, out = Party(run, instance.digest), []
    for i, liar in enumerate(liars(run, instance, value, rng)):
        end = play(State(liar.statement), liar, honest)
        if end.winner != "challenger" or end.cause is not Reason.EXECUTED:
            raise AssertionError(f"{liar.fault}, as defender: {end.winner}, {end.reason}")
        moves = end.moves
        end = play(State(honest.statement), honest, liar)
        if end.winner != "defender":
            raise AssertionError(f"{liar.fault}, as challenger: {end.winner}, {end.reason}")
        out.append(Lie(liar.fault, i > 0, moves))
    return out


def dispute_samples(
    op: str, many: int, play_for: Callable[[Run, Instance], Play]
) -> list[tuple[Sample, list[Lie]]]:
    """Disputes about every result of about `many` samples of an operator."""
    out = []
    for sample in samples(op, many):
        program, node = program_of(op, sample)
        run, instance = run_of(program, sample.inputs)
        rng, play = np.random.default_rng(len(sample.name)), play_for(run, instance)
        for value in range(len(node.results)):
            try:
                out.append((sample, dispute(run, instance, value, rng, play)))
            except Exception as e:
                e.add_note(f"{op}, sample {sample.name}, result {value}")
                raise
    return out
