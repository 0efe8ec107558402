"""The programs that follow from a forward program: one that runs, and the step that a claim is made of.

A *claim* says that tokens are what the model gives for a request. Its step reads the next 128 tokens, computes
all their logits, draws from each the token that the request would have, and counts how many are not the token
that stands there: its loss, zero for an honest claim. The state after a step is the caches of keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ree.compiler import legal
from ree.compiler.ir import Builder, Graph, Kind, Ref, bind_graph
from ree.compiler.passes.canonical import canonicalise
from ree.compiler.training.states import inputs_as_states
from ree.errors import ArtifactError
from ree.generation.layout import CHUNK, EXPECTED, INPUTS, NO_MODEL, cache_names
from ree.kernels.opdef import Array
from ree.kernels.types import Dim, DType, TensorType
from ree.program import Names, Program
from ree.runtime.cache import LeastRecent

CLAIMS = 8
F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL
SCALARS = {
    "choice": I64, "min_p": F32, "min_tokens": I64, "next": I64, "position": I64, "prompt": I64, "seed": I64,
    "temperature": F32, "top_k": I64, "top_p": F32, "total": I64,
}  # fmt: skip
ROWS = {"bias": F32, "stop": BOOL}  # one entry for each token of the vocabulary


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
        self.claims: LeastRecent[int, Program] = LeastRecent(CLAIMS)  # steps by capacity
        self.caches = caches

    def stateful(self, slots: int, capacity: int) -> Program:
        """The program for so many slots and positions, its caches states; queries and rows stay open."""
        a = self.axes
        g = bind_graph(self.program.graph, {a.slots: slots, a.capacity: capacity})
        g = inputs_as_states(g, len(INPUTS))
        names = Names(INPUTS, self.program.names.outputs, self.program.names.weights, self.caches)
        return self.program.sibling(g, names)

    def claim(self, capacity: int) -> Program:
        """The step of a claim with caches of so many positions; its loss is the last output."""
        graph, states = _Claim(self, capacity).build()
        names = Names(("tokens",), (*(f"new.{s}" for s in states), "loss"), self.program.names.weights,
                      states)  # fmt: skip
        return self.program.sibling(graph, names)


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


class _Claim:
    """Builds the step: a forward pass over the chunk, the draw, the count, the new state."""

    def __init__(self, forward: Forward, capacity: int) -> None:
        a = forward.axes
        env = {a.slots: 1, a.queries: CHUNK, a.rows: CHUNK, a.capacity: capacity}
        self.forward, self.inner = forward, bind_graph(forward.program.graph, env)
        self.b = Builder(forward.program.graph.contract)
        for t in self.inner.weights:
            self.b.weight(t)
        caches = dict(zip(forward.caches, self.inner.inputs[len(INPUTS) :], strict=True))
        rows = {n: TensorType(d, (forward.vocabulary,)) for n, d in ROWS.items()}
        types = caches | rows | {n: TensorType(d, ()) for n, d in SCALARS.items()}
        self.state = {n: self.b.state(types[n]) for n in sorted(types)}

    def build(self) -> tuple[Graph, tuple[str, ...]]:
        b, state = self.b, self.state
        given = b.input(
            TensorType(I64, (CHUNK + 1,))
        )  # the last one is the first of the next chunk
        tokens, following = self.cut(given, 0, CHUNK), self.cut(given, 1, CHUNK + 1)
        at = b.add("add", b.add("iota", n=CHUNK, start=0, step=1), state["position"])
        new_caches, logits = self.run_forward(tokens, at)
        wrong = [
            b.add(
                "logical_and", b.add("ge", at, state["total"]), b.add("ne", tokens, self.whole(0))
            ),
            self.drawn_wrong(logits, at, following),
            b.add("view", b.add("ne", self.cut(tokens, 0, 1), state["next"]), shape=(1,)),
        ]
        counts = [b.add("sum", b.add("cast", w, dtype=F32), dim=0, keepdim=False) for w in wrong]
        loss = b.add("add", b.add("add", counts[0], counts[1]), counts[2])
        new = dict(state) | dict(zip(self.forward.caches, new_caches, strict=True))
        new["position"] = b.add("add", state["position"], self.whole(CHUNK))
        new["next"] = b.add("view", self.cut(given, CHUNK, CHUNK + 1), shape=())
        g = canonicalise(b.finish((*(new[n] for n in state), loss)))
        legal.check(g)
        return g, tuple(state)

    def run_forward(self, tokens: Ref, at: Ref) -> tuple[list[Ref], Ref]:
        """(new caches, logits of every position of the chunk)."""
        b = self.b
        rows = b.add("view", b.add("iota", n=CHUNK, start=0, step=1), shape=(1, CHUNK))
        # nothing is drawn behind the last token, so its keys and values are not kept
        limit = b.add("view", b.add("sub", self.state["total"], self.whole(1)), shape=(1,))
        inputs = [b.add("view", tokens, shape=(1, CHUNK)), b.add("view", at, shape=(1, CHUNK)), rows, limit,
                  *(self.state[c] for c in self.forward.caches)]  # fmt: skip
        consts = [b.const(c) for c in self.inner.consts]
        place: dict[Ref, Ref] = {Ref(Kind.INPUT, i): r for i, r in enumerate(inputs)}
        place |= {Ref(Kind.CONST, i): r for i, r in enumerate(consts)}
        for x in self.inner.nodes:
            b.add_again(x, place)
        *caches, logits = (place.get(r, r) for r in self.inner.outputs)
        return caches, b.add("view", logits, shape=(CHUNK, self.forward.vocabulary))

    def drawn_wrong(self, logits: Ref, at: Ref, following: Ref) -> Ref:
        """Whether the token behind each position of the chunk is another than the one to be drawn, where one
        is drawn, or stands where the generation had stopped before."""
        b, s = self.b, self.state
        place = b.add("add", at, self.whole(1))  # of the token that is drawn
        is_drawn = b.add(
            "logical_and", b.add("ge", place, s["prompt"]), b.add("lt", place, s["total"])
        )
        early = b.add("lt", b.add("sub", place, s["prompt"]), s["min_tokens"])
        barred = b.add("logical_and", b.add("view", early, shape=(CHUNK, 1)), s["stop"])
        x = b.add("add", logits, s["bias"])
        x = b.add("where", barred, b.const(np.array(-np.inf, np.float32)), x)
        each = {n: b.add("expand", s[n], shape=(CHUNK,))
                for n in ("temperature", "top_p", "min_p", "top_k", "seed", "choice")}  # fmt: skip
        token = b.add("sample", x, each["temperature"], each["top_p"], each["min_p"], each["top_k"],
                      each["seed"], place, each["choice"])  # fmt: skip
        other = b.add("logical_and", is_drawn, b.add("ne", token, following))
        not_last = b.add("lt", b.add("add", place, self.whole(1)), s["total"])
        # a stop token ends a generation: none stands before the last place
        stopped = b.add(
            "logical_and",
            b.add("logical_and", is_drawn, not_last),
            b.add("gather", s["stop"], following, dim=0),
        )
        return b.add("logical_or", other, stopped)

    def cut(self, x: Ref, start: int, stop: int) -> Ref:
        return self.b.add("slice", x, dim=0, start=start, stop=stop, step=1)

    def whole(self, n: int) -> Ref:
        return self.b.const(np.array(n, np.int64))


def first_state(
    forward: Forward, capacity: int, request: dict[str, Array | float | int]
) -> list[Array]:
    """S0 of a claim: empty caches, and the request by name (SCALARS and ROWS)."""
    dtypes = SCALARS | ROWS
    values = {n: np.asarray(x).astype(dtypes[n].numpy) for n, x in request.items()}
    state: dict[str, Array] = dict(values)
    for c, (heads, width) in zip(forward.caches, forward.cache_shapes, strict=True):
        state[c] = np.zeros((1, capacity, heads, width), np.float32)
    if set(values) != set(dtypes):
        raise ValueError(f"request: expected {sorted(dtypes)}, got {sorted(values)}")
    return [state[n] for n in sorted(state)]
