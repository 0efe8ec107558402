"""Loads, stores, copies and matrices, on hand-written PTX, against the manual's definition."""

import numpy as np
import pytest

from ree.compiler.ptx.native import PtxSchedule
from ree.compiler.ptx.source import PtxError

from .hand_written import execute, kernel, lane_by_lane

POISON = 0xB5
THREAD = (
    "\tld.param.b64 %rd1, [k_param_0];\n\tld.param.b64 %rd2, [k_param_1];\n\tmov.u32 %r1, %tid.x;\n"
)
SCHEDULES = [PtxSchedule(), PtxSchedule(late=True), PtxSchedule(1, True), PtxSchedule(5)]
# a block's shared memory as bytes: thread i copies words i, i + 64, ... out
OUT = """
\tbar.sync 0;
\tmad.wide.u32 %rd9, %r1, 4, %rd2;
\tmov.b32 %r9, global_smem;
\tmad.lo.s32 %r9, %r1, 4, %r9;
"""


def copied_out(words, threads=64):
    """Statements that store the first words of shared memory at %rd2."""
    lines = [OUT]
    for i in range(0, words, threads):
        lines += [f"\tld.shared.b32 %r8, [%r9+{4 * i}];", f"\tst.global.b32 [%rd9+{4 * i}], %r8;"]
    return "\n".join(lines)


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize(
    ("bits", "count"),
    [
        (8, 1),
        (16, 1),
        (32, 1),
        (64, 1),
        (8, 2),
        (16, 2),
        (32, 2),
        (64, 2),
        (8, 4),
        (16, 4),
        (32, 4),
    ],
)
def test_load_and_store(space, bits, count):
    """Through memory of either kind and back; elements of a vector lie side by side."""
    size, register = bits // 8 * count, {8: "rs", 16: "rs", 32: "r", 64: "rd"}[bits]
    vector = f".v{count}" if count > 1 else ""
    places = ", ".join(f"%{register}{20 + n}" for n in range(count))
    places = f"{{{places}}}" if count > 1 else places
    body = (
        THREAD
        + f"""
\tmad.wide.u32 %rd3, %r1, {size}, %rd1;
\tmad.wide.u32 %rd4, %r1, {size}, %rd2;
\tmov.b32 %r2, global_smem;
\tmad.lo.s32 %r2, %r1, {size}, %r2;
\tld.global{vector}.b{bits} {places}, [%rd3];
"""
    )
    if space == "shared":
        body += f"\tst.shared{vector}.b{bits} [%r2], {places};\n\tmov.b{max(bits, 16)} %{register}20, 0;\n"
        body += f"\tld.shared{vector}.b{bits} {places}, [%r2];\n"
    body += f"\tst.global{vector}.b{bits} [%rd4], {places};"
    x = np.random.default_rng(bits).integers(0, 256, 32 * size, dtype=np.uint8)
    y = np.zeros_like(x)
    execute(kernel(2, body), [x, y], shared=32 * size)
    assert (x == y).all()


@pytest.mark.parametrize(("kind", "want"), [("b8", 0xF0), ("u8", 0xF0), ("s8", 0xFFFFFFF0)])
def test_a_narrow_load_is_filled(kind, want):
    body = (
        THREAD
        + f"""
\tld.global.{kind} %r2, [%rd1];
\tmad.wide.u32 %rd3, %r1, 4, %rd2;
\tst.global.b32 [%rd3], %r2;"""
    )
    x, y = np.array([0xF0], np.uint8), np.zeros(32, np.uint32)
    execute(kernel(2, body), [x, y])
    assert set(y.tolist()) == {want}


def test_parameters_by_their_places():
    text = kernel(
        2,
        "\tld.param.b64 %rd1, [k_param_0];\n\tld.param.s32 %rd2, [k_param_1];\n"
        "\tst.global.b64 [%rd1], %rd2;",
    ).replace(".u64 .ptr .global .align 1 k_param_1", ".u32 k_param_1")
    from ree.compiler.ptx.native import launch, native

    from .hand_written import POOL

    y = np.zeros(1, np.int64)
    at = (y.ctypes.data, y.ctypes.data + 8)
    launch(native(text), (1, 1, 1), [at[0], -7], 0, [at], POOL)
    assert y.tolist() == [-7]
    for params in ([at[0]], [at[0], 2**32]):
        with pytest.raises(PtxError, match="parameter"):
            launch(native(text), (1, 1, 1), params, 0, [at], POOL)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("size", [4, 8, 16])
def test_copies_arrive_where_they_are_waited_for(size, schedule):
    """Two groups: after a wait for all but one only the first must be there. The last bytes of a short copy are
    zeros."""
    body = (
        THREAD
        + f"""
\tmad.wide.u32 %rd3, %r1, {size}, %rd1;
\tmov.b32 %r2, global_smem;
\tmad.lo.s32 %r2, %r1, {size}, %r2;
\tcp.async.ca.shared.global [%r2], [%rd3], {size};
\tcp.async.commit_group;
\tsetp.lt.u32 %p1, %r1, 3;
\tselp.b32 %r3, {size - 1}, {size}, %p1;
\tcp.async.c{"g" if size == 16 else "a"}.shared.global [%r2+{64 * size}], [%rd3], {size}, %r3;
\tcp.async.commit_group;
\tcp.async.wait_group 1;"""
        + copied_out(16 * size)
        + "\n\tcp.async.wait_group 0;"
        + copied_out(32 * size)
    )
    x = np.random.default_rng(size).integers(0, 256, 64 * size, dtype=np.uint8)
    y = np.zeros(128 * size, np.uint8)
    execute(kernel(2, body, 64), [x, y], shared=128 * size, schedule=schedule)
    want = x.copy()
    want[[size - 1, 2 * size - 1, 3 * size - 1]] = 0
    assert (y == np.concatenate([x, want])).all()


def test_a_copy_that_nobody_waits_for_is_poison_when_it_is_late():
    body = (
        THREAD
        + """
\tmov.b32 %r2, global_smem;
\tmad.lo.s32 %r2, %r1, 4, %r2;
\tmad.wide.u32 %rd3, %r1, 4, %rd1;
\tcp.async.ca.shared.global [%r2], [%rd3], 4;
\tcp.async.commit_group;
\tcp.async.wait_group 1;"""
        + copied_out(64)
    )
    x, y = np.arange(64, dtype=np.uint32), np.zeros(64, np.uint32)
    execute(kernel(2, body, 64), [x, y], shared=256)
    assert (x == y).all()
    execute(kernel(2, body, 64), [x, y], shared=256, schedule=PtxSchedule(late=True))
    assert set(y.tolist()) == {POISON * 0x01010101}
    waited = body.replace("wait_group 1", "wait_all")
    execute(kernel(2, waited, 64), [x, y], shared=256, schedule=PtxSchedule(late=True))
    assert (x == y).all()


def fragments(x):
    """What each lane holds of an 8 x 8 matrix of 16 bits: two elements of row lane / 4."""
    return (
        x.reshape(8, 4, 2).astype(np.uint32)[..., 0].reshape(32)
        | x.reshape(8, 4, 2).astype(np.uint32)[..., 1].reshape(32) << 16
    )


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_matrices_are_loaded_and_stored(count, transposed):
    """ldmatrix gives each lane its elements; stmatrix puts them back."""
    places = ", ".join(f"%r{20 + n}" for n in range(count))
    trans = ".trans" if transposed else ""
    body = (
        THREAD
        + f"""
\tmov.b32 %r2, global_smem;
\tmad.lo.s32 %r3, %r1, 16, %r2;
\tmad.wide.u32 %rd3, %r1, 16, %rd1;
\tld.global.v4.b32 {{%r4, %r5, %r6, %r7}}, [%rd3];
\tst.shared.v4.b32 [%r3], {{%r4, %r5, %r6, %r7}};
\tldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{places}}}, [%r3];
\tstmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 [%r3+512], {{{places}}};
\tmad.wide.u32 %rd4, %r1, 4, %rd2;
"""
        + "".join(f"\tst.global.b32 [%rd4+{128 * n}], %r{20 + n};\n" for n in range(count))
        + f"""
\tld.shared.v4.b32 {{%r4, %r5, %r6, %r7}}, [%r3+512];
\tmad.wide.u32 %rd5, %r1, 16, %rd2;
\tst.global.v4.b32 [%rd5+{128 * count}], {{%r4, %r5, %r6, %r7}};"""
    )
    x = np.random.default_rng(count).integers(0, 2**16, (4, 8, 8), dtype=np.uint16)
    y = np.zeros(32 * count + 128, np.uint32)
    execute(kernel(2, body), [x, y], shared=1024)
    for n in range(count):
        want = fragments((x[n].T if transposed else x[n]).copy())
        assert (y[32 * n : 32 * n + 32] == want).all()
    back = y[32 * count :].view(np.uint16).reshape(4, 8, 8)
    assert (back[:count] == x[:count]).all()


@pytest.mark.parametrize("saturate", [False, True])
@pytest.mark.parametrize("k", [16, 32])
def test_bytes_are_multiplied(k, saturate):
    """mma.m16n8: each lane's fragments by the manual's figures."""
    rng = np.random.default_rng(k)
    a, b = (
        rng.integers(-128, 128, (16, k)).astype(np.int8),
        rng.integers(-128, 128, (k, 8)).astype(np.int8),
    )
    c = rng.choice(np.array([5, -7, 2**31 - 100, -(2**31) + 100, 0]), (16, 8)).astype(np.int64)
    halves = k // 16
    operands = [[] for _ in range(3 * halves + 4)]
    for lane in range(32):
        g, t = lane // 4, lane % 4
        for h in range(halves):
            at = slice(16 * h + 4 * t, 16 * h + 4 * t + 4)
            operands[2 * h].append(int(a[g, at].copy().view(np.uint32)[0]))
            operands[2 * h + 1].append(int(a[g + 8, at].copy().view(np.uint32)[0]))
            operands[2 * halves + h].append(int(b[at, g].copy().view(np.uint32)[0]))
        for n in range(4):
            operands[3 * halves + n].append(int(c[g + 8 * (n // 2), 2 * t + n % 2]))
    r = [f"%r{n + 1}" for n in range(len(operands))]
    groups = [r[: 2 * halves], r[2 * halves : 3 * halves], r[3 * halves :]]
    text = ", ".join("{" + ", ".join(g) + "}" for g in groups)
    op = f"mma.sync.aligned.m16n8k{k}.row.col{'.satfinite' * saturate}.s32.s8.s8.s32"
    got = lane_by_lane(
        f"{op} {{%r50, %r51, %r52, %r53}}, {text}", [(32, x) for x in operands], [32] * 4
    )
    exact = a.astype(np.int64) @ b.astype(np.int64) + c
    want = np.clip(exact, -(2**31), 2**31 - 1) if saturate else exact
    for lane in range(32):
        for n in range(4):
            value = int(want[lane // 4 + 8 * (n // 2), 2 * (lane % 4) + n % 2]) % 2**32
            assert got[n][lane] == value
