"""A kernel as one LLVM function that runs a warp from a block of its text to its next barrier or its end.

Registers that live from one block to another lie in the warp's frame; the others are LLVM values. Lanes that
go apart at a branch each wait for their block; those of the lowest block run, so that they meet again where
the text is laid out for it. As long as they are together a branch is a jump.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ree.compiler.ptx.flow import BARRIER, LEAVE, PtxBlock, blocks_of
from ree.compiler.ptx.source import PtxInstruction, PtxSource
from ree.compiler.ptx.values import LANES, PLACES, LlvmText, Value, bits_of, number

LEFT, AT_BARRIER, FAULTED = 0, 1, 2  # as csrc/ptx/machine.hpp has them


@dataclass(frozen=True)
class Translated:
    """LLVM text with the function `name`, bytes of a warp's frame, and the bytes that races are watched in."""

    source: PtxSource
    name: str
    text: str
    frame_bytes: int
    granule: int


class Translator(LlvmText):
    """Translates one kernel; rules (rules.py) call its `read` and `write`."""

    def __init__(self, source: PtxSource) -> None:
        super().__init__()
        self.source = source
        self.blocks = blocks_of(source)
        self.slots: dict[str, int] = {}
        self.frame = 0
        for r in sorted({r for b in self.blocks for r in b.live_in | b.live_out}):
            self.slots[r] = self.frame
            self.frame += max(LANES * bits_of(r) // 8, 64)
        self.known: dict[str, Value] = {}
        self.changed: set[str] = set()
        self.now = PtxInstruction(0, "", ())
        self.mask = Value("%mask", 32, True)
        self.waits = 0  # numbers of small LLVM blocks
        self.jumps: list[tuple[str, str]] = []  # into the dispatch: (from, operand)
        self.granule = 4

    # what rules use

    def refuse(self, what: str) -> None:
        self.source.refuse(self.now.line, what)

    def read(self, operand: str, bits: int) -> Value:
        """An operand as `bits` wide: a register, a number, or a special register."""
        if re.fullmatch(r"%(?:p|rs|rd|r)\d+", operand):
            return self.width(self._register(operand), bits)
        special = self._special(operand)
        if special is not None:
            return self.width(special, bits)
        text = operand.rstrip("U")
        if re.fullmatch(r"0[fF][0-9a-fA-F]{8}", text):
            return number(int(text[2:], 16), bits)
        if re.fullmatch(r"-?(?:0[xX][0-9a-fA-F]+|\d+)", text):
            return number(int(text, 0), bits)
        self.refuse(f"operand {operand[:40]} is not known")
        raise AssertionError

    def write(self, register: str, v: Value) -> None:
        """A result into a register: filled with zeros where it is narrower, kept where the guard is off."""
        if register == "_":
            return
        bits = bits_of(register) if re.fullmatch(r"%(?:p|rs|rd|r)\d+", register) else 0
        if not bits:
            self.refuse(f"result into {register[:40]}")
        v = self.width(v, bits)
        guard = self.guard()
        if guard is not None:
            v = self.select(guard, v, self._register(register))
        self.known[register] = v
        self.changed.add(register)

    def guard(self) -> Value | None:
        """The predicate of this instruction, if it has one."""
        if not self.now.guard:
            return None
        p = self._register(self.now.guard)
        return self.op("xor", p, number(1, 1)) if self.now.negated else p

    def active(self) -> Value:
        """Lanes that this instruction runs in, as 32 bits."""
        guard = self.guard()
        return self.mask if guard is None else self.op("and", self.mask, self.lanes(guard))

    def lanes(self, p: Value) -> Value:
        """A predicate as 32 bits."""
        if p.uniform:
            return self.width(p, 32, signed=True)
        return Value(self.set(f"bitcast <{LANES} x i1> {p.text} to i32"), 32, True)

    def predicate(self, mask: Value) -> Value:
        """32 bits as a predicate."""
        return Value(self.set(f"bitcast i32 {mask.text} to <{LANES} x i1>"), 1)

    def lane_numbers(self) -> Value:
        return Value("<" + ", ".join(f"i32 {i}" for i in range(LANES)) + ">", 32)

    def work(self, name: str, *args: Value) -> None:
        """A function of the machine that gives nothing: (warp, args..., line)."""
        extra = [("i32", a.text) for a in args]
        self.call(name, "void", [("ptr", "%warp"), *extra, ("i32", str(self.now.line))])

    def ask(self, name: str, *args: Value) -> str:
        """A function of the machine that gives an i32."""
        return self.call(name, "i32", [("ptr", "%warp"), *(("i32", a.text) for a in args)])

    def address(self, operand: str) -> Value:
        """An [address]: register or symbol, and an offset."""
        m = re.fullmatch(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\d+))?\s*\]", operand)
        if m is None:
            self.refuse(f"address {operand[:40]} is not understood")
            raise AssertionError
        base, offset = m[1], int(m[2] or 0)
        if base.startswith("%"):
            at = self.read(base, bits_of(base))
        else:
            at = self.read(base, 32)
        return self.op("add", at, number(offset, at.bits)) if offset else at

    def parameter(self, operand: str, bits: int) -> Value:
        """A [parameter], from memory that all lanes share."""
        m = re.fullmatch(r"\[\s*(\w+)\s*(?:\+\s*(\d+))?\s*\]", operand)
        if m is None or m[1] not in self.source.parameters:
            self.refuse(f"parameter {operand[:40]} is not known")
            raise AssertionError
        start, size = self.source.parameters[m[1]]
        if bits // 8 + int(m[2] or 0) > size:
            self.refuse(f"more is read of a parameter than its {size} bytes")
        at = self.place("%params", start + int(m[2] or 0))
        return Value(self.set(f"load i{bits}, ptr {at}, align 1"), bits, True)

    def together(self, members: Value) -> None:
        """All lanes of a mask must be here: a fault if not."""
        if not members.uniform:
            first = self.call("llvm.cttz.i32", "i32", [("i32", self.mask.text), ("i1", "false")])
            text = f"extractelement {members.type} {members.text}, i32 {first}"
            members = Value(self.set(text), 32, True)
        self.work("ptx_must_be_together", self.active(), members)

    # registers

    def _register(self, r: str) -> Value:
        if r not in self.known:
            bits = bits_of(r)
            if r not in self.slots:
                # never written before it is read
                return Value("zeroinitializer", bits)
            at = self.place("%frame", self.slots[r])
            if bits == 1:
                self.known[r] = self.predicate(
                    Value(self.set(f"load i32, ptr {at}, align 4"), 32, True)
                )
            else:
                text = f"load <{LANES} x i{bits}>, ptr {at}, align 64"
                self.known[r] = Value(self.set(text), bits)
        return self.known[r]

    def _special(self, name: str) -> Value | None:
        if name == "%tid.x":
            first = self.op("mul", self.word("index"), number(LANES, 32))
            return self.op("add", first, self.lane_numbers())
        if name in ("%tid.y", "%tid.z"):
            return number(0, 32)
        if name == "%laneid":
            return self.lane_numbers()
        if name == "%ntid.x":
            return number(self.source.threads, 32)
        m = re.fullmatch(r"%(ctaid|nctaid)\.([xyz])", name)
        if m:
            return self.word(m[1], 4 * "xyz".index(m[2]))
        if name == "global_smem":
            return number(PLACES["shared_base"], 32)
        return None

    def _keep(self, live: frozenset[str]) -> None:
        """Registers that others read, into the frame, for the lanes at work."""
        partial: Value | None = None
        for r in sorted(self.changed & live):
            v = self.known[r]
            at = self.place("%frame", self.slots[r])
            if v.bits == 1:
                new = self.lanes(v)
                old = Value(self.set(f"load i32, ptr {at}, align 4"), 32, True)
                kept = self.op("and", old, self.op("xor", self.mask, number(-1, 32)))
                new = self.op("or", self.op("and", new, self.mask), kept)
                self.say(f"store i32 {new.text}, ptr {at}, align 4")
                continue
            partial = partial or self.predicate(self.mask)
            old = Value(self.set(f"load <{LANES} x i{v.bits}>, ptr {at}, align 64"), v.bits)
            new = self.select(partial, v, old)
            self.say(f"store {new.type} {new.text}, ptr {at}, align 64")

    # control

    def label(self) -> str:
        self.waits += 1
        return f"w{self.waits}"

    def jump(self, block: PtxBlock, to: int) -> None:
        """On to a block; a jump back asks first whether it may."""
        if to <= block.number:
            go, stop = self.label(), self.label()
            ok = self.ask("ptx_may_go_on", number(self.now.line, 32))
            self.say(f"{(c := self.name())} = icmp ne i32 {ok}, 0")
            self.say(f"br i1 {c}, label %{go}, label %{stop}")
            self.say(f"{stop}:")
            self.say(f"ret i32 {FAULTED}")
            self.say(f"{go}:")
        self.say(f"br label %b{to}")

    def dispatch(self, operand: str) -> None:
        """On to a block whose number is computed."""
        here, go, stop = self.label(), self.label(), self.label()
        ok = self.ask("ptx_may_go_on", number(self.now.line, 32))
        self.say(f"{(c := self.name())} = icmp ne i32 {ok}, 0")
        self.say(f"br i1 {c}, label %{go}, label %{stop}")
        self.say(f"{stop}:")
        self.say(f"ret i32 {FAULTED}")
        self.say(f"{go}:")
        self.say(f"br label %{here}")
        self.say(f"{here}:")
        self.jumps.append((here, operand))
        self.say("br label %dispatch")

    def finish(self, block: PtxBlock) -> None:
        """The end of a block."""
        end = block.end
        live = self.word("live")
        if end is not None and BARRIER.fullmatch(end.op):
            if end.guard or end.args not in (("0",), ()):
                self.source.refuse(end.line, f"{end.op} {', '.join(end.args)} is not executed: only "
                                             "barrier 0 of all threads")  # fmt: skip
            ok = self.ask("ptx_may_wait", self.mask, number(end.line, 32))
            self.say(f"store i32 {block.number + 1}, ptr {self.field('resume')}, align 4")
            self.say(f"{(c := self.name())} = icmp ne i32 {ok}, 0")
            self.say(f"{(r := self.name())} = select i1 {c}, i32 {AT_BARRIER}, i32 {FAULTED}")
            self.say(f"ret i32 {r}")
        elif end is not None and end.op in LEAVE:
            if end.args:
                self.refuse(f"{end.op} {' '.join(end.args)[:40]} is not understood")
            any_left, none = self.label(), self.label()
            left = self.ask("ptx_leave", self.active(), number(block.number + 1, 32))
            self.say(f"{(c := self.name())} = icmp ne i32 {left}, 0")
            self.say(f"br i1 {c}, label %{any_left}, label %{none}")
            self.say(f"{none}:")
            self.say(f"ret i32 {LEFT}")
            self.say(f"{any_left}:")
            self.dispatch(self.ask("ptx_schedule"))
        else:
            self._branch(block, live)

    def _branch(self, block: PtxBlock, live: Value) -> None:
        end = block.end
        together = self.compare("eq", self.mask, live)
        alike, apart = self.label(), self.label()
        yes, no = block.next[0], block.next[-1]
        taken = self.active() if end is not None and end.guard else None
        if taken is not None:
            none = self.compare("eq", taken, number(0, 32))
            every = self.compare("eq", taken, self.mask)
            together = self.op("and", together, self.op("or", none, every))
        self.say(f"br i1 {together.text}, label %{alike}, label %{apart}")
        self.say(f"{apart}:")
        # a branch without a guard: all lanes at work go to the one block
        lanes = taken or self.mask
        self.dispatch(self.ask("ptx_branch", lanes, number(yes, 32), number(no, 32)))
        self.say(f"{alike}:")
        if taken is None:
            self.jump(block, yes)
            return
        on, off = self.label(), self.label()
        self.say(f"br i1 {every.text}, label %{on}, label %{off}")
        for name, to in ((on, yes), (off, no)):
            self.say(f"{name}:")
            self.jump(block, to)

    def translate(
        self, rule_of: Callable[[str], Callable[[Translator, PtxInstruction], None] | None]
    ) -> Translated:
        """The whole function; `rule_of` gives the rule of an instruction by its name."""
        for block in self.blocks:
            self.known, self.changed = {}, set()
            self.say(f"b{block.number}:")
            self.mask = self.word("mask")
            for i in block.code:
                self.now = i
                rule = rule_of(i.op)
                if rule is None:
                    self.refuse(f"instruction {i.op} is not known")
                    raise AssertionError
                rule(self, i)
            self.now = block.end or self.now
            self._keep(block.live_out)
            self.finish(block)
        return self._whole()

    def _whole(self) -> Translated:
        numbers = range(len(self.blocks))
        cases = " ".join(f"i32 {n}, label %b{n}" for n in numbers)
        out = [
            "define i32 @kernel(ptr %warp, ptr %frame, ptr %params) {",
            "entry:",
            f"%resume_at = getelementptr i8, ptr %warp, i64 {PLACES['resume']}",
            "%resume = load i32, ptr %resume_at, align 4",
            "br label %dispatch",
            "dispatch:",
            "%to = phi i32 [%resume, %entry]" + "".join(f", [{x}, %{b}]" for b, x in self.jumps),
            f"switch i32 %to, label %nowhere [{cases}]",
            "nowhere:",
            f"ret i32 {FAULTED}",
            *self.lines,
            "}",
        ]
        text = "\n".join([*self.declared.values(), *out, ""])
        return Translated(self.source, "kernel", text, max(self.frame, 64), self.granule)
