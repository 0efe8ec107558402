"""The kernel `sample` against the operators that it stands for, and against Python's integers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ree import _core
from ree.compiler.passes.expansion import expand
from ree.compiler.plan.planner import plan
from ree.conformance import graph_of, program_of
from ree.errors import InputError
from ree.kernels import macro
from ree.kernels.opdef import Sample
from ree.kernels.ops.sampling import PARAMETERS, parameters
from ree.kernels.scalar.emit_numpy import evaluate
from ree.kernels.scalar.functions import FUNCTIONS
from ree.kernels.testing import draws, word
from ree.runtime.sampler import Sampler

ISAS = _core.isa_names()
Array = npt.NDArray[Any]
Row = dict[str, float]
NEAR_ONE = 6_765_174  # at this position seed 1 draws 1 - 1.3e-7


def columns(rows: list[Row]) -> list[Array]:
    """Parameters of rows that say what differs from a plain draw; each at a position of its own."""
    ready: Row = {
        "temperature": 1.0,
        "top_p": 1.0,
        "min_p": 0.0,
        "top_k": 0,
        "seed": 9,
        "choice": 0,
    }
    full = [ready | {"position": i} | r for i, r in enumerate(rows)]
    return [np.array([r[name] for r in full], t.numpy) for name, t in PARAMETERS.items()]


def tokens(isa: str, threads: int, logits: Array, given: list[Array]) -> Array:
    sampler = Sampler(len(logits), logits.shape[1], threads=threads, isa=isa)
    return sampler(logits, *given)


def written_out(logits: Array, given: list[Array]) -> Array:
    """By the expansion, with ordinary kernels."""
    program = program_of(graph_of("sample", Sample("", (logits, *given))))
    result: Array = program.run(logits, *given, trace="ops", threads=1).outputs[0]
    return result


def check(logits: Array, given: list[Array], about: object = "") -> Array:
    with np.errstate(over="ignore"):
        logits = logits.astype(np.float32)
    want = written_out(logits, given)
    for isa in ISAS:
        assert np.array_equal(tokens(isa, 1, logits, given), want), (isa, about)
    return want


def test_an_untraced_run_calls_it_and_a_traced_one_does_not() -> None:
    sample = next(iter(macro.get("sample").samples()))  # type: ignore[union-attr]
    g = graph_of("sample", sample)

    def kernels(kept: frozenset[str]) -> list[str]:
        return [c.kernel for c in plan(expand(g, kept), panel=16).calls]

    assert kernels(macro.with_kernels()) == ["sample"]
    assert "sample" not in kernels(frozenset())
    program = program_of(g)
    program.run(*sample.inputs)
    program.run(*sample.inputs, trace="ops")
    program.run(*sample.inputs, trace="io")
    calls = [[c.kernel for c in e.recipe.calls] for e in program.cpu.executables.values()]
    assert sorted(c == ["sample"] for c in calls) == [False, True]


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_samples(threads: int) -> None:
    for sample in macro.get("sample").samples():  # type: ignore[union-attr]
        logits, *given = sample.inputs
        want = draws(logits, *given)
        for isa in ISAS:
            assert np.array_equal(tokens(isa, threads, logits, given), want), (sample.name, isa)


def test_sizes_about_vectors_strips_and_blocks() -> None:
    rng = np.random.default_rng(0)
    sizes = (
        1,
        3,
        4,
        5,
        15,
        16,
        17,
        63,
        64,
        65,
        255,
        257,
        511,
        512,
        513,
        1023,
        1024,
        1025,
        2047,
        2049,
        4103,
    )
    for v in sizes:
        rows = [{}, {"top_p": 0.7}, {"min_p": 0.1}, {"top_k": 2}, {"top_k": 2, "top_p": 0.6},
                {"top_k": v // 256}, {"top_k": v // 256 + 1}, {"top_k": v // 2, "top_p": 0.9},
                {"top_k": v - 1}, {"top_k": v}, {"top_p": 1 - 2**-24}, {"top_p": 2**-24}]  # fmt: skip
        for scale in (0.01, 3.0, 30.0):
            check(rng.standard_normal((len(rows), v)) * scale, columns(rows), (v, scale))


def many_rows() -> Iterator[tuple[str, Array]]:
    """Kinds of rows, of 24 each."""
    rng = np.random.default_rng(1)
    for v in (40, 700, 3000):
        x = rng.standard_normal((24, v)) * rng.choice([0.01, 1, 4, 15], (24, 1))
        yield "plain", x
        yield "some ties", np.round(x)
        yield "many ties", np.round(x / 8)
        yield "zeros of both signs", np.where(rng.random(x.shape) < 0.5, 0.0, -0.0)
        yield "all equal", np.full(x.shape, 3.25)
        yield "one above the rest", np.where(np.arange(v) == v // 2, 20.0, np.minimum(x, 19.0))
        yield "masked", np.where(rng.random(x.shape) < 0.9, -np.inf, x)
        yield "one left", np.where(np.arange(v) == v - 1, x, -np.inf)
        yield "none left", np.full(x.shape, -np.inf)
        yield "wide", x * 1e37
        yield "subnormal", x * 1e-41
        yield "falling", -np.arange(v) * np.ones((24, 1)) * 28 / v
        yield "rising", np.arange(v) * np.ones((24, 1)) * 30 / v
        yield "neighbours", 1 + rng.integers(0, 9, x.shape) * 2.0**-23
        some = x.copy()
        some[rng.random(x.shape) < 1 / v] = np.nan
        yield "NaN", some
        some = x.copy()
        some[rng.random(x.shape) < 1 / v] = np.inf
        yield "+inf", some


def test_kinds_of_rows() -> None:
    rng = np.random.default_rng(2)
    for i, (kind, x) in enumerate(many_rows()):
        check(x, list(parameters(rng, len(x), i)), (kind, "settings"))
        rows: list[Row] = [
            {"temperature": float(rng.choice([0.3, 1.0, 1.7, 1e-3, 1e3, 1e-40, np.inf])),
             "top_p": float(rng.choice([1.0, rng.random(), 1 - rng.random() / 1000])),
             "min_p": float(rng.choice([0.0, rng.random() ** 4])),
             "top_k": int(rng.choice([0, rng.integers(1, 12), rng.integers(1, x.shape[1] + 2)]))}
            for _ in x
        ]  # fmt: skip
        check(x, columns(rows), (kind, "drawn settings"))


def test_ties_at_a_cut_go_to_the_lower_ids() -> None:
    """A cut among equal tokens that lie in several blocks, and then only those before it."""
    v = 5000
    for k in (1, 2, 19, 20, 1023, 1024, 1025, 2500, 4999):
        for logits in (np.zeros(v), np.where(np.arange(v) % 3 == 1, 2.0, 1.0)):
            rows: list[Row] = [{"top_k": k, "seed": s} for s in range(30)]
            rows += [{"top_p": k / v, "seed": s} for s in range(30)]
            check(np.tile(logits, (len(rows), 1)), columns(rows), k)


def test_sums_that_are_the_limit() -> None:
    """Tokens of weight 2^40, so many that what ranks before the next is the limit; and an e that is min_p."""
    rows: list[Row] = [{"top_k": k, "top_p": p, "min_p": m, "seed": s} for s in range(8)
                       for k in (0, 4, 16) for p in (1.0, 0.5, 0.25) for m in (0.0, 1.0)]  # fmt: skip
    for v in (16, 4096, 5000):
        for logits in (np.zeros(v), np.where(np.arange(v) < v - 16, -1.0, 0.0)):
            check(np.tile(logits, (len(rows), 1)), columns(rows), v)


def test_a_target_that_is_a_running_sum() -> None:
    """Then the token is the next one: in its block of 1024, in a later one, and of few that top-k leaves."""
    drawn: Row = {"seed": 1, "position": NEAR_ONE}
    random, one = word(1, NEAR_ONE, 0, 0) << 24 | word(1, NEAR_ONE, 0, 1), 1 << 40
    rest = next(g for g in range(140_000, 150_000) if (one + g) * random >> 48 == one)
    some = np.linspace(-15.87, -15.84, 200_000).astype(np.float32)
    weights = (evaluate(FUNCTIONS["exp"], some).astype(np.float64) * one).astype(np.int64)
    last = some[np.flatnonzero(weights == rest)[0]]
    for at in (1, 700, 1023, 1024, 1999):
        x = np.full((2, 2000), -np.inf)
        x[:, 0], x[:, at] = 0, last
        assert check(x, columns([drawn, drawn | {"top_k": 2}])).tolist() == [at, at]


def test_a_nucleus_that_ends_far_below_the_best() -> None:
    """Among tokens of 2^(1.5 - s) of it, where the tail that top-p leaves out is as much as all of 2^-s."""
    n, rng = 1001, np.random.default_rng(6)
    for s in (12, 13, 14, 16):
        x = np.log(2) * (1.5 - s) + rng.uniform(-0.05, 0.05, (400, n))
        x[:, 500] = 0
        total = 1 + 2 ** (1.5 - s) * n
        check(x, columns([{"top_p": 1 - 1.02 * n * 2**-s / total}] * len(x)), s)


def test_the_last_bit() -> None:
    """As in tests/kernels/test_sampling.py: a draw that falls among tokens of weights 0 to 9."""
    rng = np.random.default_rng(8)
    rows: list[Row] = [{"top_p": p, "top_k": k} for p in (1.0, 1 - 2**-24, 1 - 3 * 2**-24)
                       for k in (0, 700, 150_000)]  # fmt: skip
    rows = [r | {"seed": 1, "position": NEAR_ONE} for r in rows]
    tail = rng.uniform(-28.3, -25.4, (len(rows), 200_000))
    head = np.tile([0, -11.17], (len(rows), 1))
    assert (check(np.concatenate([head, tail], 1), columns(rows)) > 1000).sum() == 6


def test_a_large_vocabulary() -> None:
    rng = np.random.default_rng(3)
    rows: list[Row] = [{}, {"top_p": 0.9}, {"top_k": 50, "top_p": 0.9}, {"top_k": 1025}, {"min_p": 0.02},
                       {"top_k": 100_000, "top_p": 0.99}]  # fmt: skip
    for scale in (1.0, 4.0):
        x = rng.standard_normal((len(rows), 262_144)) * scale
        check(x, columns(rows), scale)
        check(np.round(x), columns(rows), scale)


def test_a_thread_that_flushes_subnormals_draws_the_same() -> None:
    """What is drawn among subnormal logits at a subnormal temperature is seen."""
    torch = pytest.importorskip("torch")
    x = (np.random.default_rng(4).standard_normal((50, 64)) * 1e-42).astype(np.float32)
    given = columns([{"temperature": 1e-42}] * 50)
    want = check(x, given)
    assert len(set(want.tolist())) > 20
    assert torch.set_flush_denormal(True)
    try:
        for isa in ISAS:
            assert np.array_equal(tokens(isa, 1, x, given), want)
    finally:
        torch.set_flush_denormal(False)


# the class


def test_fewer_rows_than_a_sampler_takes() -> None:
    given = columns([{}] * 5)
    x = np.random.default_rng(5).standard_normal((5, 33)).astype(np.float32)
    sampler = Sampler(8, 33)
    want = draws(x, *given)
    for n in (5, 0, 3, 5):
        have = sampler(x[:n], **{k: c[:n] for k, c in zip(PARAMETERS, given, strict=True)})
        assert have.dtype == np.int64
        assert np.array_equal(have, want[:n])
    turned = np.asfortranarray(x)
    assert np.array_equal(sampler(turned, **dict(zip(PARAMETERS, given, strict=True))), want)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"logits": np.zeros((2, 4), np.float32)}, r"logits: expected float32 \[2, 5\], got float32 \[2, 4\]"),
        ({"logits": np.zeros((2, 5))}, "got float64"),
        ({"logits": np.zeros(5, np.float32)}, "logits: expected"),
        ({"logits": [1.0]}, r"expected float32 \[rows, 5\], got list"),
        ({"logits": np.zeros((4, 5), np.float32)}, "expected 3 rows at most, got 4"),
        ({"seed": np.zeros(3, np.int64)}, r"seed: expected int64 \[2\], got int64 \[3\]"),
        ({"top_k": np.zeros(2, np.int32)}, "top_k: expected int64"),
        ({"top_p": 1.0}, "top_p: expected float32 .* got float"),
    ],
)  # fmt: skip
def test_what_is_refused(wrong: dict[str, Any], why: str) -> None:
    given = {
        "logits": np.zeros((2, 5), np.float32),
        **dict(zip(PARAMETERS, columns([{}] * 2), strict=True)),
    }
    given |= wrong
    with pytest.raises(InputError, match=why):
        Sampler(3, 5)(given.pop("logits"), **given)


@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 0), (-1, 5), (1, 2**22 + 1)])
def test_sizes_that_are_refused(rows: int, vocabulary: int) -> None:
    with pytest.raises(InputError, match="expected rows of 1 to 4,194,304 tokens"):
        Sampler(rows, vocabulary)
