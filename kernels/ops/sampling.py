"""Sampling as a macro: one token of each row of logits, drawn in integers, so in any order of work the same.

Sources: logits f32 [rows, vocabulary], biased, penalised and masked already (-inf); then a number a row:
temperature, top_p, min_p f32, top_k, seed, position, choice i64. Result: tokens, i64 [rows]. In
docs/numerics.md: the rule, and what comes of parameters and logits that make no sense.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic

import numpy as np

from ree.kernels.constants import SAMPLE_SITE as SITE
from ree.kernels.constants import WEIGHT_BITS as BITS
from ree.kernels.constants import WORD_BITS as WORD  # also of top-p, and of the parts of a product
from ree.kernels.macro import Counter, Expander, Macro, S, register
from ree.kernels.opdef import Array, Attrs, Bound, Lowering, Sample
from ree.kernels.schema import NONE
from ree.kernels.types import DType, TensorType

MOST_TOKENS = 1 << (62 - BITS)  # their weights add up to 2^62 at most

PARAMETERS = {
    "temperature": DType.F32, "top_p": DType.F32, "min_p": DType.F32, "top_k": DType.I64,
    "seed": DType.I64, "position": DType.I64, "choice": DType.I64,
}  # fmt: skip
RULE = (
    "x = logits / temperature; e = exp(x - max x); w = i64(e * 2^40); ranks: x descending, ties to the lower "
    "id; kept: e >= min_p; of them, if top_k > 0, rank < top_k; of them, with W the sum of their w, P = "
    "i64(top_p * 2^24) within 0 and 2^24, those whose better ranks sum to less than floor(W P / 2^24); rank 0 "
    "always; with W the sum of the kept w, a and b the words 4 choice and 4 choice + 1 of uniform with seed, "
    f"step position and site {SITE}, times 2^24: the first id whose running sum of kept w is above "
    "floor(W (a 2^24 + b) / 2^48); argmax of the logits unless temperature > 0 and W > 0"
)


def _infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    if len(types) != 1 + len(PARAMETERS):
        raise ValueError(f"sample: expected {1 + len(PARAMETERS)} sources, got {len(types)}")
    logits = types[0]
    if logits.rank != 2 or logits.dtype is not DType.F32:
        raise ValueError(f"sample: expected logits f32 [rows, vocabulary], got {logits}")
    rows, vocabulary = logits.shape
    if isinstance(vocabulary, int) and not 1 <= vocabulary <= MOST_TOKENS:
        raise ValueError(f"sample: expected 1 to {MOST_TOKENS:,} tokens, got {vocabulary:,}")
    for (name, dtype), t in zip(PARAMETERS.items(), types[1:], strict=True):
        if t != TensorType(dtype, (rows,)):
            raise ValueError(f"sample: expected {name} {TensorType(dtype, (rows,))}, got {t}")
    return (TensorType(DType.I64, (rows,)),)


class _Row(Generic[S]):
    """The operators of one expansion, with numbers as they are needed."""

    def __init__(self, x: Expander[S]) -> None:
        self.add, self.result = x.add, x.result
        self.rows, self.vocabulary = x.node.inputs[0].dims
        self._numbers: dict[tuple[DType, float], S] = {}

    def number(self, v: int | float) -> S:
        dtype = DType.F32 if isinstance(v, float) else DType.I64
        if (dtype, v) not in self._numbers:
            self._numbers[dtype, v] = self.add("full", shape=(), value=v, dtype=dtype)
        return self._numbers[dtype, v]

    def whole(self, x: S) -> S:
        return self.add("cast", x, dtype=DType.I64)

    def either(self, a: S, b: S) -> S:
        return self.add("logical_or", a, b)

    def both(self, a: S, b: S) -> S:
        return self.add("logical_and", a, b)

    def high(self, x: S) -> S:
        """x >> WORD."""
        return self.add("bitwise_right_shift", x, self.number(WORD))

    def low(self, x: S) -> S:
        """x mod 2^WORD."""
        return self.add("bitwise_and", x, self.number((1 << WORD) - 1))

    def last(self, x: S) -> S:
        return self.part(x, self.vocabulary - 1)

    def part(self, x: S, i: int) -> S:
        """Column i, as a column."""
        return self.add("slice", x, dim=1, start=i, stop=i + 1, step=1)

    def scaled(self, x: S, bits: int) -> S:
        """i64(x * 2^bits)."""
        return self.whole(self.add("mul", x, self.number(2.0**bits)))


def _expand(x: Expander[S]) -> tuple[S, ...]:
    m, (logits, *given) = _Row(x), x.sources
    add = m.add
    column = (add("view", s, shape=(m.rows, 1)) for s in given)
    temperature, top_p, min_p, top_k, seed, position, choice = column
    # by rank
    values = add("sort", add("div", logits, temperature), descending=True, dim=1)
    ids = m.result(values, 1)
    e = add("exp", add("sub", values, m.part(values, 0)))
    w, zero = m.scaled(e, BITS), m.number(0)
    rank = add("iota", n=m.vocabulary, start=0, step=1)
    best = add("eq", rank, zero)
    all_ranks = add("le", top_k, zero)
    kept = m.both(add("ge", e, min_p), m.either(all_ranks, add("lt", rank, top_k)))
    w = add("where", m.either(kept, best), w, zero)
    upto = add("cumsum", w, dim=1)
    total = m.last(upto)
    share = add("maximum", m.scaled(top_p, WORD), zero)
    share = add("minimum", share, m.number(1 << WORD))
    limit = add("add", add("mul", m.high(total), share), m.high(add("mul", m.low(total), share)))
    before = add("lt", add("sub", upto, w), limit)
    w = add("where", m.either(before, best), w, zero)
    # by id
    none = add("full", shape=(m.rows, m.vocabulary), value=0, dtype=DType.I64)
    upto = add("cumsum", add("scatter", none, ids, w, dim=1), dim=1)
    total = m.last(upto)
    element = add("add", add("mul", choice, m.number(4)), add("iota", n=2, start=0, step=1))
    words = m.scaled(add("uniform", element, seed, position, site=SITE), WORD)
    a, b, high, low = m.part(words, 0), m.part(words, 1), m.high(total), m.low(total)
    middle = add("add", add("mul", high, b), add("mul", low, a))
    middle = add("add", middle, m.high(add("mul", low, b)))
    target = add("add", add("mul", high, a), m.high(middle))
    above = add("cast", add("gt", upto, target), dtype=DType.F32)
    drawn = add("argmax", above, dim=1, keepdim=False)
    greatest = add("argmax", logits, dim=1, keepdim=False)
    draws = m.both(add("gt", temperature, m.number(0.0)), add("gt", total, zero))
    return (add("where", add("view", draws, shape=(m.rows,)), drawn, greatest),)


def _count(node: Bound) -> int:
    counter = Counter(node)
    _expand(counter)
    return counter.made


# (temperature, top_p, min_p, top_k), those that a front end refuses last
SETTINGS: Sequence[tuple[float, float, float, int]] = (
    (1.0, 1.0, 0.0, 0), (0.7, 0.9, 0.0, 0), (1.0, 1.0, 0.0, 5), (1.3, 0.8, 0.05, 40), (0.0, 0.5, 0.1, 3),
    (1.0, 0.0, 0.0, 0), (1.0, 1.0, 1.0, 0), (1e-6, 1.0, 0.0, 0), (1e6, 1.0, 0.0, 0), (0.9, 0.3, 0.2, 2**40),
    (1e-40, 1.0, 0.0, 0), (-1.0, 1.0, 0.0, 0), (np.nan, 1.0, 0.0, 0), (np.inf, 1.0, 0.0, 0),
    (1.0, np.nan, 0.0, 0), (1.0, 1.0, np.nan, 0), (1.0, 7.0, -1.0, -3), (1.0, -1.0, 2.0, 2**63 - 1),
)  # fmt: skip


def parameters(rng: np.random.Generator, rows: int, first: int = 0) -> tuple[Array, ...]:
    """Settings in turn, from the one called `first` on, with any seeds, positions and choices."""
    chosen = [SETTINGS[(first + r) % len(SETTINGS)] for r in range(rows)]
    t, p, m, k = (np.array([s[i] for s in chosen]) for i in range(4))
    wide = rng.integers(-(2**63), 2**63 - 1, (3, rows), endpoint=True)
    return (*(v.astype(np.float32) for v in (t, p, m)), k.astype(np.int64), *wide)


def _samples() -> Iterator[Sample]:
    def case(name: str, logits: Array, first: int = 0) -> Sample:
        x = logits.astype(np.float32)
        return Sample(name, (x, *parameters(rng, len(x), first)))

    rng = np.random.default_rng(44)
    many = len(SETTINGS)
    for vocabulary in (1, 2, 3, 64, 129, 1000):
        yield case(f"{many}x{vocabulary}", rng.standard_normal((many, vocabulary)) * 3)
    yield case("no rows", np.zeros((0, 5)))
    yield case("ties", rng.integers(-2, 2, (many, 100)))
    yield case("all equal", np.full((many, 33), -0.0))
    far = rng.standard_normal((many, 70)) * 3
    yield case("masked", np.where(rng.random(far.shape) < 0.8, -np.inf, far))
    for name, value in (("all masked", -np.inf), ("NaN", np.nan), ("+inf", np.inf)):
        x = far.copy()
        x[:, slice(None) if value == -np.inf else slice(9, 60, 25)] = value
        yield case(name, x)
    yield case("wide", far * 1e37)
    yield case("subnormal", far * 1e-40)
    yield case("one row", far[:1], 3)


def _lower(ctx: Lowering) -> None:
    names = ("logits", *PARAMETERS)
    rows, vocabulary = ctx.node.inputs[0].dims
    ctx.emit("sample", **{name: ctx.dense(i).slot for i, name in enumerate(names)},
             tokens=ctx.result().slot, rows=rows, vocabulary=vocabulary)  # fmt: skip


register(
    Macro("sample", RULE, NONE, 1 + len(PARAMETERS), _infer, _count, _expand, _samples, _lower)
)
