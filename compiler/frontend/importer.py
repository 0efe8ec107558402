"""What importers of framework operators share: the builder, constants, broadcasting, casts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ree.compiler.ir import Builder, Ref
from ree.kernels import opdef
from ree.kernels.forms import Form
from ree.kernels.types import Dim, DType, Shape, Sym, TensorType, product


class RefusedCall(Exception):
    """An operator call that is not supported as used; the message says what about it."""


Scalar = bool | int | float
Value = Ref | Scalar | Sym


class Importer:
    """Builds IR from framework calls; `env` maps captured names to sources, dims or tuples."""

    def __init__(self) -> None:
        self.builder = Builder()
        self.env: dict[str, Any] = {}
        self.random: tuple[Ref, Ref] | None = None  # seed and step, in a training step
        self.notes: list[str] = []  # what the user should hear
        self.sites = 0  # random calls so far
        self.narrow: dict[Ref, DType] = {}  # operand of a call -> the type that torch gives it
        self.taken: Ref | None = None  # in a branch of torch.cond, whether it is the one taken
        self.stopped: set[Ref] = set()  # values that count as constants when gradients are taken
        # value -> what it is differentiated by, and its gradient rule, whatever it is made of
        self.rules: dict[Ref, tuple[tuple[Ref, ...], Callable[..., Any]]] = {}

    def zeros(self, t: TensorType) -> Ref:
        zero = self.add("full", shape=t.shape, value=0.0, dtype=DType.F32)
        return self.cast(zero, t.dtype)

    def type(self, x: Ref) -> TensorType:
        return self.builder.type_of(x)

    def add(self, op: str, *sources: Ref, **attrs: Any) -> Ref:
        """Append an operator; a Python float among its attributes is rounded once, to float32.

        In a branch that is not taken every index is 0: what torch does not read cannot be out of range.
        """
        form = opdef.form_of(op) if self.taken is not None else None
        if self.taken is not None and form in (Form.TABLE, Form.SCATTER):
            end = 2 if form is Form.SCATTER else len(sources)  # indices begin at source 1
            zero = self.scalar(0, DType.I64)
            read = (self.builder.add("where", self.taken, s, zero) for s in sources[1:end])
            sources = (sources[0], *read, *sources[end:])
        rounded = {k: _f32(v) if isinstance(v, float) else v for k, v in attrs.items()}
        return self.builder.add(op, *sources, **rounded)

    def scalar(self, v: Scalar | Sym, dtype: DType) -> Ref:
        """A rank-0 constant of dtype; a symbolic integer becomes a `full` node."""
        if isinstance(v, Sym):
            x = self.add("full", shape=(), value=v, dtype=DType.I64)
            return self.cast(x, dtype)
        with np.errstate(over="ignore"):
            return self.builder.const(np.array(v).astype(dtype.numpy))

    def cast(self, x: Ref, dtype: DType) -> Ref:
        return x if self.type(x).dtype is dtype else self.add("cast", x, dtype=dtype)

    def half(self, *operands: Value) -> DType | None:
        """The half type that all operands of a call have which are tensors, or None."""
        types = {self.narrow.get(x) for x in operands if isinstance(x, Ref)}
        half = types.pop() if len(types) == 1 else None
        return half if half in (DType.F16, DType.BF16) else None

    def rounded(self, x: Ref, half: DType | None) -> Ref:
        """x as a half type holds it, where torch rounds on the way."""
        return x if half is None else self.cast(self.cast(x, half), self.type(x).dtype)

    def stop(self, x: Ref) -> Ref:
        """x, through which no gradient flows."""
        self.stopped.add(x)
        return x

    def rule(self, y: Ref, sources: tuple[Ref, ...], rule: Callable[..., Any]) -> Ref:
        """y, just made, with a gradient rule of its own for these sources: torch differentiates the call
        as one where a composition has other subgradients."""
        self.rules[y] = (sources, rule)
        return y

    def as_float(self, x: Ref) -> Ref:
        """x as f32."""
        return self.cast(x, DType.F32)

    def take(self, x: Ref, dim: int, start: Dim, stop: Dim, step: int = 1) -> Ref:
        """Elements [start, stop) of an axis."""
        return self.add("slice", x, dim=dim, start=start, stop=stop, step=step)

    def promote(self, *values: Value) -> tuple[list[Ref], DType]:
        """Operands by torch's promotion among bool, i64 and f32: tensors decide the category
        unless a scalar's is higher."""
        order = [DType.BOOL, DType.I64, DType.F32]

        def category(v: Value) -> DType:
            if isinstance(v, Ref):
                return self.type(v).dtype
            if isinstance(v, bool):
                return DType.BOOL
            return DType.F32 if isinstance(v, float) else DType.I64

        for v in values:
            if category(v) not in order:
                raise RefusedCall(f"dtype {category(v).text}")
        dtype = max((category(v) for v in values), key=order.index)
        return [self.cast(v, dtype) if isinstance(v, Ref) else self.scalar(v, dtype)
                for v in values], dtype  # fmt: skip

    def axis(self, dim: int, rank: int) -> int:
        """dim as a non-negative axis."""
        if not -max(rank, 1) <= dim < max(rank, 1):
            raise RefusedCall(f"dim {dim} of a tensor of rank {rank}")
        return dim % rank if rank else 0

    def shape(self, x: Ref, sizes: tuple[Dim, ...]) -> Shape:
        """sizes with one -1 resolved against x's elements."""
        if not any(isinstance(d, int) and d == -1 for d in sizes):
            return sizes
        known = product(d for d in sizes if not (isinstance(d, int) and d == -1))
        total = product(self.type(x).shape)
        from ree.kernels.types import floordiv

        rest = floordiv(total, known) if known != 0 else 0
        return tuple(rest if isinstance(d, int) and d == -1 else d for d in sizes)

    def view(self, x: Ref, shape: Shape) -> Ref:
        return self.add("view", x, shape=shape)

    def transpose(self, x: Ref, a: int, b: int) -> Ref:
        dims = list(range(self.type(x).rank))
        dims[a], dims[b] = dims[b], dims[a]
        return self.add("permute", x, dims=tuple(dims))

    def reduce(
        self,
        op: str | Callable[[Ref, int, bool], Ref],
        x: Ref,
        dims: tuple[int, ...],
        keepdim: bool,
    ) -> Ref:
        """A reduction over several axes as one over their merged axis: they go last, in order."""

        def one(x: Ref, dim: int, keepdim: bool) -> Ref:
            return (
                self.add(op, x, dim=dim, keepdim=keepdim)
                if isinstance(op, str)
                else op(x, dim, keepdim)
            )

        t = self.type(x)
        axes = sorted({self.axis(d, t.rank) for d in dims}) or list(range(t.rank))
        if t.rank == 0:
            return one(self.view(x, (1,)), 0, False)
        if len(axes) == 1:
            return one(x, axes[0], keepdim)
        kept = [i for i in range(t.rank) if i not in axes]
        moved = self.add("permute", x, dims=tuple(kept + axes))
        shape = tuple(t.shape[i] for i in kept)
        merged = self.view(moved, (*shape, product(t.shape[i] for i in axes)))
        y = one(merged, len(kept), False)
        if keepdim:
            y = self.view(y, tuple(1 if i in axes else t.shape[i] for i in range(t.rank)))
        return y


def _f32(v: float) -> float:
    with np.errstate(over="ignore"):
        return math.nan if math.isnan(v) else float(np.float32(v))


class _Importers(dict[str, Callable[..., Any]]):
    """Importers by ATen name; a name has one."""

    def __setitem__(self, name: str, f: Callable[..., Any]) -> None:
        if name in self:
            raise TypeError(f"two importers for {name}")
        super().__setitem__(name, f)


IMPORTERS = _Importers()


def aten(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register an importer under one or more ATen names."""

    def wrap(f: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            IMPORTERS[name] = f
        return f

    return wrap
