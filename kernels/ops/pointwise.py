"""Pointwise operators: a scalar function of sources that broadcast.

An entry costs one line: everything else (shape rule, reference, index rule, code) follows from the
function and the dtypes it accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from ree.kernels.index import IndexRule, broadcast_access
from ree.kernels.opdef import (
    Array,
    Attrs,
    Bound,
    Cost,
    Form,
    OpDef,
    Sample,
    bytes_moved,
    get,
    register,
)
from ree.kernels.samples import SPECIAL, patterns
from ree.kernels.scalar import functions as fn
from ree.kernels.scalar import hyperbolic, rounding
from ree.kernels.scalar.emit_numpy import evaluate
from ree.kernels.scalar.language import (
    BOOL,
    F32,
    I64,
    Expr,
    Function,
    absolute,
    eq,
    fma,
    make,
    maximum,
    minimum,
    ne,
    param,
    rint,
    select,
    sqrt,
    walk,
)
from ree.kernels.scalar.pow import pow_
from ree.kernels.schema import NONE
from ree.kernels.types import DType, TensorType, broadcast_shapes

# what arithmetic is defined on; other types are storage, and cast (casts.py)
TYPES = {DType.F32: F32, DType.I64: I64, DType.BOOL: BOOL}
DTYPES = {t: d for d, t in TYPES.items()}

Build = Callable[..., Expr]
Signature = tuple[DType, ...]


def infer_with(signatures: Sequence[Signature], scalar: Callable[..., Function], name: str):  # type: ignore[no-untyped-def]
    """The shape rule of a pointwise operator."""

    def infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        dtypes = tuple(t.dtype for t in types)
        if dtypes not in signatures:
            raise ValueError(f"{name}: not defined on ({', '.join(d.text for d in dtypes)})")
        shape = broadcast_shapes(*(t.shape for t in types))
        return (TensorType(DTYPES[scalar(dtypes, attrs).result], shape),)

    return infer


def reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    """Any pointwise operator, through the NumPy form of its scalar function."""
    scalar = get(node.op).scalar
    assert scalar is not None
    y = evaluate(scalar([t.dtype for t in node.inputs], node.attrs), *inputs)
    return (np.ascontiguousarray(np.broadcast_to(y, node.out.dims)).reshape(node.out.dims),)


def index_rule(node: Bound) -> IndexRule:
    out = node.out.dims
    return IndexRule(out, tuple(broadcast_access(t.dims, out) for t in node.inputs))


def pointwise(name: str, opcode: int, signatures: Sequence[Signature], build: Build, rule: str,
              bound: str) -> None:  # fmt: skip
    """Register the operator whose function is build(*arguments)."""

    @lru_cache(maxsize=64)
    def make_function(dtypes: tuple[DType, ...]) -> Function:
        types = tuple(TYPES[d] for d in dtypes)
        return Function(name, types, build(*(param(i, t) for i, t in enumerate(types))))

    def scalar(dtypes: Sequence[DType], attrs: Attrs) -> Function:
        return make_function(tuple(dtypes))

    def cost(node: Bound) -> Cost:
        body = scalar([t.dtype for t in node.inputs], node.attrs).body
        flops = sum(1 for e in walk(body) if e.type is F32 and e.args and e.op != "select")
        return Cost(flops * node.out.numel, bytes_moved(node))

    register(
        OpDef(name, opcode, Form.POINTWISE, rule, infer_with(signatures, scalar, name), cost,
              lambda: _samples(signatures), bound, reference, index_rule, scalar, schema=NONE)
    )  # fmt: skip


def _samples(signatures: Sequence[Signature]) -> Iterator[Sample]:
    for dtypes in signatures:
        n = len(dtypes)
        text = ",".join(d.text for d in dtypes)
        if all(d is DType.F32 for d in dtypes):
            for name, x in patterns((3, 37), 11):
                rest = [next(iter(patterns((3, 37), 12 + i)))[1] for i in range(n - 1)]
                yield Sample(f"{text}/{name}", (x, *rest))
            pairs = np.array(list(product(SPECIAL, repeat=min(n, 2))), np.float32)
            columns = [np.ascontiguousarray(pairs[:, min(i, pairs.shape[1] - 1)]) for i in range(n)]
            yield Sample(f"{text}/special", tuple(columns))
        shapes = [((2, 1, 5), (4, 1), (5,)), ((0, 3), (1, 3), (3,)), ((), (7,), (1,)),
                  ((130, 3), (130, 1), ()), ((1000,), (1000,), (1000,))]  # fmt: skip
        for k, shape in enumerate(shapes):
            arrays = tuple(random_array(d, s, 31 * k + i)
                           for i, (d, s) in enumerate(zip(dtypes, shape, strict=False)))  # fmt: skip
            yield Sample(f"{text}/broadcast{k}", arrays)


def random_array(d: DType, shape: tuple[int, ...], seed: int) -> Array:
    rng = np.random.default_rng(seed)
    if d is DType.F32:
        return rng.standard_normal(shape, np.float32)
    if d is DType.BOOL:
        return np.asarray(rng.random(shape) < 0.5)
    edge = np.array([0, 1, -1, 2**62, -(2**63), 2**24 + 1, 2**53 + 1, 7])
    return np.asarray(rng.choice(edge, shape), np.int64)


def _op(name: str) -> Build:
    return lambda *args: make(name, *args)


FLOAT1: list[Signature] = [(DType.F32,)]
FLOAT2: list[Signature] = [(DType.F32, DType.F32)]
NUMBER1: list[Signature] = [(DType.F32,), (DType.I64,)]
NUMBER2: list[Signature] = [(DType.F32, DType.F32), (DType.I64, DType.I64)]
ANY2: list[Signature] = [*NUMBER2, (DType.BOOL, DType.BOOL)]
LONG2: list[Signature] = [(DType.I64, DType.I64)]
BOOL2: list[Signature] = [(DType.BOOL, DType.BOOL)]
HALF = "0.5 ulp"
# bounds of compositions, by their parts
COMPOSED = {
    "silu": "3.5 ulp",
    "gelu": "8 * 2^-24 * |x|",
    "gelu_tanh": "8 * 2^-24 * |x|",
    "relu": "exact",
    "lgamma": "4 ulp above -1/2, below 4 * 2^-24 * (1 + abs(y) + abs(lgamma(-x)))",
    "digamma": "5 ulp for positive x, else 5 * 2^-24 * (1 + abs(y) + abs(digamma(1 - x)))",
}

pointwise("add", 1, NUMBER2, _op("add"), "a + b", HALF)
pointwise("sub", 2, NUMBER2, _op("sub"), "a - b", HALF)
pointwise("mul", 3, NUMBER2, _op("mul"), "a * b", HALF)
pointwise("div", 4, FLOAT2, _op("div"), "a / b", HALF)
pointwise("fma", 5, [(DType.F32,) * 3], fma, "a * b + c, rounded once", HALF)
pointwise("neg", 6, NUMBER1, _op("neg"), "sign flipped", "exact")
pointwise("abs", 7, NUMBER1, absolute, "sign cleared", "exact")
pointwise("sqrt", 8, FLOAT1, sqrt, "square root", HALF)
pointwise("minimum", 9, NUMBER2, minimum, "NaN if either is; -0 < +0", "exact")
pointwise("maximum", 10, NUMBER2, maximum, "NaN if either is; -0 < +0", "exact")
pointwise("round", 11, FLOAT1, rint, "to an integral value, half to even", "exact")
pointwise("floor", 12, FLOAT1, rounding.floor, "greatest integral value not above", "exact")
pointwise("ceil", 13, FLOAT1, rounding.ceil, "least integral value not below", "exact")
pointwise("trunc", 14, FLOAT1, rounding.trunc, "integral part", "exact")
pointwise("sign", 15, NUMBER1, rounding.sign, "-1, 0 or 1; 0 for NaN", "exact")
pointwise("floor_divide", 16, NUMBER2, rounding.floor_divide,
          "the integer next to (a - remainder) / b; integers: 0 if b is 0",
          "1.0 ulp")  # fmt: skip
pointwise(
    "remainder",
    17,
    NUMBER2,
    rounding.remainder,
    "the exact remainder of magnitudes, plus b if of the other sign; integers: 0 if b is 0",
    "0.5 ulp",
)
pointwise("pow", 19, FLOAT2, pow_, "the float32 program pow", "1.0 ulp")
pointwise("eq", 20, ANY2, eq, "a == b", "exact")
pointwise("ne", 21, ANY2, ne, "a != b; true when unordered", "exact")
pointwise("lt", 22, NUMBER2, _op("lt"), "a < b", "exact")
pointwise("le", 23, NUMBER2, _op("le"), "a <= b", "exact")
pointwise("gt", 24, NUMBER2, lambda a, b: b < a, "a > b", "exact")
pointwise("ge", 25, NUMBER2, lambda a, b: b <= a, "a >= b", "exact")
pointwise("logical_and", 30, BOOL2, _op("and"), "a and b", "exact")
pointwise("logical_or", 31, BOOL2, _op("or"), "a or b", "exact")
pointwise("logical_xor", 32, BOOL2, _op("xor"), "a xor b", "exact")
pointwise("logical_not", 33, [(DType.BOOL,)], _op("not"), "not a", "exact")
pointwise("bitwise_and", 35, LONG2, _op("and"), "a and b, bit by bit", "exact")
pointwise("bitwise_or", 36, LONG2, _op("or"), "a or b, bit by bit", "exact")
pointwise("bitwise_xor", 37, LONG2, _op("xor"), "a xor b, bit by bit", "exact")
pointwise("bitwise_not", 38, [(DType.I64,)], _op("not"), "not a, bit by bit", "exact")
pointwise("where", 34, [(DType.BOOL, d, d) for d in TYPES], select, "c ? a : b", "exact")
pointwise(
    "bitwise_left_shift",
    100,
    LONG2,
    hyperbolic.shift_left,
    "a << b; 0 for b outside [0, 63]",
    "exact",
)
pointwise("bitwise_right_shift", 101, LONG2, hyperbolic.shift_right, "a >> b, by 63 for b outside [0, 63]",
          "exact")  # fmt: skip
pointwise(
    "atan2", 102, FLOAT2, hyperbolic.atan2, "angle of the point (b, a)", "2.0 ulp, on samples"
)
pointwise("hypot", 103, FLOAT2, hyperbolic.hypot, "sqrt(a^2 + b^2)", "1.5 ulp, on samples")
pointwise(
    "copysign",
    104,
    FLOAT2,
    hyperbolic.copysign,
    "|a| with the sign of b; a NaN counts as positive",
    "exact",
)

for _f, _code in [
    (fn.exp, 50), (fn.log, 51), (fn.tanh, 52), (fn.erf, 53), (fn.sin, 54), (fn.cos, 55),
    (fn.rsqrt, 56), (fn.sigmoid, 57), (fn.silu, 58), (fn.gelu, 59), (fn.gelu_tanh, 60),
    (fn.relu, 61), (fn.exp2, 62), (fn.expm1, 63), (fn.log2, 64), (fn.log1p, 65), (fn.softplus, 66),
    (fn.tan, 90), (fn.asin, 91), (fn.acos, 92), (fn.atan, 93), (fn.sinh, 94), (fn.cosh, 95), (fn.asinh, 96),
    (fn.acosh, 97), (fn.atanh, 98), (fn.erfc, 99),
    (fn.erfinv, 106), (fn.lgamma, 107), (fn.digamma, 108),
]:  # fmt: skip
    _bound = COMPOSED[_f.name] if _f.name in COMPOSED else f"{fn.BOUNDS[_f.name]} ulp"
    pointwise(_f.name, _code, FLOAT1, _f, f"the float32 program {_f.name}", _bound)
