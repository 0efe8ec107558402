"""Row kernels against NumPy references, byte for byte, for every ISA and several thread counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ree import _core
from ree.kernels.numerics import F32, canonical_nan, maximum, minimum, tree_sum
from ree.kernels.opdef import Attrs, apply
from ree.kernels.ops import norms, reductions  # noqa: F401  (registers the operators)
from ree.kernels.samples import patterns

from .calling import run_kernel

ISAS = _core.isa_names()
POOLS = {n: _core.Pool(n) for n in (1, 2, 7)}
Array = npt.NDArray[np.generic]
Where = tuple[str, int]
EPS = float(np.float32(1e-5))
AXES = [(2, 1, 3), (3, 5, 1), (2, 64, 2), (1, 65, 33), (1, 1024, 20), (2, 1025, 1), (1, 1100, 17),
        (1, 2500, 5), (3, 9, 700), (70, 40, 1), (1, 300, 600), (1, 1, 1)]  # fmt: skip
ROWS = [(3, 1), (70, 5), (4, 64), (5, 65), (2, 1024), (3, 1100), (2, 2500)]


@pytest.fixture(params=[(isa, n) for isa in ISAS for n in POOLS], ids=str)
def where(request: pytest.FixtureRequest) -> Where:
    value: Where = request.param
    return value


def call(where: Where, kernel: str, /, **arguments: Any) -> None:
    run_kernel(where[0], POOLS[where[1]], kernel, **arguments)


def halve(f: Callable[[F32, F32], F32], x: F32) -> F32:
    """An order-free reduction of the last axis."""
    while x.shape[-1] > 1:
        half = (x.shape[-1] + 1) // 2
        x = np.concatenate([f(x[..., : x.shape[-1] - half], x[..., half:]),
                            x[..., x.shape[-1] - half : half]], -1)  # fmt: skip
    return canonical_nan(x[..., 0])


def mean(x: F32) -> F32:
    with np.errstate(all="ignore"):
        return canonical_nan(tree_sum(x) / np.float32(x.shape[-1]))


# kernel, mode parameter, reference of the last axis; NumPy's argmax is the contract's: the first NaN,
# else the first of the greatest, equal zeros
Mode = dict[str, bool]
SUM, MEAN = {"mean": False}, {"mean": True}
REDUCTIONS: list[tuple[str, Mode, Callable[[F32], Array]]] = [
    ("sum", SUM, tree_sum),
    ("sum", MEAN, mean),
    ("amax", {}, lambda x: halve(maximum, x)),
    ("amin", {}, lambda x: halve(minimum, x)),
    ("argmax", {}, lambda x: np.argmax(x, -1).astype(np.int64)),
]


def reduce(where: Where, kernel: str, mode: Mode, x: F32, dtype: npt.DTypeLike) -> Array:
    """The kernel on [outer, n, inner] of any strides."""
    outer, n, inner = x.shape
    y: Array = np.full((outer, inner), 77, dtype)
    x_outer, x_n, x_inner = (s // 4 for s in x.strides)
    call(where, kernel, x=x, y=y, outer=outer, n=n, inner=inner, x_outer=x_outer, x_n=x_n,
         x_inner=x_inner, **mode)  # fmt: skip
    return y


def check_reductions(where: Where, x: F32, wanted: list[Array], about: object) -> None:
    for (kernel, mode, _), want in zip(REDUCTIONS, wanted, strict=True):
        got = reduce(where, kernel, mode, x, want.dtype)
        assert got.tobytes() == want.tobytes(), (kernel, mode, about)


def references(x: F32) -> list[Array]:
    return [np.ascontiguousarray(f(np.moveaxis(x, 1, -1))) for _, _, f in REDUCTIONS]


@cache
def axis_cases(shape: tuple[int, int, int]) -> list[tuple[str, F32, list[Array]]]:
    return [(name, x, references(x)) for name, x in patterns(shape, sum(shape))]


@pytest.mark.parametrize("shape", AXES, ids=str)
def test_reductions(where: Where, shape: tuple[int, int, int]) -> None:
    for name, x, wanted in axis_cases(shape):
        check_reductions(where, x, wanted, name)


@cache
def long_case(shape: tuple[int, int, int]) -> tuple[F32, list[Array]]:
    x = np.random.default_rng(5).standard_normal(shape, np.float32)
    x[:, -3:] += 1  # at the end, so that no block can be left out
    return x, references(x)


@pytest.mark.parametrize(
    "shape",
    [(1, (1 << 20) + 70, 1), (1, (1 << 20) + 1, 2), (3, 40_000, 1), (1, 3000, 300)],
    ids=str,
)
def test_long_axes(where: Where, shape: tuple[int, int, int]) -> None:
    """Sums of more than two levels; rows and columns that are cut into pieces."""
    check_reductions(where, *long_case(shape), shape)


@cache
def strided_cases() -> list[tuple[F32, list[Array]]]:
    base = next(x for name, x in patterns((9, 70, 130), 3) if name == "infinity")
    views = [base.transpose(order) for order in permutations(range(3))]
    views += [
        base[:, ::-1, ::2],
        base[::2, 3:60, 1:50],
        np.broadcast_to(base[:1, :, :1], (4, 70, 3)),
    ]
    return [(v, references(np.ascontiguousarray(v))) for v in views]


def test_reductions_of_strided_sources(where: Where) -> None:
    for i, (x, wanted) in enumerate(strided_cases()):
        check_reductions(where, x, wanted, i)


def test_reductions_of_nothing(where: Where) -> None:
    for shape in ((2, 0, 3), (2, 0, 1)):
        x = np.zeros(shape, np.float32)
        assert not reduce(where, "sum", SUM, x, np.float32).view(np.uint32).any()
        assert (reduce(where, "sum", MEAN, x, np.float32).view(np.uint32) == 0x7FC00000).all()
    for shape in ((0, 5, 3), (0, 5, 1), (2, 5, 0)):
        for kernel, mode, _ in REDUCTIONS:
            assert reduce(where, kernel, mode, np.zeros(shape, np.float32), np.int64).size == 0


def test_any_nan_gives_the_canonical_nan(where: Where) -> None:
    for bits in (0xFFC00000, 0x7FFFFFFF, 0x7F800001):
        for shape in ((2, 70, 1), (2, 70, 3)):
            x = np.ones(shape, np.float32)
            x[:, 66:67] = np.array(bits, np.uint32).view(np.float32)
            for kernel, mode, _ in REDUCTIONS[:4]:
                y = reduce(where, kernel, mode, x, np.float32)
                assert (y.view(np.uint32) == 0x7FC00000).all(), kernel
            assert (reduce(where, "argmax", {}, x, np.int64) == 66).all()


def test_a_sum_is_never_negative_zero(where: Where) -> None:
    for n in (1, 4, 16, 64, 256, 300, 1024, 1100):
        for inner in (1, 5):
            x = np.full((2, n, inner), -0.0, np.float32)
            assert not reduce(where, "sum", SUM, x, np.float32).view(np.uint32).any(), (n, inner)


def test_argmax_takes_the_lowest_index(where: Where) -> None:
    for inner in (1, 40):
        for first in (0, 15, 16, 77):
            for low, top in ((-1.0, 2.0), (0.0, np.inf), (-0.0, 0.0), (1.0, np.nan)):
                x = np.full((2, 90, inner), low, np.float32)
                x[:, first::3] = top
                got = reduce(where, "argmax", {}, x, np.int64)
                assert (got == (0 if top == 0 else first)).all()


# softmax and norms


def options(kernel: str, n: int) -> list[tuple[list[F32 | None], Attrs]]:
    """Operands after the first as the kernel takes them, and the operator's attributes."""
    w, b = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
    if kernel == "softmax":
        return [([], {"dim": 1})]
    if kernel == "rms_norm":
        return [([u], {"eps": EPS, "weight": u is not None}) for u in (w, None)]
    return [
        ([u, v], {"eps": EPS, "weight": u is not None, "bias": v is not None})
        for u, v in ((w, b), (w, None), (None, b), (None, None))
    ]


def run_rows(
    where: Where, kernel: str, x: F32, extra: list[F32 | None], y: F32 | None = None
) -> F32:
    y = np.full(x.shape, 77, np.float32) if y is None else y
    given = {} if kernel == "softmax" else {"eps": EPS}
    given |= zip(("weight", "bias"), extra, strict=False)
    rows, n = x.shape
    call(where, kernel, x=x, y=y, rows=rows, n=n, x_row=x.strides[0] // 4, y_row=y.strides[0] // 4,
         **given)  # fmt: skip
    return y


@cache
def row_cases(
    kernel: str, shape: tuple[int, int]
) -> list[tuple[str, F32, list[F32 | None], Array]]:
    return [
        (name, x, extra, apply(kernel, [x, *(e for e in extra if e is not None)], attrs)[0])
        for name, x in patterns(shape, sum(shape))
        for extra, attrs in options(kernel, shape[1])
    ]


@pytest.mark.parametrize("kernel", ["softmax", "layer_norm", "rms_norm"])
def test_rows(where: Where, kernel: str) -> None:
    for shape in ROWS:
        for name, x, extra, want in row_cases(kernel, shape):
            got = run_rows(where, kernel, x, extra)
            assert got.tobytes() == want.tobytes(), (shape, name)
            in_place = x.copy()
            run_rows(where, kernel, in_place, extra, in_place)
            assert in_place.tobytes() == want.tobytes(), (shape, name, "in place")
    for shape in ((0, 4), (4, 0)):
        assert (
            run_rows(where, kernel, np.zeros(shape, np.float32), options(kernel, 4)[0][0]).size == 0
        )


@pytest.mark.parametrize("kernel", ["softmax", "layer_norm", "rms_norm"])
def test_a_row_does_not_depend_on_its_batch(where: Where, kernel: str) -> None:
    for n in (7, 200, 1100):
        wide = np.random.default_rng(n).standard_normal((37, n + 9), np.float32)
        x, extra = wide[:, 3 : 3 + n], options(kernel, n)[0][0]
        out = np.full((37, n + 2), 77, np.float32)
        whole = run_rows(where, kernel, x, extra, out[:, :n])
        assert (out[:, n:] == 77).all()
        for r in range(37):
            one = run_rows((ISAS[-1], 1), kernel, x[r : r + 1], extra)
            assert one.tobytes() == whole[r].tobytes()


@cache
def spread() -> tuple[F32, Array]:
    """Logits whose exponentials reach from one through the subnormals to zero."""
    rng = np.random.default_rng(0)
    x = -rng.random((3000, 50), np.float32) * np.float32(106) ** rng.random((3000, 1), np.float32)
    x[::3, rng.integers(0, 50)] = 0
    x[5] = -np.inf
    x[6, 3:] = -np.inf
    x[7] = np.float32(3e38) * rng.uniform(-1, 1, 50)
    return x, apply("softmax", [x], {"dim": 1})[0]


def test_softmax_rounds_hard_quotients(where: Where) -> None:
    """1 / l so close to a rounding boundary that an uncorrected quotient is wrong."""
    x = np.zeros((64, 2), np.uint32)
    x[:, 1] = 0xB3C00000 + np.arange(64, dtype=np.uint32)
    rows = x.view(np.float32)
    want = apply("softmax", [rows], {"dim": 1})[0]
    assert run_rows(where, "softmax", rows, []).tobytes() == want.tobytes()


def test_softmax_divides_as_division_does(where: Where) -> None:
    x, want = spread()
    got = run_rows(where, "softmax", x, [])
    assert got.tobytes() == want.tobytes()
    assert (got.view(np.uint32)[5] == 0x7FC00000).all()
    subnormal = (got > 0) & (got < np.float32(2**-126))
    assert subnormal.any()
