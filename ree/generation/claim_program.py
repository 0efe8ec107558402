"""The step that a claim is made of.

A *claim* says that tokens are what the model gives for a request. Its step reads the next 128 tokens, computes
all their logits, draws from each the token that the request would have, and counts how many are not the token
that stands there: its loss, zero for an honest claim. The state after a step is the caches of keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ree.compiler import legal
from ree.compiler.ir import Builder, Graph, Kind, Ref, bind_graph
from ree.compiler.passes.canonical import canonicalise
from ree.generation.layout import CHUNK, INPUTS
from ree.generation.request import PENALTIES
from ree.kernels.opdef import Array
from ree.kernels.types import DType, TensorType

if TYPE_CHECKING:
    from ree.generation.programs import Forward

F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL
_SCALARS = {
    "choice": I64, "min_p": F32, "min_tokens": I64, "next": I64, "position": I64, "prompt": I64, "seed": I64,
    "temperature": F32, "top_k": I64, "top_p": F32, "total": I64,
}  # fmt: skip
# one entry for each token of the vocabulary
_ROWS = {"bias": F32, "stop": BOOL}
_COUNTS = {"given": F32, "drawn": F32}  # how often each token occurred in the prompt, and behind it


@dataclass(frozen=True)
class ClaimForm:
    """What a request needs of a step beyond the draw. penalties: tokens that occurred are counted; masked:
    which tokens were allowed is an input, bool [128, vocabulary]."""

    penalties: bool = False
    masked: bool = False

    @property
    def scalars(self) -> Mapping[str, DType]:
        """The numbers of a request and of where it stands, by name."""
        return _SCALARS | (dict.fromkeys(PENALTIES, F32) if self.penalties else {})

    @property
    def rows(self) -> Mapping[str, DType]:
        """The rows over the vocabulary by name."""
        return _ROWS | (_COUNTS if self.penalties else {})


def claim_graph(
    forward: Forward, capacity: int, form: ClaimForm
) -> tuple[Graph, tuple[str, ...], tuple[str, ...]]:
    """The step of a claim with caches of so many positions, the names of its inputs and of its states; the loss
    is its last output."""
    return _Claim(forward, capacity, form).build()


class _Claim:
    """Builds the step: a forward pass over the chunk, the draw, the count, the new state."""

    def __init__(self, forward: Forward, capacity: int, form: ClaimForm) -> None:
        a = forward.axes
        env = {a.slots: 1, a.queries: CHUNK, a.rows: CHUNK, a.capacity: capacity}
        self.forward, self.form = forward, form
        self.inner = bind_graph(forward.program.graph, env)
        self.b = Builder(forward.program.graph.contract)
        for t in self.inner.weights:
            self.b.weight(t)
        caches = dict(zip(forward.caches, self.inner.inputs[len(INPUTS) :], strict=True))
        rows = {n: TensorType(d, (forward.vocabulary,)) for n, d in form.rows.items()}
        types = caches | rows | {n: TensorType(d, ()) for n, d in form.scalars.items()}
        self.state = {n: self.b.state(types[n]) for n in sorted(types)}

    def build(self) -> tuple[Graph, tuple[str, ...], tuple[str, ...]]:
        b, state = self.b, self.state
        given = b.input(
            TensorType(I64, (CHUNK + 1,))
        )  # the last one is the first of the next chunk
        inputs: tuple[str, ...] = ("tokens",)
        if self.form.masked:
            self.allowed = b.input(TensorType(BOOL, (CHUNK, self.forward.vocabulary)))
            inputs = (*inputs, "allowed")
        tokens, following = self.cut(given, 0, CHUNK), self.cut(given, 1, CHUNK + 1)
        at = b.add("add", b.add("iota", n=CHUNK, start=0, step=1), state["position"])
        new_caches, logits = self.run_forward(tokens, at)
        new = dict(state) | dict(zip(self.forward.caches, new_caches, strict=True))
        logits = b.add("add", logits, state["bias"])
        if self.form.penalties:
            logits = self.penalised(logits, tokens, at, new)
        wrong = [
            b.add(
                "logical_and", b.add("ge", at, state["total"]), b.add("ne", tokens, self.whole(0))
            ),
            self.drawn_wrong(logits, at, following),
            b.add("view", b.add("ne", self.cut(tokens, 0, 1), state["next"]), shape=(1,)),
        ]
        counts = [b.add("sum", b.add("cast", w, dtype=F32), dim=0, keepdim=False) for w in wrong]
        loss = b.add("add", b.add("add", counts[0], counts[1]), counts[2])
        new["position"] = b.add("add", state["position"], self.whole(CHUNK))
        new["next"] = b.add("view", self.cut(given, CHUNK, CHUNK + 1), shape=())
        g = canonicalise(b.finish((*(new[n] for n in state), loss)))
        legal.check(g)
        return g, inputs, tuple(state)

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

    def penalised(self, x: Ref, tokens: Ref, at: Ref, new: dict[str, Ref]) -> Ref:
        """Logits less what tokens that occurred cost; the counts behind the chunk go into `new`."""
        b, s = self.b, self.state
        in_prompt = b.add("lt", at, s["prompt"])
        is_drawn = b.add("logical_and", b.add("ge", at, s["prompt"]), b.add("lt", at, s["total"]))
        # before a token is drawn the whole prompt was read, so that one count of it does for all rows
        given = b.add("index_add", s["given"], tokens, b.add("cast", in_prompt, dtype=F32), dim=0)
        column = b.add("view", tokens, shape=(CHUNK, 1))
        each = b.add("eq", column, b.add("iota", n=self.forward.vocabulary, start=0, step=1))
        each = b.add("logical_and", each, b.add("view", is_drawn, shape=(CHUNK, 1)))
        so_far = b.add("cumsum", b.add("cast", each, dtype=F32), dim=0)
        drawn = b.add("add", s["drawn"], so_far)
        last = self.cut(drawn, CHUNK - 1, CHUNK)
        new["given"], new["drawn"] = given, b.add("view", last, shape=(self.forward.vocabulary,))
        zero = b.const(np.array(0, np.float32))
        occurred = b.add("gt", b.add("add", given, drawn), zero)
        r = s["repetition_penalty"]
        less = b.add("where", b.add("gt", x, zero), b.add("div", x, r), b.add("mul", x, r))
        x = b.add("where", occurred, less, x)
        was_drawn = b.add("cast", b.add("gt", drawn, zero), dtype=F32)
        x = b.add("sub", x, b.add("mul", was_drawn, s["presence_penalty"]))
        return b.add("sub", x, b.add("mul", drawn, s["frequency_penalty"]))

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
        none = b.const(np.array(-np.inf, np.float32))
        x = b.add("where", barred, none, logits)
        if self.form.masked:
            x = b.add("where", self.allowed, x, none)
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
    forward: Forward, capacity: int, form: ClaimForm, request: Mapping[str, Array | float | int]
) -> list[Array]:
    """S0 of a claim: empty caches, and the request by name (`form.scalars`, `form.rows`)."""
    dtypes = {**form.scalars, **form.rows}
    if set(request) != set(dtypes):
        raise ValueError(f"request: expected {sorted(dtypes)}, got {sorted(request)}")
    state: dict[str, Array] = {n: np.asarray(x).astype(dtypes[n].numpy) for n, x in request.items()}
    for c, (heads, width) in zip(forward.caches, forward.cache_shapes, strict=True):
        state[c] = np.zeros((1, capacity, heads, width), np.float32)
    return [state[n] for n in sorted(state)]
