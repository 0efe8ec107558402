"""Each instruction on integers and bits, on hand-written PTX, against the manual's definition."""

import functools
import itertools
import random

import pytest

from ree.kernels import registry  # noqa: F401

from . import manual
from .hand_written import KIND, lane_by_lane
from .manual import signed, unsigned


def numbers(bits, count=12, seed=0):
    """Values at the ends, around zero, and at random."""
    top = 1 << bits
    r = random.Random(seed + bits)
    ends = [
        0,
        1,
        2,
        7,
        31,
        32,
        33,
        63,
        64,
        65,
        top // 2 - 1,
        top // 2,
        top // 2 + 1,
        top - 2,
        top - 1,
    ]
    return sorted({x % top for x in ends} | {r.randrange(top) for _ in range(count)})


def grids(widths):
    """Operands of each lane: all pairs of values, more operands at random beside them."""
    r = random.Random(len(widths))
    first = list(itertools.product(*map(numbers, widths[:2])))
    rest = [[r.choice(numbers(w)) for _ in first] for w in widths[2:]]
    return [list(x) for x in zip(*first, strict=True)] + rest


def name(bits, n):
    return f"%{KIND[bits]}{n}"


# op -> (widths of operands, width of result, definition); operands come unsigned
CASES = {}


def case(op, widths, result, definition):
    CASES[op] = (widths, result, definition)


def of_signed(bits, f):
    return lambda *a: f(*(signed(x, bits) for x in a))


for b in (16, 32, 64):
    for k in "su":
        case(f"add.{k}{b}", (b, b), b, lambda x, y: x + y)
        case(f"sub.{k}{b}", (b, b), b, lambda x, y: x - y)
        case(f"mul.lo.{k}{b}", (b, b), b, lambda x, y: x * y)
    case(f"mul.hi.u{b}", (b, b), b, lambda x, y, b=b: x * y >> b)
    case(f"mul.hi.s{b}", (b, b), b, of_signed(b, lambda x, y, b=b: x * y >> b))
    case(f"mad.lo.s{b}", (b, b, b), b, lambda x, y, z: x * y + z)
    case(f"mad.hi.u{b}", (b, b, b), b, lambda x, y, z, b=b: (x * y >> b) + z)
    case(f"mad.hi.s{b}", (b, b, b), b, lambda x, y, z, b=b: (signed(x, b) * signed(y, b) >> b) + z)
    if b < 64:
        case(f"mul.wide.u{b}", (b, b), 2 * b, lambda x, y: x * y)
        case(f"mul.wide.s{b}", (b, b), 2 * b, of_signed(b, lambda x, y: x * y))
        case(f"mad.wide.u{b}", (b, b, 2 * b), 2 * b, lambda x, y, z: x * y + z)
        case(
            f"mad.wide.s{b}",
            (b, b, 2 * b),
            2 * b,
            lambda x, y, z, b=b: signed(x, b) * signed(y, b) + z,
        )
    # by 0 PTX leaves it open; what is here is what GPUs do
    case(f"div.u{b}", (b, b), b, lambda x, y: x // y if y else -1)
    case(f"rem.u{b}", (b, b), b, lambda x, y: x % y if y else x)
    case(f"div.s{b}", (b, b), b, of_signed(b, lambda x, y: manual.quotient(x, y) if y else -1))
    case(
        f"rem.s{b}", (b, b), b, of_signed(b, lambda x, y: x - manual.quotient(x, y) * y if y else x)
    )
    case(f"min.u{b}", (b, b), b, min)
    case(f"max.u{b}", (b, b), b, max)
    case(f"min.s{b}", (b, b), b, of_signed(b, min))
    case(f"max.s{b}", (b, b), b, of_signed(b, max))
    case(f"neg.s{b}", (b,), b, lambda x: -x)
    case(f"abs.s{b}", (b,), b, of_signed(b, abs))
    case(f"and.b{b}", (b, b), b, lambda x, y: x & y)
    case(f"or.b{b}", (b, b), b, lambda x, y: x | y)
    case(f"xor.b{b}", (b, b), b, lambda x, y: x ^ y)
    case(f"not.b{b}", (b,), b, lambda x: ~x)
    case(f"shl.b{b}", (b, 32), b, lambda x, n, b=b: x << min(n, b))
    case(f"shr.u{b}", (b, 32), b, lambda x, n, b=b: x >> min(n, b))
    case(f"shr.b{b}", (b, 32), b, lambda x, n, b=b: x >> min(n, b))
    case(f"shr.s{b}", (b, 32), b, lambda x, n, b=b: signed(x, b) >> min(n, b))
    case(f"selp.b{b}", (b, b, 1), b, lambda x, y, p: x if p else y)
    case(f"mov.b{b}", (b,), b, lambda x: x)
    for k in "su":
        signs = of_signed(b, lambda x: x) if k == "s" else (lambda x: x)
        for how, f in {
            "eq": lambda x, y: x == y,
            "ne": lambda x, y: x != y,
            "lt": lambda x, y: x < y,
            "le": lambda x, y: x <= y,
            "gt": lambda x, y: x > y,
            "ge": lambda x, y: x >= y,
        }.items():
            case(f"setp.{how}.{k}{b}", (b, b), 1, lambda x, y, f=f, g=signs: f(g(x), g(y)))
    for how, f in {
        "lo": lambda x, y: x < y,
        "ls": lambda x, y: x <= y,
        "hi": lambda x, y: x > y,
        "hs": lambda x, y: x >= y,
    }.items():
        case(f"setp.{how}.u{b}", (b, b), 1, f)
for b in (32, 64):
    case(f"popc.b{b}", (b,), 32, lambda x: x.bit_count())
    case(f"clz.b{b}", (b,), 32, lambda x, b=b: b - x.bit_length())
    case(f"brev.b{b}", (b,), b, lambda x, b=b: int(f"{x:0{b}b}"[::-1], 2))
for op, f in {
    "and": lambda x, y: x & y,
    "or": lambda x, y: x | y,
    "xor": lambda x, y: x ^ y,
}.items():
    case(f"{op}.pred", (1, 1), 1, f)
case("not.pred", (1,), 1, lambda x: 1 - x)
case("mov.pred", (1,), 1, lambda x: x)
case("mov.f32", (32,), 32, lambda x: x)
case("selp.f32", (32, 32, 1), 32, lambda x, y, p: x if p else y)
case("prmt.b32", (32, 32, 32), 32, manual.permute)
case("shf.l.wrap.b32", (32, 32, 32), 32, lambda x, y, n: (y << 32 | x) << (n & 31) >> 32)
case("shf.r.wrap.b32", (32, 32, 32), 32, lambda x, y, n: (y << 32 | x) >> (n & 31))
case("shf.l.clamp.b32", (32, 32, 32), 32, lambda x, y, n: (y << 32 | x) << min(n, 32) >> 32)
case("shf.r.clamp.b32", (32, 32, 32), 32, lambda x, y, n: (y << 32 | x) >> min(n, 32))
for b, k in itertools.product((32, 64), "su"):
    field = functools.partial(manual.bit_field, bits=b, is_signed=k == "s")
    case(f"bfe.{k}{b}", (b, 32, 32), b, field)
case("bfi.b32", (32, 32, 32, 32), 32, lambda x, y, at, n: manual.bit_insert(x, y, at, n, 32))
# between integers: cut, or filled by the source's sign
for to, source in itertools.product((8, 16, 32, 64), repeat=2):
    for k, j in itertools.product("su", repeat=2):
        if to != source:
            wide = max(to, 16)

            def convert(x, to=to, source=source, k=k, j=j):
                x = signed(x, source) if j == "s" else unsigned(x, source)
                return signed(x, to) if k == "s" else unsigned(x, to)

            case(f"cvt.{k}{to}.{j}{source}", (max(source, 16),), wide, convert)


@pytest.mark.parametrize("op", CASES)
def test_instruction(op):
    widths, result, definition = CASES[op]
    columns = grids(widths) if len(widths) > 1 else [numbers(widths[0], 40)]
    places = ", ".join(name(w, n) for n, w in enumerate(widths, 1))
    out = name(result, 50)
    (got,) = lane_by_lane(
        f"{op} {out}, {places}", list(zip(widths, columns, strict=True)), [result]
    )
    for x, *args in zip(got, *columns, strict=True):
        want = unsigned(int(definition(*args)), max(result, 16) if result > 1 else 1)
        assert x == want, (op, [hex(a) for a in args], hex(x), hex(want))


@pytest.mark.parametrize("table", [0x00, 0x80, 0x1E, 0xCA, 0xE8, 0xFF])
def test_lop3(table):
    a, b, c = columns = [
        [0xF0F0CC33, 0x12345678],
        [0xFF00AA55, 0x9ABCDEF0],
        [0x0F0F5A5A, 0x0BADF00D],
    ]
    (got,) = lane_by_lane(
        f"lop3.b32 %r50, %r1, %r2, %r3, {table}", [(32, x) for x in columns], [32]
    )
    for n, x in enumerate(got):
        bits = (
            table >> ((a[n] >> i & 1) << 2 | (b[n] >> i & 1) << 1 | c[n] >> i & 1) & 1
            for i in range(32)
        )
        assert x == sum(bit << i for i, bit in enumerate(bits))


def test_numbers_in_the_text():
    got = lane_by_lane(
        "mov.b32 %r50, 0x7773U; mov.b32 %r51, -5; mov.b32 %r52, 0f3F800000; mov.b16 %rs53, -1",
        [(32, [0])],
        [32, 32, 32, 16],
    )
    assert [x[0] for x in got] == [0x7773, 2**32 - 5, 0x3F800000, 0xFFFF]


def test_registers_made_of_narrow_ones_and_taken_apart():
    got = lane_by_lane("mov.b64 %rd50, {%r1, %r2}; mov.b64 {%r51, %r52}, %rd50; mov.b32 {%rs53, %rs54}, %r1;"
                       "mov.b32 %r55, {%rs54, %rs53}", [(32, [0x11112222]), (32, [0x33334444])],
                       [64, 32, 32, 16, 16, 32])  # fmt: skip
    assert [x[0] for x in got] == [
        0x3333444411112222,
        0x11112222,
        0x33334444,
        0x2222,
        0x1111,
        0x22221111,
    ]


def test_a_comparison_gives_its_opposite_and_combines():
    x, y, p = [1, 2, 3, 4], [2, 2, 2, 2], [1, 0, 1, 0]
    got = lane_by_lane(
        "setp.lt.and.s32 %p50|%p51, %r1, %r2, %p3; setp.ge.or.u32 %p52, %r1, %r2, !%p3",
        [(32, x), (32, y), (1, p)],
        [1, 1, 1],
    )
    assert got == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 1, 1]]


def test_a_guard_leaves_other_lanes_alone():
    values = list(range(32))
    got = lane_by_lane(
        "setp.lt.u32 %p60, %r1, 7; mov.b32 %r50, 100; @%p60 add.s32 %r50, %r1, 1;"
        "mov.b32 %r51, 5; @!%p60 mov.b32 %r51, %r1",
        [(32, values)],
        [32, 32],
    )
    assert got[0] == [x + 1 if x < 7 else 100 for x in values]
    assert got[1] == [5 if x < 7 else x for x in values]
