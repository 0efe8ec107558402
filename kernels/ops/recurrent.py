"""LSTM, GRU and RNN as macros: one direction of one layer, over a time that may be open.

Sources: x of [time, batch, gates * units], the layer's input times its weights, bias included; the states
before the first step, hidden and for an LSTM cell, of [batch, units]; the weights of the hidden state; then,
where the attributes say so, their bias and an LSTM's projection. Results: the hidden state of every step, and
the states after the last. A step is what torch's own decomposition makes of it, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic

import numpy as np

from ree.kernels.macro import Counter, Expander, Macro, S, register
from ree.kernels.opdef import Attrs, Bound, Infer, Sample
from ree.kernels.schema import FLAG, AttrValue
from ree.kernels.types import DType, Shape, TensorType

MOST_JOINED = 4  # sources of a cat
HALVES = (DType.F16, DType.BF16)


class Layer(Generic[S]):
    """The steps of one expansion. In half precision each call is computed in float32 and rounded."""

    def __init__(self, x: Expander[S], states: int) -> None:
        self.x, attrs = x, x.node.attrs
        given = iter(x.sources)
        self.gates = next(given)
        self.time, self.batch, self.width = x.node.inputs[0].dims
        self.half = x.node.inputs[0].dtype if x.node.inputs[0].dtype in HALVES else None
        self._wide: dict[S, S] = {}
        self.states = [
            x.add("view", next(given), shape=(1, *t.dims)) for t in x.node.inputs[1 : 1 + states]
        ]
        self.weight = next(given)
        self.bias = next(given) if attrs["bias"] else None
        self.projection = next(given) if attrs.get("projection") else None
        self.order = range(self.time)[:: -1 if attrs["reverse"] else 1]

    def run(self, cell: Callable[[Layer[S], S, list[S]], list[S]]) -> tuple[S, ...]:
        """`cell`, from a step's gates and the states before it to those after it, at every step."""
        parts, hidden = [], []
        for t in self.order:
            self.x.at(t)
            parts.append(self.x.add("slice", self.gates, dim=0, start=t, stop=t + 1, step=1))
        for i, t in enumerate(self.order):
            self.x.at(t)
            parts[i] = self.x.add("view", parts[i], shape=(self.batch, self.width))
        states = self.states
        for t, part in zip(self.order, parts, strict=True):
            self.x.at(t)
            states = cell(self, part, states)
            hidden.append(states[0])
        self.x.at(None)
        joined = hidden[:: self.order.step]
        while len(joined) > 1:
            groups = [joined[i : i + MOST_JOINED] for i in range(0, len(joined), MOST_JOINED)]
            joined = [self.x.add("cat", *g, dim=0) if len(g) > 1 else g[0] for g in groups]
        shapes = (t.dims for t in self.x.node.outputs[1:])
        last = [self.x.add("view", s, shape=d) for s, d in zip(states, shapes, strict=True)]
        return (joined[0], *last)

    def call(self, op: str, *operands: S) -> S:
        if self.half is None:
            return self.x.add(op, *operands)
        return self.x.add("cast", self.x.add(op, *map(self.wide, operands)), dtype=self.half)

    def wide(self, s: S) -> S:
        """A source in float32."""
        if self.half is None:
            return s
        if s not in self._wide:
            self._wide[s] = self.x.add("cast", s, dtype=DType.F32)
        return self._wide[s]

    def linear(self, s: S, weight: S, bias: S | None = None) -> S:
        y = self.x.add("linear", self.wide(s), self.wide(weight))
        if bias is not None:
            y = self.x.add("add", y, self.wide(bias))
        return y if self.half is None else self.x.add("cast", y, dtype=self.half)

    def split(self, s: S, n: int, dim: int) -> list[S]:
        """n equal parts of an axis that holds all gates."""
        size = self.width // n
        return [
            self.x.add("slice", s, dim=dim, start=i * size, stop=(i + 1) * size, step=1)
            for i in range(n)
        ]


def _lstm(m: Layer[S], part: S, states: list[S]) -> list[S]:
    h, c = states
    gates = m.split(m.call("add", m.linear(h, m.weight, m.bias), part), 4, 2)
    i, f = m.call("sigmoid", gates[0]), m.call("sigmoid", gates[1])
    g, o = m.call("tanh", gates[2]), m.call("sigmoid", gates[3])
    c = m.call("add", m.call("mul", f, c), m.call("mul", i, g))
    h = m.call("mul", o, m.call("tanh", c))
    return [h if m.projection is None else m.linear(h, m.projection), c]


def _gru(m: Layer[S], part: S, states: list[S]) -> list[S]:
    (h,) = states
    of_x = m.split(part, 3, 1)
    of_h = m.split(m.linear(h, m.weight, m.bias), 3, 2)
    r = m.call("sigmoid", m.call("add", of_h[0], of_x[0]))
    z = m.call("sigmoid", m.call("add", of_h[1], of_x[1]))
    n = m.call("tanh", m.call("add", of_x[2], m.call("mul", of_h[2], r)))
    return [m.call("add", m.call("mul", m.call("sub", h, n), z), n)]


def _rnn(m: Layer[S], part: S, states: list[S]) -> list[S]:
    y = m.call("add", m.linear(states[0], m.weight, m.bias), part)
    return [m.call("relu" if m.x.node.attrs["relu"] else "tanh", y)]


def _infer(name: str, gates: int, states: int) -> Infer:
    def infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        bias, projection = bool(attrs["bias"]), bool(attrs.get("projection"))
        want = 2 + states + bias + projection
        if len(types) != want:
            raise ValueError(f"{name}: expected {want} sources, got {len(types)}")
        x, h, last = types[0], types[1], types[states]  # hidden and cell, which may be one
        if x.rank != 3 or h.rank != 2 or last.rank != 2:
            raise ValueError(f"{name}: expected ranks 3 and 2, got {x}, {h} and {last}")
        if x.dtype not in (DType.F32, *HALVES):
            raise ValueError(f"{name}: expected f32, f16 or bf16, got {x}")
        time, batch, width = x.shape
        out, units = h.shape[1], last.shape[1]
        if isinstance(time, int) and time < 1:
            raise ValueError(f"{name}: expected a time of 1 step or more, got {time}")
        if not all(isinstance(d, int) and d > 0 for d in (out, units)) or width != units * gates:
            raise ValueError(f"{name}: {x} and {last} do not fit: expected {gates} gates a unit")
        if out != units and not projection:
            raise ValueError(f"{name}: expected a hidden state of {units} units, got {out}")
        shapes: list[Shape] = [x.shape, h.shape, last.shape][: 1 + states]
        shapes[1:] = [(batch, *s[1:]) for s in shapes[1:]]
        shapes.append((width, out))
        shapes += ([(width,)] if bias else []) + ([(out, units)] if projection else [])
        for t, shape in zip(types, shapes, strict=True):
            if t != TensorType(x.dtype, shape):
                raise ValueError(f"{name}: expected {TensorType(x.dtype, shape)}, got {t}")
        return (TensorType(x.dtype, (time, batch, out)), *types[1 : 1 + states])

    return infer


def _joins(n: int) -> int:
    """Nodes that join n parts."""
    made = 0
    while n > 1:
        made += n // MOST_JOINED + (n % MOST_JOINED > 1)
        n = -(-n // MOST_JOINED)
    return made


def _count(expand: Callable[[Expander[Any]], object]) -> Callable[[Bound], int]:
    """Nodes by those of one and of two steps: all steps are alike."""

    def of(node: Bound, time: int) -> int:
        x, y = (TensorType(t.dtype, (time, *t.dims[1:])) for t in (node.inputs[0], node.out))
        short = Bound(node.op, (x, *node.inputs[1:]), (y, *node.outputs[1:]), node.attrs)
        counter = Counter(short)
        expand(counter)
        return counter.made - _joins(time)

    def count(node: Bound) -> int:
        time, one = node.inputs[0].dims[0], of(node, 1)
        return one + (time - 1) * (of(node, 2) - one) + _joins(time)

    return count


def _samples(gates: int, states: int, **flags: bool) -> Callable[[], Iterator[Sample]]:
    def samples() -> Iterator[Sample]:
        for seed, (time, batch, units) in enumerate(((1, 1, 1), (2, 3, 5), (7, 2, 130))):
            for bias in (False, True):
                for reverse in (False, True):
                    yield sample(seed, time, batch, units, bias, reverse)

    def sample(seed: int, time: int, batch: int, units: int, bias: bool, reverse: bool) -> Sample:
        rng = np.random.default_rng(seed)
        out = units // 2 + 1 if flags.get("projection") else units
        shapes = [(time, batch, gates * units), (batch, out), (batch, units)][: 1 + states]
        shapes.append((gates * units, out))
        shapes += ([(gates * units,)] if bias else []) + (
            [(out, units)] if flags.get("projection") else []
        )
        attrs: dict[str, AttrValue] = {"bias": bias, **flags, "reverse": reverse}
        arrays = tuple(
            rng.standard_normal(s, np.float32) / np.float32(s[-1] ** 0.5 if len(s) == 2 else 1)
            for s in shapes
        )
        return Sample(f"{time}x{batch}x{units}/{bias}/{reverse}", arrays, attrs)

    return samples


def _macro(
    name: str, gates: int, states: int, rule: str,
    cell: Callable[[Layer[S], S, list[S]], list[S]], flag: str = "",
) -> None:  # fmt: skip
    def expand(x: Expander[S]) -> tuple[S, ...]:
        return Layer(x, states).run(cell)

    def samples() -> Iterator[Sample]:
        for value in (False, True) if flag else (False,):
            yield from _samples(gates, states, **({flag: value} if flag else {}))()

    schema = dict.fromkeys(sorted({"bias", "reverse", flag} - {""}), FLAG)
    most = 3 + states + (flag == "projection")
    infer = _infer(name, gates, states)
    register(Macro(name, rule, schema, most, infer, _count(expand), expand, samples))


_macro("lstm", 4, 2,
       "each step: i, f, g, o = h w^T [+ b] + x; c = sigmoid(f) c + sigmoid(i) tanh(g); "
       "h = sigmoid(o) tanh(c) [p^T]",
       _lstm, "projection")  # fmt: skip
_macro("gru", 3, 1,
       "each step: r, z, n of h w^T [+ b] and of x; m = tanh(n_x + n_h sigmoid(r_h + r_x)); "
       "h = (h - m) sigmoid(z_h + z_x) + m",
       _gru)  # fmt: skip
_macro("rnn", 1, 1, "each step: h = tanh(h w^T [+ b] + x), or relu of it", _rnn, "relu")
