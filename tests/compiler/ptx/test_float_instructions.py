"""Each instruction on float32, on hand-written PTX, against the manual's definition in fractions."""

import itertools
import random

import pytest

from . import manual
from .hand_written import lane_by_lane
from .manual import nearest, signed, unsigned

SPECIAL = [
    0x00000000, 0x00000001, 0x00000002, 0x007FFFFF, 0x00800000, 0x00800001, 0x01000000, 0x0C800000,
    0x33800000, 0x34000000, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x40490FDB, 0x4B000001, 0x4B7FFFFF,
    0x4F000000, 0x4EFFFFFF, 0x5F000000, 0x5EFFFFFF, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000,
]  # fmt: skip
SPECIAL += [x | 1 << 31 for x in SPECIAL]


def at_random(count, seed):
    """Any bits, and numbers near each other, whose sums cancel and whose roundings are ties."""
    r = random.Random(seed)
    near = [
        0x3F800000 + r.randrange(-200, 200) & 0xFFFFFFFF | r.choice((0, 1 << 31))
        for _ in range(count)
    ]
    return [r.choice((r.randrange(1 << 32), near[i])) for i in range(count)]


def columns(count):
    pairs = list(itertools.product(SPECIAL, SPECIAL))
    out = [list(x) for x in zip(*pairs, strict=True)][:count]
    if count == 1:
        out = [SPECIAL]
    while len(out) < count:
        r = random.Random(len(out))
        out.append([r.choice(SPECIAL) for _ in out[0]])
    return [x + at_random(1500, n + 1) for n, x in enumerate(out)]


CASES = {
    "add.rn.f32": (2, manual.add), "sub.rn.f32": (2, manual.sub), "mul.rn.f32": (2, manual.mul),
    "div.rn.f32": (2, manual.div), "fma.rn.f32": (3, manual.fma), "sqrt.rn.f32": (1, manual.sqrt),
    "min.f32": (2, manual.least), "max.f32": (2, lambda a, b: manual.least(a, b, True)),
    "min.NaN.f32": (2, lambda a, b: manual.least(a, b, False, True)),
    "max.NaN.f32": (2, lambda a, b: manual.least(a, b, True, True)),
    "neg.f32": (1, lambda a: a ^ 1 << 31), "abs.f32": (1, lambda a: a & 0x7FFFFFFF),
    "copysign.f32": (2, lambda a, b: a & 1 << 31 | b & 0x7FFFFFFF),
}  # fmt: skip


@pytest.mark.parametrize("op", CASES)
def test_instruction(op):
    count, definition = CASES[op]
    given = columns(count)
    places = ", ".join(f"%r{n}" for n in range(1, count + 1))
    (got,) = lane_by_lane(f"{op} %r50, {places}", [(32, x) for x in given], [32])
    for x, *args in zip(got, *given, strict=True):
        assert x == definition(*args), (op, [hex(a) for a in args], hex(x), hex(definition(*args)))


@pytest.mark.parametrize("op", ["min", "max"])
def test_the_least_of_three(op):
    given = columns(3)
    (got,) = lane_by_lane(f"{op}.f32 %r50, %r1, %r2, %r3", [(32, x) for x in given], [32])
    for x, a, b, c in zip(got, *given, strict=True):
        want = manual.least(manual.least(a, b, op == "max"), c, op == "max")
        assert x == want or (manual.is_nan(x) and manual.is_nan(want))


@pytest.mark.parametrize("op", ["add", "sub", "mul", "fma"])
def test_two_at_once(op):
    count, definition = CASES[f"{op}.rn.f32"]
    low, high = columns(count), [x[::-1] for x in columns(count)]
    pairs = [
        [h << 32 | v for v, h in zip(x, y, strict=True)] for x, y in zip(low, high, strict=True)
    ]
    places = ", ".join(f"%rd{n}" for n in range(1, count + 1))
    (got,) = lane_by_lane(f"{op}.rn.f32x2 %rd50, {places}", [(64, x) for x in pairs], [64])
    for n, x in enumerate(got):
        assert x & 0xFFFFFFFF == definition(*(c[n] for c in low))
        assert x >> 32 == definition(*(c[n] for c in high))


ORDERED = ["eq", "ne", "lt", "le", "gt", "ge"]


@pytest.mark.parametrize("how", [*ORDERED, *(x + "u" for x in ORDERED), "num", "nan"])
def test_comparison(how):
    a, b = columns(2)
    (got,) = lane_by_lane(f"setp.{how}.f32 %p50, %r1, %r2", [(32, a), (32, b)], [1])
    for x, p, q in zip(got, a, b, strict=True):
        assert bool(x) == manual.compare(how, p, q), (how, hex(p), hex(q))


@pytest.mark.parametrize(("kind", "bits"), list(itertools.product("su", (32, 64))))
def test_to_integer(kind, bits):
    given = columns(1)[0] + [
        nearest(x) for x in (2**31, 2**31 - 128, 2**32, -(2**31), 2**63, 2**64)
    ]
    (got,) = lane_by_lane(
        f"cvt.rzi.{kind}{bits}.f32 %r{'d' * (bits == 64)}50, %r1", [(32, given)], [bits]
    )
    for x, a in zip(got, given, strict=True):
        assert x == manual.to_integer(a, bits, kind == "s"), (hex(a), hex(x))


@pytest.mark.parametrize(("kind", "bits"), list(itertools.product("su", (8, 16, 32, 64))))
def test_of_integer(kind, bits):
    r, wide = random.Random(bits), max(bits, 16)
    given = [
        0,
        1,
        2**24 + 1,
        2**24 + 3,
        2**bits - 1,
        2 ** (bits - 1),
        2**53 + 1,
        0x40000040,
        0x400000C0,
    ]
    given = [x % 2**bits for x in given] + [
        r.randrange(2**bits) >> r.randrange(bits) for _ in range(400)
    ]
    place = {16: "%rs1", 32: "%r1", 64: "%rd1"}[wide]
    (got,) = lane_by_lane(f"cvt.rn.f32.{kind}{bits} %r50, {place}", [(wide, given)], [32])
    for x, a in zip(got, given, strict=True):
        assert x == nearest(signed(a, bits) if kind == "s" else unsigned(a, bits)), hex(a)


@pytest.mark.parametrize(
    "what", ["finite", "infinite", "number", "notanumber", "normal", "subnormal"]
)
def test_testp(what):
    given = columns(1)[0]
    (got,) = lane_by_lane(f"testp.{what}.f32 %p50, %r1", [(32, given)], [1])
    for x, a in zip(got, given, strict=True):
        size, nan, infinite = a & 0x7FFFFFFF, manual.is_nan(a), manual.is_infinite(a)
        small = 0 < size < 0x00800000
        want = {
            "finite": not nan and not infinite,
            "infinite": infinite,
            "number": not nan,
            "notanumber": nan,
            "normal": not nan and not infinite and size >= 0x00800000,
            "subnormal": small,
        }[what]
        assert bool(x) == want, hex(a)
