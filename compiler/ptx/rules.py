"""What each instruction of PTX does, said once: a pattern of its name, and the LLVM that it becomes.

The rules are those of the PTX ISA's text. What has no rule here is refused by name: approximations, flushing,
half and double arithmetic, tensor cores on floats, atomics on floats.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from ree.compiler.ptx.source import PtxInstruction, group
from ree.compiler.ptx.translate import Translator
from ree.compiler.ptx.values import Value, number

Rule = Callable[[Translator, PtxInstruction, re.Match[str]], None]
RULES: list[tuple[re.Pattern[str], Rule]] = []


def rule(pattern: str) -> Callable[[Rule], Rule]:
    """Decorator: the rule of all instructions whose whole name the pattern matches."""

    def add(f: Rule) -> Rule:
        RULES.append((re.compile(pattern), f))
        return f

    return add


@functools.cache
def rule_of(op: str) -> Callable[[Translator, PtxInstruction], None] | None:
    """The rule of an instruction by its name, or None."""
    from ree.compiler.ptx import rules_memory  # noqa: F401  (adds its own)

    found = [(f, m) for pattern, f in RULES if (m := pattern.fullmatch(op))]
    if len(found) != 1:
        return None
    f, m = found[0]
    return lambda t, i: f(t, i, m)


def operands(t: Translator, i: PtxInstruction, count: int, bits: int) -> list[Value]:
    """The operands after the first, all of one width."""
    if len(i.args) != count + 1:
        t.refuse(f"{i.op}: expected {count + 1} operands, got {len(i.args)}")
    return [t.read(a, bits) for a in i.args[1:]]


def result(t: Translator, i: PtxInstruction, v: Value) -> None:
    t.write(i.args[0], v)


# integers

LLVM_OP = {"add": "add", "sub": "sub", "and": "and", "or": "or", "xor": "xor"}


@rule(r"(add|sub)\.[su](16|32|64)")
@rule(r"(and|or|xor)\.b(16|32|64)")
def _plain(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    result(t, i, t.op(LLVM_OP[m[1]], *operands(t, i, 2, int(m[2]))))


@rule(r"(and|or|xor)\.pred")
def _of_predicates(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    result(t, i, t.op(m[1], *operands(t, i, 2, 1)))


@rule(r"not\.(?:b(16|32|64)|pred)")
def _not(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    (a,) = operands(t, i, 1, int(m[1] or 1))
    result(t, i, t.op("xor", a, number(-1, a.bits)))


@rule(r"neg\.s(16|32|64)")
def _neg(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    (a,) = operands(t, i, 1, int(m[1]))
    result(t, i, t.op("sub", number(0, a.bits), a))


@rule(r"abs\.s(16|32|64)")
def _abs(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    (a,) = operands(t, i, 1, int(m[1]))
    below = t.compare("slt", a, number(0, a.bits))
    result(t, i, t.select(below, t.op("sub", number(0, a.bits), a), a))


@rule(r"(min|max)\.([su])(16|32|64)")
def _least(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    result(t, i, t.apply(m[2] + m[1], *operands(t, i, 2, int(m[3]))))


def product(t: Translator, a: Value, b: Value, sign: bool, part: str) -> Value:
    """The low half, the high half or all of a product."""
    if part == "lo":
        return t.op("mul", a, b)
    wide = t.op("mul", t.width(a, 2 * a.bits, sign), t.width(b, 2 * a.bits, sign))
    if part == "wide":
        return wide
    return t.width(t.op("lshr", wide, number(a.bits, wide.bits)), a.bits)


@rule(r"mul\.(lo|hi|wide)\.([su])(16|32|64)")
def _mul(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    a, b = operands(t, i, 2, int(m[3]))
    result(t, i, product(t, a, b, m[2] == "s", m[1]))


@rule(r"mad\.(lo|hi|wide)\.([su])(16|32|64)")
def _mad(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    bits = int(m[3])
    a, b = (t.read(x, bits) for x in i.args[1:3])
    p = product(t, a, b, m[2] == "s", m[1])
    result(t, i, t.op("add", p, t.read(i.args[3], p.bits)))


@rule(r"(div|rem)\.([su])(16|32|64)")
def _div(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    """By 0 the quotient has all bits set and the remainder is the dividend, as GPUs have it: PTX leaves it
    open. The least integer by -1 is itself."""
    a, b = operands(t, i, 2, int(m[3]))
    none = t.compare("eq", b, number(0, a.bits))
    safe = t.select(none, number(1, a.bits), b)
    if m[2] == "s":
        least = t.compare("eq", a, number(1 << (a.bits - 1), a.bits))
        minus = t.compare("eq", b, number(-1, a.bits))
        safe = t.select(t.op("and", least, minus), number(1, a.bits), safe)
    out = t.op(m[2] + m[1], a, safe)
    result(t, i, t.select(none, number(-1, a.bits) if m[1] == "div" else a, out))


@rule(r"(shl)\.b(16|32|64)")
@rule(r"(shr)\.([bus])(16|32|64)")
def _shift(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    """By the width and more everything is shifted out, but for the sign."""
    bits, sign = int(m[m.lastindex or 0]), m[1] == "shr" and m[2] == "s"
    a, n = t.read(i.args[1], bits), t.read(i.args[2], 32)
    name = "shl" if m[1] == "shl" else "ashr" if sign else "lshr"
    c = n.constant
    if c is not None and 0 <= c < bits:
        result(t, i, t.op(name, a, number(c, bits)))
        return
    most = number(bits - 1, 32)
    far = t.compare("ugt", n, most)
    near = t.op(name, a, t.width(t.select(far, most, n), bits))
    result(t, i, near if sign else t.select(far, number(0, bits), near))


@rule(r"bfe\.([su])(32|64)")
def _bit_field(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    """Bits from a position on, as many as asked for, filled with zeros or the field's highest bit."""
    bits, shift, zero = int(m[2]), "ashr" if m[1] == "s" else "lshr", number(0, 64)
    a = t.width(t.read(i.args[1], bits), 64, m[1] == "s")
    at, n = (t.op("and", t.width(t.read(x, 32), 64), number(255, 64)) for x in i.args[2:])
    n = t.apply("umin", n, number(64, 64))
    v = t.op(shift, a, t.apply("umin", at, number(63, 64)))
    if m[1] == "u":
        v = t.select(t.compare("ugt", at, number(63, 64)), zero, v)
    out = t.op("sub", number(64, 64), t.apply("umax", n, number(1, 64)))
    v = t.op(shift, t.op("shl", v, out), out)
    v = t.select(t.compare("eq", n, zero), zero, v)
    result(t, i, t.width(v, bits))


@rule(r"bfi\.b32")
def _bit_insert(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    a, b = (t.width(t.read(x, 32), 64) for x in i.args[1:3])
    at, n = (t.op("and", t.width(t.read(x, 32), 64), number(255, 64)) for x in i.args[3:])
    at, n = (t.apply("umin", x, number(32, 64)) for x in (at, n))
    ones = t.op("sub", t.op("shl", number(1, 64), n), number(1, 64))
    field = t.op("shl", ones, at)
    kept = t.op("and", b, t.op("xor", field, number(-1, 64)))
    result(t, i, t.width(t.op("or", kept, t.op("and", t.op("shl", a, at), field)), 32))


@rule(r"prmt\.b32")
def _permute(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    """Each byte of the result is one of eight, or its sign eight times."""
    a, b, chosen = (t.width(t.read(x, 32), 64) for x in i.args[1:4])
    both = t.op("or", a, t.op("shl", b, number(32, 64)))
    out = number(0, 64)
    for n in range(4):
        c = t.op("and", t.op("lshr", chosen, number(4 * n, 64)), number(15, 64))
        at = t.op("shl", t.op("and", c, number(7, 64)), number(3, 64))
        byte = t.op("and", t.op("lshr", both, at), number(255, 64))
        sign = t.op("mul", t.op("lshr", byte, number(7, 64)), number(255, 64))
        byte = t.select(t.compare("ne", t.op("and", c, number(8, 64)), number(0, 64)), sign, byte)
        out = t.op("or", out, t.op("shl", byte, number(8 * n, 64)))
    result(t, i, t.width(out, 32))


@rule(r"shf\.(l|r)\.(wrap|clamp)\.b32")
def _funnel(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    a, b, n = operands(t, i, 3, 32)
    n = t.op("and", n, number(31, 32)) if m[2] == "wrap" else t.apply("umin", n, number(32, 32))
    pair = t.op("or", t.width(a, 64), t.op("shl", t.width(b, 64), number(32, 64)))
    n = t.width(n, 64)
    if m[1] == "l":
        v = t.op("lshr", t.op("shl", pair, n), number(32, 64))
    else:
        v = t.op("lshr", pair, n)
    result(t, i, t.width(v, 32))


@rule(r"lop3\.b32")
def _any_logic(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    a, b, c = (t.read(x, 32) for x in i.args[1:4])
    table = t.read(i.args[4], 32).constant
    if table is None or not 0 <= table < 256:
        t.refuse(f"lop3: expected a table of 8 bits, got {i.args[4][:20]}")
        return
    minus = number(-1, 32)
    out = number(0, 32)
    for n in range(8):
        if table >> n & 1:
            terms = [
                x if n >> s & 1 else t.op("xor", x, minus) for x, s in ((a, 2), (b, 1), (c, 0))
            ]
            out = t.op("or", out, t.op("and", t.op("and", terms[0], terms[1]), terms[2]))
    result(t, i, out)


@rule(r"(popc|clz|brev)\.b(32|64)")
def _count(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    (a,) = operands(t, i, 1, int(m[2]))
    if m[1] == "clz":
        kind = f"i{a.bits}" if a.uniform else f"v32i{a.bits}"
        v = Value(
            t.call(f"llvm.ctlz.{kind}", a.type, [(a.type, a.text), ("i1", "false")]),
            a.bits,
            a.uniform,
        )
    else:
        v = t.apply({"popc": "ctpop", "brev": "bitreverse"}[m[1]], a)
    result(t, i, v if m[1] == "brev" else t.width(v, 32))


# moves


@rule(r"mov\.(?:[bus](16|32|64)|f32|pred)")
def _mov(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    """A register, or several narrow ones that make a wide one, lowest first."""
    bits = 1 if i.op == "mov.pred" else int(m[1] or 32)
    if i.args[0].startswith("{"):
        a = t.read(i.args[1], bits)
        parts = group(i.args[0])
        each = bits // len(parts)
        for n, r in enumerate(parts):
            part = t.op("lshr", a, number(each * n, bits)) if n else a
            t.write(r, t.width(part, each))
    elif i.args[1].startswith("{"):
        parts = group(i.args[1])
        each = bits // len(parts)
        out = t.width(t.read(parts[0], each), bits)
        for n, r in enumerate(parts[1:], 1):
            high = t.op("shl", t.width(t.read(r, each), bits), number(each * n, bits))
            out = t.op("or", out, high)
        result(t, i, out)
    else:
        result(t, i, t.read(i.args[1], bits))


@rule(r"selp\.(?:[bus](16|32|64)|f32)")
def _select(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    bits = int(m[1] or 32)
    a, b = (t.read(x, bits) for x in i.args[1:3])
    result(t, i, t.select(t.read(i.args[3], 1), a, b))


@rule(r"cvta(?:\.to)?\.(?:global|param)\.u64")
def _same_address(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    """Global memory lies where generic addresses say."""
    result(t, i, t.read(i.args[1], 64))


# conversions


@rule(r"cvt\.([su])(8|16|32|64)\.([su])(8|16|32|64)")
def _convert(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    """Cut, or filled by the source's sign; the sign of a narrow result fills its register."""
    to, source = int(m[2]), int(m[4])
    a = t.read(i.args[1], max(source, 16))
    if source == 8:
        a = t.width(a, 8)
    v = t.width(a, to, m[3] == "s")
    if to == 8:
        v = t.width(v, 16, m[1] == "s")
    result(t, i, v)


def float_suffix(uniform: bool) -> str:
    return "f32" if uniform else "v32f32"


@rule(r"cvt\.rn\.f32\.([su])(8|16|32|64)")
def _to_float(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    a = t.read(i.args[1], max(int(m[2]), 16))
    a = t.width(a, int(m[2]))
    out = t.set(
        f"{m[1].replace('s', 'si').replace('u', 'ui')}tofp {a.type} {a.text} to {t.float_type(a)}"
    )
    result(t, i, t.from_float(out, a.uniform, canonical=False))


@rule(r"cvt\.rzi\.([su])(32|64)\.f32")
def _to_integer(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    """Toward zero, saturating; a NaN is 0 in 32 bits and 2^63 in 64."""
    (a,) = operands(t, i, 1, 32)
    bits = int(m[2])
    (x,) = t.floats([a])
    kind = "i{0}.f32" if a.uniform else "v32i{0}.v32f32"
    like = Value("", bits, a.uniform)
    name = f"llvm.fpto{m[1]}i.sat.{kind.format(bits)}"
    v = Value(t.call(name, like.type, [(t.float_type(a), x)]), bits, a.uniform)
    if bits == 64:
        nan = Value(t.set(f"fcmp uno {t.float_type(a)} {x}, {x}"), 1, a.uniform)
        v = t.select(nan, number(1 << 63, 64), v)
    result(t, i, v)


# float32: rounded to nearest even, subnormals kept, NaN results canonical

FLOAT_OP = {
    "add": "fadd",
    "sub": "fsub",
    "mul": "fmul",
    "div": "fdiv",
    "fma": "llvm.fma",
    "sqrt": "llvm.sqrt",
}
FLOAT_OPERANDS = {"fma": 3, "sqrt": 1}


@rule(r"(add|sub|mul|div|fma|sqrt)\.rn\.f32")
def _float(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    result(t, i, t.float_op(FLOAT_OP[m[1]], *operands(t, i, FLOAT_OPERANDS.get(m[1], 2), 32)))


@rule(r"(add|sub|mul|fma)\.rn\.f32x2")
def _two_floats(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    """Two float32 in 64 bits, each computed alone."""
    args = operands(t, i, FLOAT_OPERANDS.get(m[1], 2), 64)
    low = t.float_op(FLOAT_OP[m[1]], *(t.width(a, 32) for a in args))
    high = t.float_op(FLOAT_OP[m[1]], *(t.width(t.op("lshr", a, number(32, 64)), 32) for a in args))
    result(t, i, t.op("or", t.width(low, 64), t.op("shl", t.width(high, 64), number(32, 64))))


@rule(r"(neg|abs)\.f32")
def _sign(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    (a,) = operands(t, i, 1, 32)
    result(
        t,
        i,
        t.op("xor", a, number(1 << 31, 32))
        if m[1] == "neg"
        else t.op("and", a, number(0x7FFFFFFF, 32)),
    )


@rule(r"copysign\.f32")
def _copy_sign(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    """The sign of the first operand, the rest of the second."""
    a, b = operands(t, i, 2, 32)
    sign = t.op("and", a, number(1 << 31, 32))
    result(t, i, t.op("or", sign, t.op("and", b, number(0x7FFFFFFF, 32))))


@rule(r"(min|max)(\.NaN)?\.f32")
def _float_least(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    """Of two or three. -0 is below +0; of a NaN and a number the number, with .NaN the NaN."""
    name = f"llvm.{m[1]}imum" + ("" if m[2] else "num")
    a, b, *more = operands(t, i, 3 if len(i.args) == 4 else 2, 32)
    v = t.float_op(name, a, b)
    for c in more:
        v = t.float_op(name, v, c)
    result(t, i, v)


@rule(r"testp\.(finite|infinite|number|notanumber|normal|subnormal)\.f32")
def _test(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    (a,) = operands(t, i, 1, 32)
    size = t.op("and", a, number(0x7FFFFFFF, 32))
    infinite, least = number(0x7F800000, 32), number(0x00800000, 32)
    below = t.compare("ult", size, infinite)
    out = {
        "finite": lambda: below,
        "infinite": lambda: t.compare("eq", size, infinite),
        "number": lambda: t.compare("ule", size, infinite),
        "notanumber": lambda: t.compare("ugt", size, infinite),
        "normal": lambda: t.op("and", below, t.compare("uge", size, least)),
        "subnormal": lambda: t.op(
            "and", t.compare("ult", size, least), t.compare("ne", size, number(0, 32))
        ),
    }[m[1]]()
    result(t, i, out)


# comparisons

FLOAT_COMPARE = {"eq": "oeq", "ne": "one", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge",
                 "equ": "ueq", "neu": "une", "ltu": "ult", "leu": "ule", "gtu": "ugt", "geu": "uge",
                 "num": "ord", "nan": "uno"}  # fmt: skip
UNSIGNED = {"lo": "ult", "ls": "ule", "hi": "ugt", "hs": "uge"}


@rule(r"setp\.([a-z]+?)(?:\.(and|or|xor))?\.(?:([bsu])(16|32|64)|(f32))")
def _compare(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    """A comparison, and where there is a second predicate also its opposite; both with a third, if given."""
    how, combine, kind = m[1], m[2], m[5] or m[3]
    a, b = (t.read(x, int(m[4] or 32)) for x in i.args[1:3])
    if kind == "f32":
        if how not in FLOAT_COMPARE:
            t.refuse(f"{i.op}: comparison {how} is not known")
        p = t.float_compare(FLOAT_COMPARE[how], a, b)
    elif how in ("eq", "ne"):
        p = t.compare(how, a, b)
    elif kind == "u" and how in UNSIGNED:
        p = t.compare(UNSIGNED[how], a, b)
    elif kind in "su" and how in ("lt", "le", "gt", "ge"):
        p = t.compare(kind + how, a, b)
    else:
        t.refuse(f"{i.op}: comparison {how} is not known")
        return
    places = [r.strip() for r in i.args[0].split("|")]
    results = [p, t.op("xor", p, number(1, 1))][: len(places)]
    if combine:
        third = i.args[3]
        c = t.read(third.lstrip("!"), 1)
        c = t.op("xor", c, number(1, 1)) if third.startswith("!") else c
        results = [t.op(combine, x, c) for x in results]
    for r, x in zip(places, results, strict=True):
        t.write(r, x)
