"""Lanes that exchange values, go apart and meet; warps, barriers and blocks; on hand-written PTX."""

import numpy as np
import pytest

from ree.compiler.ptx.native import PtxSchedule
from ree.compiler.ptx.source import PtxError

from .hand_written import FIRST, execute, kernel, lane_by_lane

VALUES = [1000 + 3 * i for i in range(32)]
TOP = "\tld.param.b64 %rd1, [k_param_0];\n\tmov.u32 %r1, %tid.x;\n\tmad.wide.u32 %rd2, %r1, 4, %rd1;\n"


def partner(mode, lane, b, c):
    """shfl's pseudo-code of the manual: (source lane, predicate)."""
    clamp, segment = c & 31, c >> 8 & 31
    most = (lane & segment) | (clamp & ~segment & 31)
    j, p = {
        "up": lambda: (lane - b, lane - b >= most),
        "down": lambda: (lane + b, lane + b <= most),
        "bfly": lambda: (lane ^ b, lane ^ b <= most),
        "idx": lambda: (
            ((lane & segment) | (b & ~segment & 31)),
            ((lane & segment) | (b & ~segment & 31)) <= most,
        ),
    }[mode]()
    return (j, True) if p else (lane, False)


@pytest.mark.parametrize("c", [31, 0x1C03, 0x100F, 0])
@pytest.mark.parametrize("b", [0, 1, 3, 16, 31])
@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shfl(mode, b, c):
    statements = (
        f"shfl.sync.{mode}.b32 %r50, %r1, {b}, {c}, -1;"
        f"mov.b32 %r60, {b}; add.s32 %r60, %r60, %r2; shfl.sync.{mode}.b32 %r51|%p52, %r1, %r60, {c}, -1"
    )
    got = lane_by_lane(statements, [(32, VALUES), (32, [0] * 32)], [32, 32, 1])
    want = [partner(mode, lane, b, c) for lane in range(32)]
    assert got[0] == got[1] == [VALUES[j] for j, _ in want]
    assert got[2] == [int(p) for _, p in want]


@pytest.mark.parametrize(
    ("op", "fold"),
    [
        ("add.u32", lambda a, b: a + b),
        ("min.s32", min),
        ("max.s32", max),
        ("min.u32", None),
        ("max.u32", None),
        ("and.b32", lambda a, b: a & b),
        ("or.b32", lambda a, b: a | b),
        ("xor.b32", lambda a, b: a ^ b),
    ],
)
def test_redux(op, fold):
    values = [(x * 0x9E3779B1 ^ 0x85EBCA6B) % 2**32 for x in VALUES]
    (got,) = lane_by_lane(f"redux.sync.{op} %r50, %r1, -1", [(32, values)], [32])
    signed = [x - 2**32 if x >> 31 and op.endswith("s32") else x for x in values]
    want = signed[0]
    for x in signed[1:]:
        want = (fold or {"min.u32": min, "max.u32": max}[op])(want, x)
    assert set(got) == {want % 2**32}


@pytest.mark.parametrize("pattern", [0, 1, 0x80000001, 2**32 - 1])
def test_votes(pattern):
    bits = [pattern >> i & 1 for i in range(32)]
    got = lane_by_lane(
        "vote.sync.ballot.b32 %r50, %p1, -1; vote.sync.any.pred %p51, %p1, -1;"
        "vote.sync.all.pred %p52, %p1, -1; vote.sync.uni.pred %p53, %p1, -1;"
        "vote.sync.ballot.b32 %r54, !%p1, -1; activemask.b32 %r55; bar.warp.sync -1",
        [(1, bits)],
        [32, 1, 1, 1, 32, 32],
    )
    full = 2**32 - 1
    want = [pattern, pattern != 0, pattern == full, pattern in (0, full), full ^ pattern, full]
    assert [set(x) for x in got] == [{int(x)} for x in want]


def test_special_registers():
    body = (
        TOP
        + """
\tmov.u32 %r2, %ctaid.x; mov.u32 %r3, %ctaid.y; mov.u32 %r4, %ctaid.z;
\tmov.u32 %r5, %nctaid.x; mov.u32 %r6, %nctaid.y; mov.u32 %r7, %ntid.x; mov.u32 %r10, %laneid;
\tmad.lo.s32 %r8, %r4, %r6, %r3; mad.lo.s32 %r8, %r8, %r5, %r2; mad.lo.s32 %r9, %r8, %r7, %r1;
\tmad.lo.s32 %r11, %r9, 100, %r10;
\tmad.wide.u32 %rd2, %r9, 4, %rd1; st.global.b32 [%rd2], %r11;"""
    )
    for schedule in (PtxSchedule(), PtxSchedule(1), PtxSchedule(9)):
        y = np.zeros(2 * 3 * 4 * 64, np.uint32)
        execute(kernel(1, body, 64), [y], grid=(2, 3, 4), schedule=schedule)
        n = np.arange(y.size)
        assert (y == n * 100 + n % 32).all()


def test_lanes_go_apart_and_meet():
    """Collatz steps: each lane leaves the loop when it is done; then all vote together."""
    body = (
        TOP
        + """
\tmov.b32 %r2, %r1; add.s32 %r2, %r2, 1; mov.b32 %r3, 0;
$LOOP:
\tsetp.eq.s32 %p1, %r2, 1;
\t@%p1 bra $DONE;
\tand.b32 %r4, %r2, 1; setp.ne.s32 %p2, %r4, 0;
\t@!%p2 bra $EVEN;
\tmad.lo.s32 %r2, %r2, 3, 1;
\tbra.uni $NEXT;
$EVEN:
\tshr.u32 %r2, %r2, 1;
$NEXT:
\tadd.s32 %r3, %r3, 1;
\tbra.uni $LOOP;
$DONE:
\tredux.sync.max.s32 %r5, %r3, -1;
\tmad.lo.s32 %r3, %r3, 1000, %r5;
\tst.global.b32 [%rd2], %r3;"""
    )

    def steps(n):
        return 0 if n == 1 else 1 + steps(n // 2 if n % 2 == 0 else 3 * n + 1)

    y = np.zeros(32, np.uint32)
    execute(kernel(1, body), [y])
    every = [steps(i + 1) for i in range(32)]
    assert y.tolist() == [s * 1000 + max(every) for s in every]


def test_lanes_leave_early():
    body = (
        TOP
        + "\tsetp.lt.u32 %p1, %r1, 40;\n\tmov.b32 %r2, 7;\n\t@%p1 ret;\n\tst.global.b32 [%rd2], %r2;"
    )
    y = np.zeros(64, np.uint32)
    execute(kernel(1, body, 64), [y])
    assert y.tolist() == [0] * 40 + [7] * 24


SUM = (
    TOP
    + """
\tmov.b32 %r2, global_smem;
\tmad.lo.s32 %r3, %r1, 4, %r2;
\tmad.lo.s32 %r4, %r1, %r1, 1;
\tst.shared.b32 [%r3], %r4;
\tbar.sync 0;
\txor.b32 %r5, %r1, 96;
\tmad.lo.s32 %r5, %r5, 4, %r2;
\tld.shared.b32 %r6, [%r5];
\tst.global.b32 [%rd2], %r6;"""
)


@pytest.mark.parametrize(
    "schedule", [PtxSchedule(), PtxSchedule(1), PtxSchedule(2), PtxSchedule(3)]
)
def test_warps_meet_at_a_barrier(schedule):
    y = np.zeros(128, np.uint32)
    execute(kernel(1, SUM, 128), [y], shared=512, schedule=schedule)
    assert y.tolist() == [(i ^ 96) ** 2 + 1 for i in range(128)]


def faulty(text, threads=128, shared=512, schedule=FIRST, count=128):
    y = np.zeros(count, np.uint32)
    with pytest.raises(PtxError) as e:
        execute(kernel(1, text, threads), [y], shared=shared, schedule=schedule)
    return str(e.value)


@pytest.mark.parametrize("schedule", [PtxSchedule(), PtxSchedule(1), PtxSchedule(2)])
def test_a_missing_barrier_is_a_race(schedule):
    said = faulty(SUM.replace("\tbar.sync 0;\n", ""), schedule=schedule)
    assert "kernel 'k', PTX line" in said
    assert "race on shared memory" in said


def test_a_write_where_another_warp_has_read_is_a_race():
    assert "race" in faulty(SUM + "\n\tst.shared.b32 [%r3], %r1;")
    y = np.zeros(128, np.uint32)
    execute(kernel(1, SUM + "\n\tbar.sync 0;\n\tst.shared.b32 [%r3], %r1;", 128), [y], shared=512)


def test_what_must_not_be():
    assert "outside of all arguments" in faulty(SUM, count=127)
    assert "outside of shared memory" in faulty(SUM, shared=508)
    assert "not aligned" in faulty(TOP + "\tst.global.b32 [%rd1+2], %r1;")
    assert "does not end" in faulty(
        TOP + "$L:\n\tsetp.ne.s32 %p1, %r1, -1;\n\t@%p1 bra $L;", threads=32
    )
    apart = "\tsetp.lt.u32 %p1, %r1, 3;\n\t@%p1 bra $L;\n"
    assert "apart" in faulty(
        TOP + apart + "\tshfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;\n$L:\n\tmov.b32 %r3, 1;"
    )
    assert "barrier" in faulty(TOP + apart + "\tbar.sync 0;\n$L:\n\tmov.b32 %r3, 1;")
    assert "lane that is not there" in faulty(
        TOP
        + "\tsetp.lt.u32 %p1, %r1, 3;\n\tmov.b32 %r9, 7;\n\t@%p1 shfl.sync.idx.b32 %r2, %r1, 5, 31, %r9;"
    )


def test_shared_memory_that_nobody_wrote_is_poison():
    y = np.zeros(32, np.uint32)
    execute(
        kernel(1, TOP + "\tld.shared.b32 %r2, [global_smem+8];\n\tst.global.b32 [%rd2], %r2;"),
        [y],
        shared=64,
    )
    assert set(y.tolist()) == {0xB5B5B5B5}


@pytest.mark.parametrize(
    "statement",
    [
        "ex2.approx.f32 %r2, %r1",
        "ex2.approx.ftz.f32 %r2, %r1",
        "lg2.approx.f32 %r2, %r1",
        "rcp.approx.f32 %r2, %r1",
        "sqrt.approx.f32 %r2, %r1",
        "rsqrt.approx.f32 %r2, %r1",
        "sin.approx.f32 %r2, %r1",
        "tanh.approx.f32 %r2, %r1",
        "div.full.f32 %r2, %r1, %r1",
        "div.approx.f32 %r2, %r1, %r1",
        "add.f32 %r2, %r1, %r1",
        "mad.f32 %r2, %r1, %r1, %r1",
        "add.rn.ftz.f32 %r2, %r1, %r1",
        "add.rz.f32 %r2, %r1, %r1",
        "add.rn.f64 %rd3, %rd1, %rd1",
        "fma.rn.f16 %rs2, %rs1, %rs1, %rs1",
        "atom.global.add.f32 %r2, [%rd1], %r1",
        "bar.sync 1, 64",
        "ld.local.b32 %r2, [%rd1]",
        "setp.lo.s32 %p1, %r1, %r1",
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%r1}, {%r2}, {%r3}, {%r4}",
        "mov.b32 %r2, %clock",
    ],
)
def test_what_is_not_executed_is_named_with_its_line(statement):
    text = kernel(1, TOP + f"\t{statement};")
    with pytest.raises(PtxError) as e:
        execute(text, [np.zeros(32, np.uint32)])
    line = next(n for n, x in enumerate(text.splitlines(), 1) if statement in x)
    assert f"kernel 'k', PTX line {line}" in str(e.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".target sm_90\n.visible .entry k(\n)\n{\nret;\n}\n",
        kernel(1, "\tret"),
        kernel(1, "\tbra $NOWHERE;"),
        kernel(1, "\tld.param.b32 %r1, [k_param_9];"),
        kernel(1, TOP)[:-9],
    ],
)
def test_text_that_is_no_kernel(text):
    with pytest.raises(PtxError):
        execute(text, [np.zeros(32, np.uint32)])
