"""The attention kernel against its NumPy reference, byte for byte, and against itself reshaped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pytest

from ree import _core
from ree.kernels.constants import BOOL_MASK, FLOAT_MASK, NO_MASK
from ree.kernels.numerics import F32
from ree.kernels.ops.attention_rule import attention

from .calling import run_kernel

ISAS = _core.isa_names()
POOLS = {n: _core.Pool(n) for n in (1, 2, 7)}
Mask = npt.NDArray[np.generic] | None


def strides(a: npt.NDArray[np.generic], n: int) -> list[int]:
    assert a.size == 0 or a.shape[-1] == 1 or a.strides[-1] == a.itemsize
    return [s // a.itemsize for s in a.strides[:n]]


def run(
    where: tuple[str, int],
    q: F32,
    k: F32,
    v: F32,
    mask: Mask = None,
    *,
    scale: float,
    causal: bool = False,
    window: int = 0,
    q_offset: int = 0,
    out: F32 | None = None,
) -> F32:
    """The kernel, on arrays of any strides with contiguous rows."""
    isa, threads = where
    batch, heads, queries, d = q.shape
    kv_heads, keys, dv = v.shape[1:]
    o = np.full((batch, heads, queries, dv), 7, np.float32) if out is None else out
    kind, mask_strides = NO_MASK, [0] * 4
    if mask is not None:
        kind = BOOL_MASK if mask.dtype == bool else FLOAT_MASK
        full = np.broadcast_to(mask, (batch, heads, queries, keys))
        mask_strides = [s // mask.itemsize for s in full.strides]
    run_kernel(isa, POOLS[threads], "attention", q=q, k=k, v=v, mask=mask, o=o, batch=batch, heads=heads,
               kv_heads=kv_heads, queries=queries, keys=keys, width=d, value_width=dv,
               scale=float(np.float32(scale)), causal=causal, q_offset=q_offset, window=window,
               mask_kind=kind, q_strides=strides(q, 3), k_strides=strides(k, 3),
               v_strides=strides(v, 3), mask_strides=mask_strides, o_strides=strides(o, 3))  # fmt: skip
    return o


@pytest.fixture(params=[(isa, n) for isa in ISAS for n in POOLS], ids=str)
def where(request: pytest.FixtureRequest) -> tuple[str, int]:
    value: tuple[str, int] = request.param
    return value


@dataclass(frozen=True)
class Case:
    batch: int = 1
    heads: int = 1
    kv_heads: int = 1
    queries: int = 5
    keys: int = 5
    d: int = 8
    dv: int = 8
    causal: bool = False
    q_offset: int = 0
    window: int = 0
    mask: str = ""
    values: str = "gaussian"
    scale: float = 0.3

    def inputs(self) -> tuple[F32, F32, F32, Mask]:
        rng = np.random.default_rng(crc32(repr(self).encode()))
        q = rng.standard_normal((self.batch, self.heads, self.queries, self.d), np.float32)
        k = rng.standard_normal((self.batch, self.kv_heads, self.keys, self.d), np.float32)
        v = rng.standard_normal((self.batch, self.kv_heads, self.keys, self.dv), np.float32)
        if self.values == "special":
            spread(v, rng, [np.inf, -np.inf, np.nan, 1e-45, -1e-45, -0.0, 3e38])
        elif self.values == "scores":  # Inf and NaN reach the scores
            spread(q, rng, [np.inf, np.nan])
            spread(k, rng, [-np.inf, 1e38])
        elif self.values == "wide":
            q *= np.exp2(rng.integers(-40, 8, q.shape)).astype(np.float32)
            v *= np.exp2(rng.integers(-140, 100, v.shape)).astype(np.float32)
        elif self.values == "steep":  # most p underflow, some to subnormals
            q *= np.float32(40)
        return q, k, v, self.make_mask(rng)

    def make_mask(self, rng: np.random.Generator) -> Mask:
        b, h, t, n = self.batch, self.heads, self.queries, self.keys
        valid = rng.random((b, 1, t, n)) < 0.6
        valid[:, :, t // 2 : t // 2 + 1] = False  # a row without a key
        valid[:, :, t // 3 : t // 3 + 1, 100:] = False
        if self.mask == "bool":
            return valid
        if self.mask == "bool-heads":
            return rng.random((b, h, t, n)) < 0.6
        if self.mask == "bool-same":  # rows agree
            return np.broadcast_to(valid[:, :, :1], (b, 1, t, n)).copy()
        if self.mask == "bool-keys":  # right padding
            lengths = rng.integers(1, n + 1, (b, 1, 1, 1))
            return np.arange(n) < lengths
        if self.mask == "bool-strided":
            return np.repeat(valid, 2, axis=3)[..., ::2]
        values = np.where(valid, rng.standard_normal(valid.shape), -np.inf).astype(np.float32)
        if self.mask == "float":
            return values
        if self.mask == "float-keys":
            return values[:, :, :1]
        if self.mask == "float-strided":
            return np.repeat(values, 2, axis=3)[..., ::2]
        return None

    def options(self) -> dict[str, Any]:
        return {"scale": self.scale, "causal": self.causal, "window": self.window,
                "q_offset": self.q_offset}  # fmt: skip


def spread(x: F32, rng: np.random.Generator, values: list[float]) -> None:
    for value in values:
        x[rng.random(x.shape) < 0.01] = value


def cases() -> Iterator[Case]:
    for n in (1, 5, 127, 128, 129, 300):
        yield Case(queries=n, keys=n, causal=True, d=8, dv=8)
        yield Case(queries=3, keys=n, d=64, dv=64)
        yield Case(queries=1, keys=n, causal=True, q_offset=n - 1, d=32, dv=32, heads=2)
    yield Case(queries=129, keys=129, causal=True, d=32, dv=32, heads=2, kv_heads=2, batch=2)
    yield Case(queries=9, keys=300, d=160, dv=160)
    yield Case(queries=50, keys=140, d=300, dv=17)
    yield Case(queries=50, keys=140, d=1, dv=1)
    yield Case(queries=49, keys=131, d=13, dv=40, heads=6, kv_heads=2, causal=True, q_offset=82)
    yield Case(queries=1, keys=260, d=16, dv=48, heads=8, kv_heads=2, causal=True, q_offset=259)
    for offset in (-3, 100, 171, 400):
        yield Case(queries=130, keys=300, causal=True, q_offset=offset)
    for window in (1, 7, 128, 200):
        yield Case(queries=300, keys=300, causal=True, window=window)
        yield Case(queries=60, keys=300, q_offset=150, window=window)
    yield Case(queries=60, keys=300, q_offset=600, window=20)
    for mask in ("bool", "bool-heads", "bool-same", "bool-keys", "bool-strided", "float",
                 "float-keys", "float-strided"):  # fmt: skip
        yield Case(queries=65, keys=200, heads=2, batch=2, mask=mask)
        yield Case(queries=65, keys=200, heads=4, kv_heads=2, causal=True, q_offset=90, mask=mask)
        yield Case(queries=1, keys=131, mask=mask, values="special")
    for values in ("special", "scores", "wide", "steep"):
        yield Case(queries=140, keys=140, causal=True, dv=40, values=values)
        yield Case(queries=30, keys=270, mask="bool", window=100, q_offset=200, values=values)
        yield Case(queries=30, keys=140, mask="float", values=values)
        yield Case(queries=1, keys=300, heads=2, mask="bool-keys", dv=32, values=values)
    yield Case(queries=40, keys=200, d=130, scale=-1.5, causal=True, q_offset=160)
    yield Case(queries=4, keys=0)
    yield Case(queries=0, keys=4)


CASES = list(cases())


@cache
def reference(case: Case) -> tuple[tuple[F32, F32, F32, Mask], F32]:
    inputs = case.inputs()
    return inputs, attention(*inputs, **case.options())


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{CASES.index(c)}")
def test_equals_the_reference(case: Case, where: tuple[str, int]) -> None:
    inputs, want = reference(case)
    got = run(where, *inputs, **case.options())
    different = np.flatnonzero(got.view(np.uint32) != want.view(np.uint32))
    assert got.tobytes() == want.tobytes(), (case, different[:5], different.size)


def test_cases_reach_what_they_are_for() -> None:
    """The special cases must produce NaN and Inf in some rows, and finite values in others."""
    for case in (c for c in CASES if c.values in ("special", "scores") and c.queries > 1):
        _, y = reference(case)
        finite = np.isfinite(y).mean()
        assert 0 < finite < 1, case
    masked = reference(Case(queries=65, keys=200, heads=2, batch=2, mask="bool"))[1]
    assert (masked[:, :, 32].view(np.uint32) == 0).all()


def test_inf_behind_the_mask_is_not_read(where: tuple[str, int]) -> None:
    case = Case(queries=20, keys=200, causal=True, q_offset=150, dv=40)
    q, k, v, _ = case.inputs()
    clean = run(where, q, k, v, **case.options())
    for bad in (np.inf, -np.inf, np.nan):
        k[:, :, 170:], v[:, :, 170:] = bad, bad
        assert run(where, q, k, v, **case.options()).tobytes() == clean.tobytes()
        seen = v.copy()
        seen[0, 0, 160, 3] = bad  # visible to queries 10 and later
        got = run(where, q, k, seen, **case.options())
        want = attention(q, k, seen, **case.options())
        assert got.tobytes() == want.tobytes()
        assert np.isfinite(got[:, :, :10]).all()
        assert not np.isfinite(got[:, :, 10:, 3]).any()


@pytest.mark.parametrize("window", [0, 50])
def test_decode_and_chunked_prefill_equal_the_whole_sequence(
    where: tuple[str, int], window: int
) -> None:
    case = Case(queries=300, keys=300, heads=4, kv_heads=2, d=32, dv=32, causal=True, window=window)
    q, k, v, _ = case.inputs()
    whole = run(where, q, k, v, **case.options())
    start = 0
    for step in (100, 28, 1, 90, 81):
        part = slice(start, start + step)
        options = replace(case, q_offset=start).options()
        got = run(where, q[:, :, part], k[:, :, : part.stop], v[:, :, : part.stop], **options)
        assert got.tobytes() == whole[:, :, part].tobytes()
        start += step
    # one position at a time; the cache is longer than what is valid
    for i in (0, 1, 126, 127, 128, 129, 255, 256, 299):
        options = replace(case, q_offset=i).options()
        got = run(where, q[:, :, i : i + 1], k, v, **options)
        assert got.tobytes() == whole[:, :, i : i + 1].tobytes()


def test_right_padded_batch_equals_each_row_alone(where: tuple[str, int]) -> None:
    lengths = [200, 129, 128, 1]
    case = Case(batch=4, heads=2, queries=200, keys=200, d=16, dv=16)
    q, k, v, _ = case.inputs()
    mask = np.arange(200) < np.array(lengths)[:, None, None, None]
    batch = run(where, q, k, v, mask, **case.options())
    for b, n in enumerate(lengths):
        part = (slice(b, b + 1), slice(None), slice(0, n))
        alone = run(where, q[part], k[part], v[part], **case.options())
        assert alone.tobytes() == batch[part].tobytes()


def test_interleaved_layout(where: tuple[str, int]) -> None:
    """Strides of [B, T, H, D] and of a fused qkv tensor give the same bits."""
    case = Case(batch=2, heads=3, kv_heads=3, queries=77, keys=77, d=20, dv=20, causal=True)
    q, k, v, _ = case.inputs()
    want = run(where, q, k, v, **case.options())
    qkv = np.stack([x.transpose(0, 2, 1, 3) for x in (q, k, v)], axis=2)
    parts = [qkv[:, :, i].transpose(0, 2, 1, 3) for i in range(3)]
    out = np.zeros((2, 77, 3, 20), np.float32).transpose(0, 2, 1, 3)
    got = run(where, *parts, **case.options(), out=out)
    assert np.ascontiguousarray(got).tobytes() == want.tobytes()


@pytest.mark.parametrize("how", ["one for all", "backwards", "every second"])
@pytest.mark.parametrize("rows", [1, 3, 5, 6, 9, 14, 20])
@pytest.mark.parametrize("operand", ["q", "k", "v"])
def test_operands_that_are_views(operand: str, rows: int, how: str, where: tuple[str, int]) -> None:
    """Of the axis of positions: a stride of 0, as `expand` gives, a negative one, and a wider one."""
    case = Case(1, 2, 1, rows, 129, 16, 32)
    given = dict(zip("qkv", case.inputs()[:3], strict=True))
    x = given[operand]
    if how == "one for all":
        given[operand] = np.broadcast_to(x[:, :, :1], x.shape)
    elif how == "backwards":
        given[operand] = x[:, :, ::-1]
    else:
        given[operand] = np.repeat(x, 2, axis=2)[:, :, ::2]
    got = run(where, *given.values(), **case.options())
    assert (
        got.tobytes()
        == run(where, *map(np.ascontiguousarray, given.values()), **case.options()).tobytes()
    )


def long_caches() -> Iterator[Case]:
    """One or few queries over caches of many segments, as decoding asks for them."""
    for values in ("gaussian", "special", "scores", "steep"):
        yield Case(2, 9, 3, 1, 1100, 24, 40, mask="bool-keys", values=values)
        yield Case(1, 4, 1, 2, 900, 16, 16, mask="bool-heads", values=values)
    yield Case(2, 8, 1, 1, 700, 256, 256, mask="bool")
    yield Case(1, 11, 11, 1, 1000, 8, 8, mask="bool-same")  # more heads than a group has
    yield Case(1, 20, 10, 3, 515, 16, 8, causal=True, q_offset=470, window=200)
    yield Case(2, 7, 1, 1, 600, 12, 20, mask="float")
    yield Case(2, 2, 2, 5, 300, 300, 17, mask="float-strided")
    yield Case(3, 2, 2, 4, 1300, 8, 8, mask="bool-strided", window=600, q_offset=900)


LONG = list(long_caches())


@pytest.mark.parametrize("side_by_side", [False, True])
@pytest.mark.parametrize("case", LONG, ids=lambda c: f"{LONG.index(c)}")
def test_few_queries_over_a_long_cache(
    case: Case, side_by_side: bool, where: tuple[str, int]
) -> None:
    """Threads share the segments; heads that lie side by side in memory are read together."""
    (q, k, v, mask), want = reference(case)
    if side_by_side:
        k, v = (np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (k, v))
    assert run(where, q, k, v, mask, **case.options()).tobytes() == want.tobytes()


def test_a_window_in_a_mask_and_slots_of_any_length(where: tuple[str, int]) -> None:
    """Whole segments are hidden in front, behind and between; true is any byte but 0."""
    case = Case(4, 6, 2, 1, 1500, 16, 16)
    q, k, v, _ = case.inputs()
    mask = np.zeros((4, 1, 1, 1500), bool)
    for slot, (first, end) in enumerate(((0, 1), (513, 1027), (1499, 1500), (0, 0))):
        mask[slot, ..., first:end] = True
    mask[0, ..., 1300:] = True
    mask[1, ..., 600:900] = False
    want = attention(q, k, v, mask, **case.options())
    hidden = ~mask.transpose(0, 1, 3, 2)
    k, v = (np.where(hidden, np.float32(np.nan), x) for x in (k, v))
    for true in (1, 2, 128):
        given = (mask.view(np.uint8) * true).astype(np.uint8).view(bool)
        assert run(where, q, k, v, given, **case.options()).tobytes() == want.tobytes()
    assert (want[3].view(np.uint32) == 0).all()
