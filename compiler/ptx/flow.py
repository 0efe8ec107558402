"""Blocks of a kernel in the order of its text, and which registers live from one block to another."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ree.compiler.ptx.source import PtxInstruction, PtxSource

REGISTER = re.compile(r"%(?:p|rs|rd|r)\d+\b")
BARRIER = re.compile(r"(?:bar|barrier)(?:\.cta)?\.sync(?:\.aligned)?")
LEAVE = ("ret", "exit")
# instructions whose first operand is read
READS_FIRST = re.compile(
    r"st\.|red\.|cp\.|bra|bar|stmatrix|ret|exit|fence|membar|griddep|wgmma|prefetch"
)


@dataclass
class PtxBlock:
    """Instructions that run one after the other; `end` is the branch, barrier or return at the end, if any."""

    number: int
    code: list[PtxInstruction] = field(default_factory=list)
    end: PtxInstruction | None = None
    next: list[int] = field(default_factory=list)
    live_in: frozenset[str] = frozenset()
    live_out: frozenset[str] = frozenset()


def is_end(i: PtxInstruction) -> bool:
    """Whether an instruction ends a block."""
    return i.op.startswith("bra") or i.op in LEAVE or BARRIER.fullmatch(i.op) is not None


def blocks_of(source: PtxSource) -> list[PtxBlock]:
    """The blocks, numbered in the order of the text, so that lanes that went apart meet again in the lowest."""
    blocks = [PtxBlock(0)]
    labels: dict[str, int] = {}
    for x in source.code:
        if isinstance(x, str):
            if blocks[-1].code or blocks[-1].end:
                blocks.append(PtxBlock(len(blocks)))
            labels[x] = blocks[-1].number
            continue
        if blocks[-1].end:
            blocks.append(PtxBlock(len(blocks)))
        if is_end(x):
            blocks[-1].end = x
        else:
            blocks[-1].code.append(x)
    if not blocks[-1].code and blocks[-1].end is None:
        blocks.pop()  # only labels stand behind the last return
    for b in blocks:
        end, after = b.end, b.number + 1
        falls = end is None or bool(end.guard) or BARRIER.fullmatch(end.op) is not None
        if end is not None and end.op.startswith("bra"):
            if labels.get(end.args[0], len(blocks)) >= len(blocks):
                source.refuse(end.line, f"branch to {end.args[0]}, which is no label")
            b.next.append(labels[end.args[0]])
        if falls:
            if after == len(blocks):
                line = end.line if end else b.code[-1].line if b.code else 0
                source.refuse(line, "the kernel's text ends without a return")
            b.next.append(after)
    _live(blocks)
    return blocks


def uses(i: PtxInstruction) -> tuple[set[str], set[str]]:
    """(registers read, registers written)."""
    read = {i.guard} if i.guard else set()
    if READS_FIRST.match(i.op) or not i.args:
        first, rest = "", i.args
    else:
        first, rest = i.args[0], i.args[1:]
    read |= {r for a in rest for r in REGISTER.findall(a)}
    return read, set(REGISTER.findall(first))


def _live(blocks: list[PtxBlock]) -> None:
    """Live registers by the usual fixed point, from behind."""
    needs, kills = [], []
    for b in blocks:
        need: set[str] = set()
        kill: set[str] = set()
        for i in [*b.code, *([b.end] if b.end else [])]:
            read, wrote = uses(i)
            need |= read - kill
            # a guarded write leaves lanes as they were
            if i.guard:
                need |= wrote - kill
            kill |= wrote
        needs.append(need)
        kills.append(kill)
    changed = True
    while changed:
        changed = False
        for b in reversed(blocks):
            out = frozenset().union(*(blocks[n].live_in for n in b.next))
            live = frozenset(needs[b.number]) | (out - kills[b.number])
            if (out, live) != (b.live_out, b.live_in):
                b.live_out, b.live_in, changed = out, live, True
