"""Rules of instructions on memory, between lanes, and on matrices: see rules.py."""

from __future__ import annotations

import re

from ree.compiler.ptx.rules import result, rule
from ree.compiler.ptx.source import PtxInstruction, group
from ree.compiler.ptx.translate import Translator
from ree.compiler.ptx.values import LANES, Value, bits_of, number

CACHE = r"(?:\.(?:ca|cg|cs|cv|lu|wb|wt|L1::\w+|L2::\d+B))*"


@rule(r"ld\.param\.([busf])(8|16|32|64)")
def _parameter(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    v = t.parameter(i.args[1], int(m[2]))
    result(t, i, t.width(v, max(bits_of(i.args[0]), v.bits), m[1] == "s"))


def watched(t: Translator, space: str, size: int) -> None:
    """Races on shared memory are watched in pieces of the narrowest access."""
    if space == "shared":
        t.granule = min(t.granule, size)


@rule(rf"ld\.(global|shared)(?:::cta)?(?:\.nc)?{CACHE}(?:\.v([24]))?\.([busf])(8|16|32|64)")
def _load(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    """Narrow elements are filled with zeros, of s types with their sign."""
    count, bits = int(m[2] or 1), int(m[4])
    places = group(i.args[0])
    if len(places) != count or len(i.args) != 2 or bits * count > 128:
        t.refuse(f"{i.op}: operands {', '.join(i.args)[:60]} are not understood")
    watched(t, m[1], bits // 8)
    t.put_address(t.address(i.args[1]))
    t.work(f"ptx_load_{m[1]}_{bits // 8}_{count}", t.active())
    values = [t.take(n, bits) for n in range(count)]
    for r, v in zip(places, values, strict=True):
        t.write(r, t.width(v, max(bits_of(r), bits), m[3] == "s") if r != "_" else v)


@rule(rf"st\.(global|shared)(?:::cta)?{CACHE}(?:\.v([24]))?\.[busf](8|16|32|64)")
def _store(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    count, bits = int(m[2] or 1), int(m[3])
    values = group(i.args[1])
    if len(values) != count or len(i.args) != 2 or bits * count > 128:
        t.refuse(f"{i.op}: operands {', '.join(i.args)[:60]} are not understood")
    watched(t, m[1], bits // 8)
    t.put_address(t.address(i.args[0]))
    for n, r in enumerate(values):
        # a register may be wider than what is stored of it
        v = t.read(r, max(bits, 16))
        t.put(t.width(v, bits), n)
    t.work(f"ptx_store_{m[1]}_{bits // 8}_{count}", t.active())


# copies


@rule(r"cp\.async\.c[ag]\.shared(?:::cta)?\.global(?:\.L2::\d+B)?")
def _copy(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    size = t.read(i.args[2], 32).constant
    if size not in (4, 8, 16):
        t.refuse(f"{i.op}: expected 4, 8 or 16 bytes, got {i.args[2][:20]}")
        return
    given = t.read(i.args[3], 32) if len(i.args) > 3 else number(size, 32)
    t.put(t.address(i.args[0]), 0)
    t.put(given, 1)
    t.put_address(t.address(i.args[1]))
    t.work("ptx_copy_async", t.active(), number(size, 32))


@rule(r"cp\.async\.commit_group")
def _commit(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    t.work("ptx_copy_commit", t.active())


@rule(r"cp\.async\.wait_group")
def _wait(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    t.work("ptx_copy_wait", t.active(), t.read(i.args[0], 32))


@rule(r"cp\.async\.wait_all")
def _wait_all(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    t.work("ptx_copy_wait_all", t.active())


# between lanes


@rule(r"bar\.warp\.sync")
def _warp_barrier(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    t.together(t.read(i.args[0], 32))


MODES = ("up", "down", "bfly", "idx")


@rule(r"shfl\.sync\.(up|down|bfly|idx)\.b32")
def _shuffle(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    """The value of another lane; where there is none in the segment, one's own."""
    if len(i.args) != 5:
        t.refuse(f"{i.op}: expected 5 operands, got {len(i.args)}")
    places = [r.strip() for r in i.args[0].split("|")]
    a, b, c = (t.read(x, 32) for x in i.args[1:4])
    t.together(t.read(i.args[4], 32))
    if b.constant is not None and c.constant is not None and not i.guard and len(places) == 1:
        # the lanes are all here, or `together` has said that they are not
        source = (shuffled(m[1], lane, b.constant, c.constant) for lane in range(LANES))
        order = ", ".join(f"i32 {n}" for n in source)
        a = t.vector(a)
        text = f"shufflevector {a.type} {a.text}, {a.type} poison, <{LANES} x i32> <{order}>"
        t.write(places[0], Value(t.set(text), 32))
        return
    for n, v in enumerate((a, b, c)):
        t.put(v, n)
    t.work("ptx_shuffle", t.active(), number(MODES.index(m[1]), 32))
    value, inside = t.take(0, 32), t.take(1, 32)
    t.write(places[0], value)
    for r in places[1:]:
        t.write(r, t.compare("ne", inside, number(0, 32)))


def shuffled(mode: str, lane: int, b: int, c: int) -> int:
    """The lane whose value it is, by the PTX ISA's text of shfl."""
    segment, b = c >> 8 & 31, b & 31
    most = (lane & segment) | (c & 31 & ~segment)
    j = {
        "up": lane - b,
        "down": lane + b,
        "bfly": lane ^ b,
        "idx": (lane & segment) | (b & ~segment),
    }[mode]
    return j if (j >= most if mode == "up" else j <= most) else lane


IDENTITY = {
    "add": 0,
    "min.s": 2**31 - 1,
    "max.s": -(2**31),
    "min.u": -1,
    "max.u": 0,
    "and": -1,
    "or": 0,
    "xor": 0,
}


@rule(r"redux\.sync\.(add|min|max|and|or|xor)\.([bsu])32")
def _reduce(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    members = t.read(i.args[2], 32)
    t.together(members)
    a = t.vector(t.read(i.args[1], 32))
    name, key = m[1], m[1]
    if m[1] in ("min", "max"):
        name, key = m[2] + m[1], f"{m[1]}.{m[2]}"
    idle = number(IDENTITY[key], 32)
    a = t.select(t.predicate(t.active()), a, idle)
    out = t.call(f"llvm.vector.reduce.{name}.v32i32", "i32", [(a.type, a.text)])
    result(t, i, Value(out, 32, True))


@rule(r"vote\.sync\.(any|all|uni|ballot)\.(?:pred|b32)")
def _vote(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    members = t.read(i.args[2], 32)
    t.together(members)
    name = i.args[1].lstrip("!")
    p = t.read(name, 1)
    if i.args[1].startswith("!"):
        p = t.op("xor", p, number(1, 1))
    here = t.active()
    yes = t.op("and", t.lanes(p), here)
    none, every = t.compare("eq", yes, number(0, 32)), t.compare("eq", yes, here)
    out = {"ballot": yes, "any": t.op("xor", none, number(1, 1)), "all": every,
           "uni": t.op("or", none, every)}[m[1]]  # fmt: skip
    result(t, i, out)


@rule(r"activemask\.b32")
def _active(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    result(t, i, t.active())


# matrices


@rule(r"ldmatrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared(?:::cta)?\.b16")
def _load_matrix(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    t.put_address(t.address(i.args[1]))
    t.work("ptx_load_matrix", t.active(), number(int(m[1]), 32), number(int(bool(m[2])), 32))
    values = [t.take(n, 32) for n in range(int(m[1]))]
    for r, v in zip(group(i.args[0]), values, strict=True):
        t.write(r, v)


@rule(r"stmatrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared(?:::cta)?\.b16")
def _store_matrix(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    t.put_address(t.address(i.args[0]))
    for n, r in enumerate(group(i.args[1])):
        t.put(t.read(r, 32), n)
    t.work("ptx_store_matrix", t.active(), number(int(m[1]), 32), number(int(bool(m[2])), 32))


@rule(r"mma\.sync\.aligned\.m16n8k(16|32)\.row\.col(\.satfinite)?\.s32\.s8\.s8\.s32")
def _multiply_bytes(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    k = int(m[1])
    parts = [r for a in i.args[1:] for r in group(a)]
    if len(parts) != k // 16 * 3 + 4:
        t.refuse(f"{i.op}: {len(parts)} registers of operands")
    for n, r in enumerate(parts):
        t.put(t.read(r, 32), n)
    t.work("ptx_multiply_bytes", t.active(), number(k, 32), number(int(bool(m[2])), 32))
    values = [t.take(n, 32) for n in range(4)]
    for r, v in zip(group(i.args[0]), values, strict=True):
        t.write(r, v)


# what orders memory between devices, or tells the next kernel to start, does nothing in one that runs alone


@rule(r"(?:membar|fence)\.[a-z_.]+|griddepcontrol\.(?:wait|launch_dependents)")
def _nothing(t: Translator, i: PtxInstruction, m: re.Match[str]) -> None:
    pass
