"""Derivations of selections and scatters: chains of short functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from ree.kernels.forms import Variant
from ree.kernels.index import Indirect
from ree.kernels.opdef import Array, Bound
from ree.kernels.ops.casts import SCALAR
from ree.kernels.scalar.language import (
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
from ree.kernels.scalar.microcode import Microcode, assemble
from ree.verde.derivation import (
    Bits,
    Copy,
    Derivation,
    EarlierEntry,
    ElementRead,
    Equal,
    FunctionCall,
    Operation,
    Witness,
    digits_of,
    loaded,
    read_bits,
)
from ree.verde.fast_entries import Row, argument, extreme, places, updates
from ree.verde.ruled import ZERO, Ruled


def _function(name: str, types: Sequence[T], build: Callable[..., Expr]) -> Microcode:
    return assemble(
        Function(name, tuple(types), build(*(param(i, t) for i, t in enumerate(types))))
    )


@lru_cache(maxsize=16)
def _extreme(greatest: bool) -> Microcode:
    return _function("extreme", (F32, F32), maximum if greatest else minimum)


class Extreme(Ruled):
    """The maximum or minimum so far, element after element."""

    width = 4

    @property
    def count(self) -> int:
        return max(math.prod(self.rule.red_digits), 1)

    def operation(self, i: int) -> Operation:
        infinite = 0xFF800000 if self.greatest else 0x7F800000
        before = EarlierEntry(i - 1) if i else Bits(infinite)
        return FunctionCall(_extreme(self.greatest), (before, self.read(0, i)))

    def entries(self, sources: Sequence[Array]) -> Array:
        n = math.prod(self.rule.red_digits)
        if n == 0:
            return super().entries(sources)
        return extreme(self.row(0, sources[0]), n, self.greatest)


@lru_cache(maxsize=4)
def _better(greatest: bool) -> Microcode:
    """(k, best, x[k], x[best]) to the index of the better one; the later one only if it is strictly
    better, NaN best of all."""

    def build(k: Expr, best: Expr, x: Expr, top: Expr) -> Expr:
        beats = top < x if greatest else x < top
        return select(beats | (is_nan(x) & ~is_nan(top)), k, best)

    return _function("better", (I64, I64, F32, F32), build)


class ArgExtreme(Ruled):
    """The index of the best element so far."""

    def __init__(self, node: Bound, element: int, result: int = 0) -> None:
        super().__init__(node, element, result)
        dims, axis = node.inputs[0].dims, node.int_attr("dim")
        self.term = Indirect(0, dims[axis], math.prod(dims[axis + 1 :]))

    @property
    def count(self) -> int:
        return math.prod(self.rule.red_digits)

    def operation(self, i: int) -> Operation:
        if i == 0:
            return Copy(ZERO)
        first = self.read(0, 0)
        assert isinstance(first, ElementRead)
        top = ElementRead(0, first.flat, ((i - 1, self.term),))
        return FunctionCall(
            _better(self.greatest), (Bits(i), EarlierEntry(i - 1), self.read(0, i), top)
        )

    def entries(self, sources: Sequence[Array]) -> Array:
        return argument(self.row(0, sources[0]), self.count, self.greatest)


@lru_cache(maxsize=8)
def _precedes(t: T, descending: bool) -> Microcode:
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

    chosen = True

    def __init__(self, node: Bound, element: int, result: int = 0) -> None:
        super().__init__(node, element, result)
        dims, axis = node.out.dims, node.int_attr("dim")
        self.n = dims[axis]
        self.stride = int(np.prod(dims[axis + 1 :], dtype=np.int64))
        self.position = element // self.stride % self.n
        self.base = element - self.position * self.stride

    @property
    def count(self) -> int:
        return self.n + 3

    def operation(self, i: int) -> Operation:
        if i == 0:
            return Witness(self.n)
        named = ElementRead(0, self.base, ((0, Indirect(0, self.n, self.stride)),))
        if i <= self.n:
            j = i - 1
            program = _precedes(SCALAR[self.node.out.dtype], bool(self.node.attrs["descending"]))
            before = EarlierEntry(i - 1) if j else ZERO
            return FunctionCall(
                program,
                (
                    before,
                    Bits(j),
                    EarlierEntry(0),
                    ElementRead(0, self.base + j * self.stride),
                    named,
                ),
            )
        if i == self.n + 1:
            return Equal(EarlierEntry(self.n), Bits(self.position))
        return Copy(named if self.result == 0 else EarlierEntry(0))

    def entries(self, sources: Sequence[Array]) -> Array:
        return self.naming(self.choose(0, sources), sources)

    def choose(self, i: int, sources: Sequence[Array]) -> int:
        order = np.argsort(self._keys(sources[0])(0, self.n), kind="stable")
        return int(order[self.position])

    def naming(self, index: int, sources: Sequence[Array]) -> Array:
        """Every entry as it follows from naming an index below n; the claim that it has the right place stands
        as if it were true."""
        out = np.empty(self.count, np.uint64)
        out[0], out[-2] = index, self.position
        out[1:-2] = places(self._keys(sources[0]), self.n, index)
        out[-1] = index if self.result else read_bits(sources[0], self.base + index * self.stride)
        return out

    def _keys(self, x: Array) -> Row:
        """Integers in the order of the elements along the axis: NaN greatest, -0 equal to +0."""
        row = x.reshape(-1)[self.base :: self.stride][: self.n]
        descending = bool(self.node.attrs["descending"])

        def keys(start: int, at: int) -> Array:
            part = row[start:at]
            if part.dtype == np.float32:
                u = np.ascontiguousarray(part).view(np.uint32)
                size = u & 0x7FFFFFFF
                part = np.where(u >> 31, ~u, u | np.uint32(1 << 31))
                part[size == 0] = 1 << 31
                part[size > 0x7F800000] = 0xFFFFFFFF
            return np.invert(part) if descending else part

        return keys


@lru_cache(maxsize=16)
def _update(t: T, add: bool, wrap: int) -> Microcode:
    """(value, index, place, update) to the value after an update; `wrap` is added to negative indices."""

    def build(value: Expr, index: Expr, place: Expr, update: Expr) -> Expr:
        if wrap:
            index = select(index < 0, index + wrap, index)
        return select(eq(index, place), value + update if add else update, value)

    return _function("update", (t, I64, I64, t), build)


class Scatter(Ruled):
    """The element itself, then every update along the axis, in order."""

    def __init__(self, node: Bound, element: int, result: int = 0) -> None:
        super().__init__(node, element, result)
        self.n = node.inputs[2].dims[node.int_attr("dim")]
        size = node.out.dims[node.int_attr("dim")]
        self.wrap = size if Variant.WRAPS in self.variant else 0
        self.add = Variant.ADDS in self.variant
        self.update = _update(SCALAR[node.out.dtype], self.add, self.wrap)
        self.place = digits_of(element, node.out.dims)[node.int_attr("dim")]

    @property
    def count(self) -> int:
        return self.n + 1

    def operation(self, i: int) -> Operation:
        if i == 0:
            return Copy(self.read(0))
        args = (EarlierEntry(i - 1), self.read(1, i - 1), Bits(self.place), self.read(2, i - 1))
        return FunctionCall(self.update, args)

    def entries(self, sources: Sequence[Array]) -> Array:
        x, index, row = (
            sources[0].reshape(-1)[self.element :],
            *(self.row(i, sources[i]) for i in (1, 2)),
        )
        wanted = [self.place - self.wrap, self.place] if self.wrap else [self.place]
        hits = lambda start, at: np.isin(index(start, at), wanted)  # noqa: E731
        return loaded(updates(x[:1], hits, row, self.n, self.add))
