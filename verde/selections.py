"""Derivations of selections and scatters: chains of short functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from ree.kernels.casts import SCALAR
from ree.kernels.index import Indirect
from ree.kernels.microcode import Program, assemble
from ree.kernels.opdef import Array, Bound, apply
from ree.kernels.scalar import (
    F32,
    I64,
    Expr,
    Function,
    T,
    eq,
    is_nan,
    maximum,
    minimum,
    param,
    select,
)
from ree.verde.derivation import (
    Bits,
    Call,
    Copy,
    Derivation,
    Entry,
    Equal,
    Operation,
    Read,
    Witness,
    digits_of,
    read_bits,
)
from ree.verde.ruled import ZERO, Ruled


def _function(name: str, types: Sequence[T], build: Callable[..., Expr]) -> Program:
    return assemble(
        Function(name, tuple(types), build(*(param(i, t) for i, t in enumerate(types))))
    )


@lru_cache(maxsize=16)
def _extreme(op: str) -> Program:
    return _function(op, (F32, F32), maximum if op == "amax" else minimum)


class Extreme(Ruled):
    """The maximum or minimum so far, element after element."""

    width = 4

    @property
    def count(self) -> int:
        return max(math.prod(self.rule.red_digits), 1)

    def operation(self, i: int) -> Operation:
        infinite = 0xFF800000 if self.node.op == "amax" else 0x7F800000
        before = Entry(i - 1) if i else Bits(infinite)
        return Call(_extreme(self.node.op), (before, self.read(0, i)))


@lru_cache(maxsize=4)
def _better(greatest: bool) -> Program:
    """(k, best, x[k], x[best]) to the index of the better one; the later one only if it is strictly
    better, NaN best of all."""

    def build(k: Expr, best: Expr, x: Expr, top: Expr) -> Expr:
        beats = top < x if greatest else x < top
        return select(beats | (is_nan(x) & ~is_nan(top)), k, best)

    return _function("better", (I64, I64, F32, F32), build)


class ArgExtreme(Ruled):
    """The index of the best element so far."""

    def __init__(self, node: Bound, element: int) -> None:
        super().__init__(node, element)
        dims, axis = node.inputs[0].dims, node.int_attr("dim")
        self.term = Indirect(0, dims[axis], math.prod(dims[axis + 1 :]))

    @property
    def count(self) -> int:
        return math.prod(self.rule.red_digits)

    def operation(self, i: int) -> Operation:
        if i == 0:
            return Copy(ZERO)
        first = self.read(0, 0)
        assert isinstance(first, Read)
        top = Read(0, first.flat, ((i - 1, self.term),))
        return Call(
            _better(self.node.op == "argmax"), (Bits(i), Entry(i - 1), self.read(0, i), top)
        )


@lru_cache(maxsize=8)
def _precedes(t: T, descending: bool) -> Program:
    """(count, j, i, x[j], x[i]) to count + (x[j] comes before x[i]); ties by index."""

    def build(count: Expr, j: Expr, i: Expr, x: Expr, y: Expr) -> Expr:
        if t is F32:
            nx, ny = is_nan(x), is_nan(y)
            less, more = (x < y) | (~nx & ny), (y < x) | (nx & ~ny)
        else:
            less, more = x < y, y < x
        first = more if descending else less
        last = less if descending else more
        before = first | (~last & (j < i))
        return count + select(before, param(1, I64) * 0 + 1, param(1, I64) * 0)

    return _function("precedes", (I64, I64, I64, t, t), build)


class Sort(Derivation):
    """The defender names an index; the elements that come before it are counted; there must be as many
    as its position says."""

    def __init__(self, node: Bound, element: int, result: int) -> None:
        super().__init__(node, element)
        dims, axis = node.out.dims, node.int_attr("dim")
        self.result, self.n = result, dims[axis]
        self.stride = int(np.prod(dims[axis + 1 :], dtype=np.int64))
        self.position = element // self.stride % self.n
        self.base = element - self.position * self.stride

    @property
    def count(self) -> int:
        return self.n + 3

    def operation(self, i: int) -> Operation:
        if i == 0:
            return Witness(self.n)
        named = Read(0, self.base, ((0, Indirect(0, self.n, self.stride)),))
        if i <= self.n:
            j = i - 1
            program = _precedes(SCALAR[self.node.out.dtype], bool(self.node.attrs["descending"]))
            before = Entry(i - 1) if j else ZERO
            return Call(
                program, (before, Bits(j), Entry(0), Read(0, self.base + j * self.stride), named)
            )
        if i == self.n + 1:
            return Equal(Entry(self.n), Bits(self.position))
        return Copy(named if self.result == 0 else Entry(0))

    def choose(self, i: int, sources: Sequence[Array]) -> int:
        order = apply("sort", sources, self.node.attrs)[1]
        return read_bits(order, self.element)


@lru_cache(maxsize=16)
def _update(t: T, add: bool, wrap: int) -> Program:
    """(value, index, place, update) to the value after an update; `wrap` is added to negative indices."""

    def build(value: Expr, index: Expr, place: Expr, update: Expr) -> Expr:
        if wrap:
            index = select(index < 0, index + wrap, index)
        return select(eq(index, place), value + update if add else update, value)

    return _function("update", (t, I64, I64, t), build)


class Scatter(Ruled):
    """The element itself, then every update along the axis, in order."""

    def __init__(self, node: Bound, element: int) -> None:
        super().__init__(node, element)
        self.n = node.inputs[2].dims[node.int_attr("dim")]
        size = node.out.dims[node.int_attr("dim")]
        wrap = size if node.op in ("index_put", "index_add") else 0
        self.update = _update(SCALAR[node.out.dtype], node.op in ("scatter_add", "index_add"), wrap)
        self.place = digits_of(element, node.out.dims)[node.int_attr("dim")]

    @property
    def count(self) -> int:
        return self.n + 1

    def operation(self, i: int) -> Operation:
        if i == 0:
            return Copy(self.read(0))
        args = (Entry(i - 1), self.read(1, i - 1), Bits(self.place), self.read(2, i - 1))
        return Call(self.update, args)
