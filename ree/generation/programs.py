"""The programs that follow from a forward program: one that runs, and the step that a claim is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ree.compiler.ir import bind_graph
from ree.compiler.training.states import inputs_as_states
from ree.errors import ArtifactError
from ree.generation.claim_program import ClaimForm, claim_graph
from ree.generation.layout import EXPECTED, INPUTS, NO_MODEL, cache_names
from ree.kernels.types import Dim, DType, TensorType
from ree.program import Names, Program
from ree.runtime.cache import LeastRecent

CLAIMS, RUNNING = 8, 16  # programs that are kept
F32, I64 = DType.F32, DType.I64


@dataclass(frozen=True)
class Axes:
    """Names of a forward program's symbols."""

    slots: str
    queries: str
    rows: str
    capacity: str


class Forward:
    """A forward program (ree/generation/forward.py), and the programs that follow from it.

    ArtifactError if the program has not the form of one.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        n = len(INPUTS)
        inputs, names = program.graph.inputs, program.names
        self.layers = (len(inputs) - n) // 2
        caches = cache_names(self.layers)
        axes = _axes(inputs)
        expected = (*INPUTS, *caches), (*(f"new.{c}" for c in caches), "logits")
        if axes is None or (names.inputs, names.outputs) != expected or program.graph.states:
            raise ArtifactError(NO_MODEL, EXPECTED)
        *new, logits = map(program.graph.typer(), program.graph.outputs)
        # memory is taken for these types; a program that gives others would write beyond it
        whole = (inputs[0].shape[0], inputs[2].shape[1])
        if new != list(inputs[n:]) or logits.dtype is not F32 or logits.shape[:-1] != whole:
            raise ArtifactError(NO_MODEL, EXPECTED)
        self.axes, self.vocabulary = axes, _number(logits.shape[-1])
        # heads and width of each cache
        self.cache_shapes = [(_number(t.shape[2]), _number(t.shape[3])) for t in inputs[n:]]
        self._claims: LeastRecent[tuple[int, ClaimForm], Program] = LeastRecent(CLAIMS)
        self._running: LeastRecent[tuple[int, int], Program] = LeastRecent(RUNNING)
        self.caches = caches

    def stateful(self, slots: int, capacity: int) -> Program:
        """The program for so many slots and positions, its caches states; queries and rows stay open."""
        return self._running.get_or_make((slots, capacity), lambda: self._stateful(slots, capacity))

    def _stateful(self, slots: int, capacity: int) -> Program:
        a = self.axes
        g = bind_graph(self.program.graph, {a.slots: slots, a.capacity: capacity})
        g = inputs_as_states(g, len(INPUTS))
        names = Names(INPUTS, self.program.names.outputs, self.program.names.weights, self.caches)
        return self.program.sibling(g, names)

    def claim(self, capacity: int, form: ClaimForm) -> Program:
        """The step of a claim with caches of so many positions; its loss is the last output."""
        return self._claims.get_or_make((capacity, form), lambda: self._claim(capacity, form))

    def _claim(self, capacity: int, form: ClaimForm) -> Program:
        graph, inputs, states = claim_graph(self, capacity, form)
        outputs = (*(f"new.{s}" for s in states), "loss")
        return self.program.sibling(
            graph, Names(inputs, outputs, self.program.names.weights, states)
        )


def _number(d: Dim) -> int:
    if not isinstance(d, int):
        raise ArtifactError(f"the model's program has an open size {d} where a number is expected")
    return d


def _axes(inputs: Sequence[TensorType]) -> Axes | None:
    """The symbols of a forward program, or None where its inputs have other types."""
    n = len(INPUTS)
    if len(inputs) < n + 2 or len(inputs) % 2 or any(t.rank != 4 for t in inputs[n:]):
        return None
    tokens, positions, rows, limit, first = inputs[: n + 1]
    if tokens.rank != 2 or rows.rank != 2 or tokens != positions or limit.rank != 1:
        return None
    if any(t.dtype is not I64 for t in (tokens, rows, limit)):
        return None
    if any(t.dtype is not F32 for t in inputs[n:]) or limit.shape != tokens.shape[:1]:
        return None
    dims = (*tokens.shape, rows.shape[1], first.shape[1])
    names = [str(d) for d in dims]
    if any(isinstance(d, int) for d in dims) or len(set(names)) != 4:
        return None
    if any(t.shape[:2] != first.shape[:2] for t in inputs[n:]) or rows.shape[0] != tokens.shape[0]:
        return None
    return Axes(*names)
