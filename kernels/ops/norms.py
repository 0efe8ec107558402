"""Row composites over the last axis: softmax, layer_norm, rms_norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod

import numpy as np

from ree.kernels.index import Access, IndexRule, access_by_dims
from ree.kernels.numerics import F32, canonical_nan, max_last, tree_sum
from ree.kernels.opdef import (
    Array,
    Attrs,
    Bound,
    Cost,
    Form,
    Infer,
    Lowering,
    OpDef,
    Sample,
    bytes_moved,
    register,
)
from ree.kernels.rowprogram import Affine, RowBuilder, RowLocal, RowProgram
from ree.kernels.samples import patterns
from ree.kernels.scalar.emit_numpy import evaluate
from ree.kernels.scalar.functions import FUNCTIONS
from ree.kernels.schema import ALONG, FLAG, Attr, AttrKind
from ree.kernels.types import DType, TensorType


def _rule(node: Bound) -> IndexRule:
    """An output element reads its whole row, and its column of the weights."""
    dims = node.inputs[0].dims
    last = len(dims) - 1
    terms: list[tuple[int | None, int, int]] = [
        *((i, 1, 0) for i in range(last)),
        (len(dims), 1, 0),
    ]
    column: list[Access] = [
        access_by_dims(t.dims, len(dims) + 1, [(last, 1, 0)]) for t in node.inputs[1:]
    ]
    return IndexRule(dims, (access_by_dims(dims, len(dims) + 1, terms), *column), (dims[last],))


def _row(b: RowBuilder, node: Bound) -> tuple[RowLocal, Affine]:
    """The row of an output element, and the element's column."""
    dims = node.inputs[0].dims
    last = len(dims) - 1
    at = [b.digit(i) for i in range(len(dims))]
    return b.row(0, TensorType(DType.F32, dims[-1:]), dims, at, (last,)), b.digit(last)


def _rows(node: Bound) -> tuple[int, int]:
    dims = node.inputs[0].dims
    return prod(dims[:-1]), dims[-1]


def _shapes() -> list[tuple[int, ...]]:
    return [(3, 5), (2, 3, 64), (4, 65), (2, 384), (1, 1100), (2, 1), (0, 4), (1, 2500)]


# softmax


def _softmax_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    if len(types) != 1 or types[0].dtype is not DType.F32 or types[0].rank < 1:
        raise ValueError("softmax: expected one f32 source of rank 1 or more")
    x = types[0]
    if attrs["dim"] != x.rank - 1:
        raise ValueError(f"softmax: expected the last axis of {x}")
    return (x,)


def softmax(x: F32) -> F32:
    """exp(x - max) / sum over the last axis."""
    with np.errstate(all="ignore"):
        p = np.asarray(evaluate(FUNCTIONS["exp"], x - max_last(x)[..., None]), np.float32)
        return canonical_nan(p / tree_sum(p)[..., None])


def _softmax_row(node: Bound) -> RowProgram:
    b = RowBuilder(node.out.dims)
    x, column = _row(b, node)
    p = b.add("exp", b.add("sub", x, b.add("amax", x, dim=0, keepdim=True)))
    b.add("div", p, b.add("sum", p, dim=0, keepdim=True))
    return b.finish(column)


def _softmax_lower(ctx: Lowering) -> None:
    rows, n = _rows(ctx.node)
    ctx.emit("softmax", x=ctx.dense(0).slot, y=ctx.result().slot, rows=rows, n=n, x_row=n, y_row=n)


def _softmax_samples() -> Iterator[Sample]:
    for seed, shape in enumerate(_shapes()):
        for name, x in patterns(shape, seed):
            yield Sample(f"{shape}/{name}", (x,), {"dim": len(shape) - 1})


register(
    OpDef("softmax", 341, Form.COMPOSITE, "m = max; p = exp(x - m); p / sum(p)", _softmax_infer,
          lambda node: Cost(20 * node.out.numel, bytes_moved(node)), _softmax_samples,
          "4 ulp + sum bound", lambda inputs, node: (softmax(np.asarray(inputs[0], np.float32)),),
          _rule, lower=_softmax_lower, row_program=_softmax_row, schema=ALONG)
)  # fmt: skip


# layer_norm, rms_norm


def _norm_infer(options: tuple[str, ...]) -> Infer:
    def infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        want = 1 + sum(bool(attrs[o]) for o in options)
        if len(types) != want or types[0].dtype is not DType.F32 or types[0].rank < 1:
            raise ValueError(f"expected {want} f32 sources, the first of rank 1 or more")
        x = types[0]
        for t in types[1:]:
            if t != TensorType(DType.F32, x.shape[-1:]):
                raise ValueError(f"expected f32[{x.shape[-1]}], got {t}")
        return (x,)

    return infer


def _affine(y: F32, inputs: Sequence[Array], node: Bound) -> F32:
    rest = list(inputs[1:])
    if node.attrs["weight"]:
        y = y * np.asarray(rest.pop(0), np.float32)
    if node.attrs.get("bias"):
        y = y + np.asarray(rest.pop(0), np.float32)
    return canonical_nan(y)


def _layer_norm(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    x, n = np.asarray(inputs[0], np.float32), np.float32(node.inputs[0].dims[-1])
    with np.errstate(all="ignore"):
        d = x - (tree_sum(x) / n)[..., None]
        r = np.float32(1) / np.sqrt(tree_sum(d * d) / n + np.float32(node.f32_attr("eps")))
        return (_affine(d * r[..., None], inputs, node),)


def _rms_norm(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    x, n = np.asarray(inputs[0], np.float32), np.float32(node.inputs[0].dims[-1])
    with np.errstate(all="ignore"):
        r = np.float32(1) / np.sqrt(tree_sum(x * x) / n + np.float32(node.f32_attr("eps")))
        return (_affine(x * r[..., None], inputs, node),)


def _norm_row(centre: bool) -> Callable[[Bound], RowProgram]:
    def row_program(node: Bound) -> RowProgram:
        b = RowBuilder(node.out.dims)
        x, column = _row(b, node)
        n = b.constant(np.array(node.inputs[0].dims[-1], np.float32))
        eps = b.constant(np.array(node.f32_attr("eps"), np.float32))
        if centre:
            mean = b.add("div", b.add("sum", x, dim=0, keepdim=True), n)
            x = b.add("sub", x, mean)
        square = b.add("sum", b.add("mul", x, x), dim=0, keepdim=True)
        y = b.add("mul", x, b.add("rsqrt", b.add("add", b.add("div", square, n), eps)))
        operand = 1
        for option, op in (("weight", "mul"), ("bias", "add")):
            if node.attrs.get(option):
                dims = node.inputs[operand].dims
                w = b.row(operand, TensorType(DType.F32, dims), dims, [b.fixed()], (0,))
                y = b.add(op, y, w)
                operand += 1
        return b.finish(column)

    return row_program


def _norm_lower(kernel: str, options: tuple[str, ...]) -> Callable[[Lowering], None]:
    def lower(ctx: Lowering) -> None:
        rows, n = _rows(ctx.node)
        x, operand = ctx.dense(0).slot, 1
        given: dict[str, int | None] = dict.fromkeys(options)
        for option in options:
            if ctx.node.attrs[option]:
                given[option] = ctx.dense(operand).slot
                operand += 1
        ctx.emit(kernel, x=x, **given, y=ctx.result().slot, rows=rows, n=n, x_row=n, y_row=n,
                 eps=ctx.node.f32_attr("eps"))  # fmt: skip

    return lower


def _norm_samples(options: tuple[str, ...]) -> Callable[[], Iterator[Sample]]:
    def samples() -> Iterator[Sample]:
        for seed, shape in enumerate(_shapes()):
            rng = np.random.default_rng(seed)
            for k, (name, x) in enumerate(patterns(shape, seed)):
                flags = {o: bool((k + seed) >> i & 1) for i, o in enumerate(options)}
                extra = tuple(rng.standard_normal(shape[-1:], np.float32)
                              for o in options if flags[o])  # fmt: skip
                eps = float(np.float32((1e-5, 1e-12)[seed % 2]))
                yield Sample(f"{shape}/{name}", (x, *extra), {"eps": eps, **flags})

    return samples


register(
    OpDef("layer_norm", 342, Form.COMPOSITE,
          "mean = sum/n; d = x - mean; r = 1/sqrt(sum(d*d)/n + eps); d*r [* w] [+ b]",
          _norm_infer(("weight", "bias")), lambda node: Cost(8 * node.out.numel, bytes_moved(node)),
          _norm_samples(("weight", "bias")), "1e-5 * (|y| + 1) at unit variance", _layer_norm,
          _rule, lower=_norm_lower("layer_norm", ("weight", "bias")), row_program=_norm_row(True),
          schema={"bias": FLAG, "eps": Attr(AttrKind.F32), "weight": FLAG})
)  # fmt: skip
register(
    OpDef("rms_norm", 343, Form.COMPOSITE, "r = 1/sqrt(sum(x*x)/n + eps); (x*r) [* w]",
          _norm_infer(("weight",)), lambda node: Cost(5 * node.out.numel, bytes_moved(node)),
          _norm_samples(("weight",)), "6 ulp + sum bound", _rms_norm, _rule,
          lower=_norm_lower("rms_norm", ("weight",)), row_program=_norm_row(False),
          schema={"eps": Attr(AttrKind.F32), "weight": FLAG})
)  # fmt: skip
