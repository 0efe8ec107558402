"""What code leaves out and branches on: selections that nobody sees, and vectors without a NaN."""

import numpy as np
import pytest

from ree import _core
from ree.compiler.emit.unseen import without_unseen
from ree.compiler.ir import Builder
from ree.kernels.scalar.emit_numpy import evaluate
from ree.kernels.scalar.functions import FUNCTIONS
from ree.kernels.scalar.language import F32, Function, const, param, select, sqrt, walk
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program

X, Y = param(0, F32), param(1, F32)
ONE, TWO = const(1.0, F32), const(2.0, F32)


def test_a_selection_that_another_hides_is_left_out():
    c = X < Y
    hidden = select(c, ONE, X)
    assert without_unseen(select(c, TWO, hidden * Y)) is select(c, TWO, X * Y)
    assert without_unseen(select(c, hidden * Y, TWO)) is select(c, ONE * Y, TWO)
    both = select(c, sqrt(hidden), hidden + X)
    assert without_unseen(both) is both
    inner = select(c, hidden, select(c, TWO, hidden) * Y)
    assert without_unseen(inner) is select(c, hidden, hidden * Y)


def test_a_selection_that_is_seen_stays():
    c = X < Y
    one = select(c, ONE, X)
    for kept in (
        select(c, TWO, one * Y) + one,  # seen beside the other
        select(Y < X, TWO, one * Y),  # by another condition
        select(one < Y, TWO, one * Y),  # the condition itself reads it
        one * Y,
    ):
        assert without_unseen(kept) is kept


def test_what_is_left_out_changes_no_value():
    """Random programs whose selections share two conditions, and every scalar function."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 64)).astype(np.float32)
    x[:4], y[2:6] = [np.nan, np.inf, -np.inf, -0.0], [np.nan, np.inf, 0.0, 1.0]
    left = 0
    for _ in range(300):
        made = [X, Y, ONE]
        conditions = [X < Y, X < ONE]
        for _ in range(12):
            a, b = (made[i] for i in rng.integers(max(0, len(made) - 6), len(made), 2))
            made.append([a + b, a * b, *[select(c, a, b) for c in conditions]][rng.integers(4)])
        short = without_unseen(made[-1])
        left += short is not made[-1]
        got, want = (evaluate(Function("f", (F32, F32), e), x, y) for e in (short, made[-1]))
        np.testing.assert_array_equal(got, want)
    assert left > 50
    for name, f in FUNCTIONS.items():
        got = evaluate(Function(name, f.params, without_unseen(f.body)), x)
        np.testing.assert_array_equal(got, evaluate(f, x), name)
    shorter = {
        n
        for n, f in FUNCTIONS.items()
        if len([*walk(without_unseen(f.body))]) < len([*walk(f.body)])
    }
    assert {"silu", "sigmoid"} <= shorter


def program(*names):
    """The results of functions, one of the other; all are outputs."""
    b = Builder()
    x = b.input(TensorType(DType.F32, (150,)))
    out = []
    for name in names:
        out.append(b.add(name, out[-1] if out else x))
    return Program(
        b.finish(tuple(out)), Names(("x",), tuple(map("y{}".format, range(len(out)))), ()), ()
    )


@pytest.mark.parametrize("isa", _core.isa_names())
@pytest.mark.parametrize(
    "names", [("silu",), ("gelu", "log"), ("exp", "neg", "log", "gelu")], ids="-".join
)
def test_a_nan_anywhere_is_canonical(names, isa):
    """In every place of the widest turn, of those after it, and in one result of several."""
    p = program(*names)
    plain = np.full(150, 0.5, np.float32)
    clean = [x[0] for x in p.run(plain, isa="portable", fuse=False).outputs]
    for at in range(150):
        x = plain.copy()
        x.view(np.uint32)[at] = 0xFFC00001
        for got, other in zip(p.run(x, isa=isa).outputs, clean, strict=True):
            want = np.full(150, other, np.float32)
            want.view(np.uint32)[at] = 0x7FC00000
            # NaNs of what is clean are canonical as well
            assert got.tobytes() == want.tobytes(), at


@pytest.mark.parametrize("isa", _core.isa_names())
def test_a_nan_in_one_result_of_several(isa):
    p = program("gelu", "log")
    for sign in (1, -1):  # the logarithm of a negative number alone is NaN
        x = np.full(150, sign * 0.5, np.float32)
        y, z = p.run(x, isa=isa).outputs
        assert not np.isnan(y).any()
        assert (z.view(np.uint32) == 0x7FC00000).all() == (sign < 0)
