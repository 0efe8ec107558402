"""The macro `sample`: one rule, by Python's integers, the interpreter and compiled code."""

import hashlib

import numpy as np
import pytest

from ree import _core
from ree.compiler import interp
from ree.compiler.ir import Builder, Symbol
from ree.compiler.passes.expansion import expand
from ree.conformance import graph_of, program_of
from ree.errors import InputError
from ree.kernels import macro
from ree.kernels.opdef import Sample
from ree.kernels.ops.sampling import MOST_TOKENS, PARAMETERS, SETTINGS, parameters
from ree.kernels.testing import draws, philox, word
from ree.kernels.types import DType, TensorType, symbol

GOLDEN = "1a4e455cea4b0628bd351fc4e3811f87d89d4c06575a5d5df79de2dac7be09cf"


def call(vocabulary=8, **given):
    """A row with one parameter or more of its own."""
    ready = {
        "temperature": 1.0,
        "top_p": 1.0,
        "min_p": 0.0,
        "top_k": 0,
        "seed": 1,
        "position": 0,
        "choice": 0,
    }
    values = (ready | given).values()
    return [np.array([v], t.numpy) for v, t in zip(values, PARAMETERS.values(), strict=True)]


@pytest.fixture(scope="module")
def program():
    """The operator over open rows and an open vocabulary."""
    b = Builder()
    b.symbols = [Symbol("r", 0, 1 << 20), Symbol("v", 1, MOST_TOKENS)]
    sources = [b.input(TensorType(DType.F32, (symbol("r"), symbol("v"))))]
    sources += [b.input(TensorType(t, (symbol("r"),))) for t in PARAMETERS.values()]
    return program_of(b.finish((b.add("sample", *sources),)))


def tokens(program, *inputs, **how):
    """By the kernel, and by the operators that it stands for: the same."""
    drawn = program.run(*inputs, threads=1, **how).outputs[0]
    assert np.array_equal(program.run(*inputs, threads=1, trace="ops", **how).outputs[0], drawn)
    return drawn


def cases():
    """Some thousand rows."""
    rng = np.random.default_rng(0)
    for vocabulary, rows, kind in [
        (1, 36, "normal"), (2, 90, "ties"), (7, 720, "normal"), (64, 720, "ties"), (65, 720, "masked"),
        (300, 360, "normal"), (1000, 90, "wide"), (129, 360, "infinite"), (33, 180, "subnormal"),
        (4097, 18, "normal"),
    ]:  # fmt: skip
        x = rng.standard_normal((rows, vocabulary)) * rng.choice([0.1, 3, 20], (rows, 1))
        if kind == "ties":
            x = np.round(x)
        elif kind == "masked":
            x[rng.random(x.shape) < rng.random((rows, 1))] = -np.inf
        elif kind == "wide":
            x = x * 1e36
        elif kind == "subnormal":
            x = x * 1e-41
        elif kind == "infinite":
            x[rng.random(x.shape) < 0.01] = np.inf
            x[rng.random(x.shape) < 0.003] = np.nan
            x[::7] = -np.inf
        yield kind, x.astype(np.float32), parameters(rng, rows, vocabulary)


def test_thousands_of_rows(program):
    rows, h = 0, hashlib.sha256()
    for kind, x, given in cases():
        want = draws(x, *given)
        g = expand(graph_of("sample", Sample(kind, (x, *given))))
        assert np.array_equal(interp.outputs(g, [x, *given], ())[0], want), kind
        for isa in _core.isa_names():
            assert np.array_equal(tokens(program, x, *given, isa=isa), want), (kind, isa)
        h.update(want.tobytes())
        rows += len(x)
    assert rows > 3000
    assert h.hexdigest() == GOLDEN


def test_the_samples_are_those_of_the_rule():
    for s in macro.get("sample").samples():
        (have,) = interp.outputs(expand(graph_of("sample", s)), s.inputs, ())
        assert np.array_equal(have, draws(*s.inputs)), s.name


def chi_square(found, expected):
    """(statistic, degrees of freedom)."""
    return ((found - expected) ** 2 / expected).sum(), len(found) - 1


@pytest.mark.parametrize(
    ("vocabulary", "given"),
    [
        (16, {}),
        (16, {"temperature": 0.6}),
        (16, {"top_k": 9}),
        (16, {"top_p": 0.8}),
        (16, {"min_p": 0.1}),
        (49_152, {}),
    ],
)
def test_the_distribution(program, vocabulary, given):
    """Frequencies are those of float64's softmax, over positions, seeds and choices alike."""
    count, each = (18_000, 3000) if vocabulary == 16 else (6000, 50)
    x = np.random.default_rng(1).standard_normal(vocabulary).astype(np.float32)
    found = []
    for start in range(0, count, each):
        ones = [np.repeat(v, each) for v in call(**given)]
        i = np.arange(start, start + each)
        ones[4], ones[5], ones[6] = i % 10 - 5, i // 10 % 100, i // 1000
        found.append(program.run(np.tile(x, (each, 1)), *ones, threads=1).outputs[0])
    p = np.exp(x.astype(np.float64) / given.get("temperature", 1.0))
    order = np.argsort(-p)
    p[order[given.get("top_k", vocabulary) :]] = 0
    p[p < given.get("min_p", 0) * p.max()] = 0
    p /= p.sum()
    p[order[np.cumsum(p[order]) - p[order] >= given.get("top_p", 1.0)]] = 0
    p /= p.sum()
    counts = np.bincount(np.concatenate(found), minlength=vocabulary)
    assert not counts[p == 0].any()
    if vocabulary > 16:  # ids in groups of like probability
        groups = np.minimum(np.cumsum(p) * 30, 29.999).astype(int)
        counts, p = np.bincount(groups, counts), np.bincount(groups, p)
    statistic, freedom = chi_square(counts[p > 0], count * p[p > 0])
    assert statistic < freedom + 3.5 * (2 * freedom) ** 0.5
    assert (
        chi_square(counts[p > 0], count * np.roll(p[p > 0], 1))[0] > 10 * freedom or vocabulary > 16
    )


def test_it_depends_on_the_row_alone(program):
    """Not on its company, nor on what stands behind the vocabulary and is masked."""
    _, x, given = next(c for c in cases() if c[0] == "masked")
    all_rows = tokens(program, x, *given)
    for r in (0, 5, 77, 300):
        assert tokens(program, x[r : r + 1], *(v[r : r + 1] for v in given)) == all_rows[r]
    wider = np.concatenate([x, np.full((len(x), 63), -np.inf, np.float32)], 1)
    assert np.array_equal(tokens(program, wider, *given), all_rows)


@pytest.mark.parametrize("of", ["seed", "position", "choice"])
def test_each_of_them_draws_anew(program, of):
    rows = np.zeros((64, 1000), np.float32)
    ones = [np.repeat(v, 64) for v in call()]
    assert len(set(tokens(program, rows, *ones))) == 1
    ones[list(PARAMETERS).index(of)] = np.arange(64)
    assert len(set(tokens(program, rows, *ones))) > 55


def test_words_by_the_vectors_of_random123():
    """philox4x32-10 of zeros, and the site that is fixed."""
    assert philox([0, 0, 0, 0], [0, 0]) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert word(7, 2**32 + 5, 3, 1) == word(7, 5, 3, 1) != word(7, 5, 2, 1)


EQUAL = [np.float32(1.9999998), np.float32(1.9999999)]  # over 1.9, that is
BORDERS = [
    # what, logits, parameters, tokens that may come
    ("greedy", [1, 3, 3, 2], {"temperature": 0.0}, {1}),
    ("greedy, minus zero first", [-0.0, 0.0], {"temperature": 0.0}, {0}),
    ("minus zero temperature", [1, 3, 3, 2], {"temperature": -0.0}, {1}),
    ("negative temperature", [1, 3, 3, 2], {"temperature": -2.0}, {1}),
    ("NaN temperature", [1, 3, 3, 2], {"temperature": np.nan}, {1}),
    ("infinite temperature", [1, 3, 3, 2], {"temperature": np.inf}, {0, 1, 2, 3}),
    ("infinite temperature, masked", [-np.inf, 3, 4, 2], {"temperature": np.inf}, {2}),
    ("tiny temperature", [1, 3, 3, 2], {"temperature": 1e-6}, {1, 2}),
    ("subnormal temperature, overflow", [1, 3, 3, 2], {"temperature": 1e-45}, {1}),
    ("subnormal temperature, below", [-1, -3], {"temperature": 1e-45}, {0}),
    ("subnormal temperature, zero", [-1, 0, 0], {"temperature": 1e-45}, {1, 2}),
    ("huge temperature", [1, 3, 3, 2], {"temperature": 1e6}, {0, 1, 2, 3}),
    ("all masked", [-np.inf] * 3, {}, {0}),
    ("+inf", [0, np.inf, np.inf], {}, {1}),
    ("NaN", [0, np.inf, np.nan, np.nan], {}, {2}),
    ("one kept", [5, 1, 9], {"top_k": 1}, {2}),
    ("one kept of ties", [5, 9, 9], {"top_k": 1}, {1}),
    ("k beyond", [0, 0, 0], {"top_k": 2**62}, {0, 1, 2}),
    ("k negative", [0, 0, 0], {"top_k": -1}, {0, 1, 2}),
    ("p of 0", [5, 1, 9], {"top_p": 0.0}, {2}),
    ("p below 2^-24", [5, 5, 5], {"top_p": 5e-8}, {0}),
    ("p negative", [5, 1, 9], {"top_p": -np.inf}, {2}),
    ("p NaN", [5, 1, 9], {"top_p": np.nan}, {2}),
    ("p of 1", [0, 0, 0], {"top_p": 1.0}, {0, 1, 2}),
    ("p beyond", [0, 0, 0], {"top_p": np.inf}, {0, 1, 2}),
    ("p of a quarter and the next float", [0, 0, 0, 0], {"top_p": 0.25}, {0}),
    ("p above a quarter", [0, 0, 0, 0], {"top_p": 0.25 + 2**-24}, {0, 1}),
    ("min_p of 1", [2, 2, 1.9], {"min_p": 1.0}, {0, 1}),
    ("min_p beyond", [2, 2, 1.9], {"min_p": 1.5}, {0}),
    ("min_p NaN", [2, 2, 1.9], {"min_p": np.nan}, {0}),
    ("min_p negative", [2, 2, 1.9], {"min_p": -1.0}, {0, 1, 2}),
    ("equal once divided, p of 0", EQUAL, {"temperature": 1.9, "top_p": 0.0}, {0}),
    ("equal once divided, min_p beyond", EQUAL, {"temperature": 1.9, "min_p": 2.0}, {0}),
    ("equal once divided, greedy", EQUAL, {"temperature": 0.0}, {1}),
    ("p of what k leaves", [0, 0, 0, 0], {"top_k": 2, "top_p": 0.5}, {0}),
    ("p of what min_p leaves", [0, 0, -9, -9], {"min_p": 0.5, "top_p": 0.5}, {0}),
    ("weights of zero", [0, -40], {}, {0}),
]  # fmt: skip


@pytest.mark.parametrize("case", BORDERS, ids=[b[0] for b in BORDERS])
def test_borders(program, case):
    """Exactly these tokens come, at some position each."""
    _, logits, given, may = case
    rows = np.tile(np.array(logits, np.float32), (200, 1))
    ones = [np.repeat(v, 200) for v in call(**given)]
    ones[5] = np.arange(200)
    have = tokens(program, rows, *ones)
    assert set(have.tolist()) == may
    assert np.array_equal(have, draws(rows, *ones))


def test_the_last_bit_of_the_draw(program):
    """A draw near its upper end falls among tokens of weights 0 to 9, each of which is seen."""
    near_one = 6_765_174  # of seed 1: 2^40 minus 142,684.1 of 2^40
    assert word(1, near_one, 0, 0) == 2**24 - 3
    rows = (
        {},
        {"top_p": 1 - 3 * 2**-24},
        {"top_k": 140_000},
        {"min_p": 2**-39},
        {"top_p": 1 - 2**-24},
    )
    tail = np.random.default_rng(8).uniform(-28.3, -25.4, (len(rows), 200_000))
    head = np.tile([0, -11.17], (len(rows), 1))  # the sum modulo 2^24 is near its upper end, too
    x = np.concatenate([head, tail], 1).astype(np.float32)
    given = [
        np.concatenate(c) for c in zip(*(call(position=near_one, **r) for r in rows), strict=True)
    ]
    want = draws(x, *given)
    assert (want > 1000).all()
    for isa in _core.isa_names():
        assert np.array_equal(tokens(program, x, *given, isa=isa), want), isa


def test_a_large_vocabulary(program):
    x = np.random.default_rng(2).standard_normal((2, 262_144)).astype(np.float32)
    given = parameters(np.random.default_rng(3), 2, 3)
    assert np.array_equal(tokens(program, x, *given), draws(x, *given))


def test_sizes_and_types_that_are_refused(program):
    given = call()
    with pytest.raises(InputError, match="dimension v: expected 1"):
        tokens(program, np.zeros((1, 0), np.float32), *given)
    b = Builder()
    columns = [b.input(TensorType(t, (2,))) for t in PARAMETERS.values()]

    def refused(logits, columns, why):
        with pytest.raises(ValueError, match=why):
            b.add("sample", b.input(logits), *columns)

    refused(
        TensorType(DType.F32, (2, MOST_TOKENS + 1)), columns, "1 to 4,194,304 tokens, got 4,194,305"
    )
    refused(TensorType(DType.F32, (2, 0)), columns, "got 0")
    refused(TensorType(DType.BF16, (2, 5)), columns, "expected logits f32")
    refused(TensorType(DType.F32, (5,)), columns, "expected logits f32")
    refused(TensorType(DType.F32, (3, 5)), columns, r"expected temperature f32\[3\]")
    refused(TensorType(DType.F32, (2, 5)), columns[:-1], "expected 8 sources, got 7")
    refused(TensorType(DType.F32, (2, 5)), [*columns[1:], columns[0]], "expected min_p f32")


def test_settings_have_what_is_documented():
    assert len(SETTINGS) > 15
    b = Builder()
    x = b.add("sample", b.input(TensorType(DType.F32, (2, MOST_TOKENS))),
              *(b.input(TensorType(t, (2,))) for t in PARAMETERS.values()))  # fmt: skip
    assert str(b.type_of(x)) == "i64[2]"
