"""Tile functions: a pointwise group as one LLVM function over a rows x columns region.

The signature is `TileFn` of csrc/kernel.hpp. Rows are split into digits, so that a source may be
broadcast along, or strided over, any of them. Every stored float32 gets the canonical NaN.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import llvmlite.ir as ll

from ree.compiler.emit.jit import LOCK, TARGETS, MachineCode, compile_module
from ree.compiler.emit.scalar_llvm import emit as emit_scalar
from ree.compiler.emit.scalar_llvm import root_of
from ree.kernels.numerics import CANONICAL_NAN
from ree.kernels.scalar.language import walk
from ree.kernels.tilespec import Operand, TileSpec
from ree.kernels.types import DType

I64, I32, I8, I1, F32 = ll.IntType(64), ll.IntType(32), ll.IntType(8), ll.IntType(1), ll.FloatType()
PTR = ll.PointerType()
I16 = ll.IntType(16)
STORAGE = {DType.F32: F32, DType.I64: I64, DType.BOOL: I8, DType.I32: I32, DType.I16: I16, DType.I8: I8,
           DType.U8: I8, DType.F16: I16, DType.BF16: I16}  # fmt: skip
SIGNED = (DType.I16, DType.I8)
LONG = 16  # nodes of an expression


MOST = 512  # functions that are found again, a megabyte each; what an executable uses stays while it does
_compiled: OrderedDict[tuple[str, TileSpec], MachineCode] = OrderedDict()


def compiled(specs: Sequence[TileSpec], isa: str) -> list[MachineCode]:
    """The tile functions, compiling those not seen before as one module."""
    with LOCK:
        found = {s: _compiled[isa, s] for s in dict.fromkeys(specs) if (isa, s) in _compiled}
        missing = [s for s in dict.fromkeys(specs) if s not in found]
        if missing:
            names = [f"tile{i}" for i in range(len(missing))]
            text = module_text(missing, names, isa)
            found |= zip(missing, compile_module(text, names, TARGETS[isa]), strict=True)
        for s, code in found.items():
            _compiled[isa, s] = code
            _compiled.move_to_end((isa, s))
        while len(_compiled) > MOST:
            _compiled.popitem(last=False)
    return [found[s] for s in specs]


def module_text(specs: Sequence[TileSpec], names: Sequence[str], isa: str) -> str:
    """LLVM assembly text of the tile functions."""
    module = ll.Module("tiles")
    for spec, name in zip(specs, names, strict=True):
        _Emitter(module, spec, name, isa).build()
    return str(module)


class _Emitter:
    def __init__(self, module: ll.Module, spec: TileSpec, name: str, isa: str) -> None:
        self.spec, self.target = spec, TARGETS[isa]
        signature = ll.FunctionType(ll.VoidType(), [PTR, PTR, I64, I64, I64, I64])
        self.fn = ll.Function(module, signature, name)
        self.b = ll.IRBuilder(self.fn.append_basic_block("entry"))
        self.operands = spec.operands

    def build(self) -> None:
        bufs, params, r0, r1, c0, c1 = self.fn.args
        b, digits = self.b, self.spec.row_digits
        base = [self._load(PTR, bufs, i) for i in range(len(self.operands))]
        at = range(digits + len(self.operands) * (digits + 1))
        extents = [self._load(I64, params, i) for i in self.spec.extents(at)]
        strides = [[self._load(I64, params, i) for i in self.spec.strides(at, j)]
                   for j in range(len(self.operands))]  # fmt: skip
        lanes = self.target.lanes
        wide = lanes * self._interleaved()
        ends = [b.sub(c1, b.srem(b.sub(c1, c0), I64(n))) for n in (wide, lanes)]
        with _Loop(b, r0, r1, I64(1)) as r:
            offsets = self._digits(r, extents)
            rows = []
            for o, p, s in zip(self.operands, base, strides, strict=True):
                offset: ll.Value = I64(0)
                for moves, digit, stride in zip(o.rows, offsets, s, strict=False):
                    if moves:
                        offset = b.add(offset, b.mul(digit, stride))
                rows.append(b.gep(p, [offset], source_etype=STORAGE[o.dtype]))
            once = {
                i: self._get(o, rows[i]) for i, o in enumerate(self.spec.sources) if o.inner == 0
            }
            inner = [s[-1] for s in strides]
            if wide > lanes:
                with _Loop(b, c0, ends[0], I64(wide)) as c:
                    self._body(rows, inner, once, c, wide)
            with _Loop(b, ends[0] if wide > lanes else c0, ends[1], I64(lanes)) as c:
                self._body(rows, inner, once, c, lanes)
            with _Loop(b, ends[1], c1, I64(1)) as c:
                self._body(rows, inner, once, c, 1)
        b.ret_void()

    def _interleaved(self) -> int:
        """Vectors of a turn. A long expression waits for each of its operations unless others are
        between them; memory bounds a short one, and one that gathers its operands element by element."""
        if any(o.inner == 2 for o in self.spec.sources):
            return 1
        nodes = sum(1 for s in self.spec.steps for _ in walk(root_of(s.function)))
        return self.target.interleave if nodes >= LONG else 1

    def _load(self, t: ll.Type, p: ll.Value, i: int) -> ll.Value:
        return self.b.load(self.b.gep(p, [I64(i)], source_etype=t), typ=t)

    def _digits(self, r: ll.Value, extents: list[ll.Value]) -> list[ll.Value]:
        out: list[ll.Value] = []
        for extent in reversed(extents[1:]):
            out.append(self.b.urem(r, extent))
            r = self.b.udiv(r, extent)
        return [r, *reversed(out)]

    def _get(self, o: Operand, p: ll.Value) -> ll.Value:
        return self._widen(o, self.b.load(p, typ=STORAGE[o.dtype], align=o.dtype.size), 1)

    def _widen(self, o: Operand, x: ll.Value, lanes: int) -> ll.Value:
        """A loaded element as its scalar type."""
        if o.dtype is DType.BOOL:
            zero = I8(0) if lanes == 1 else ll.Constant(x.type, [0] * lanes)
            return self.b.icmp_unsigned("!=", x, zero)
        if o.dtype.size >= 4:
            return x
        wide = I32 if lanes == 1 else ll.VectorType(I32, lanes)
        return self.b.sext(x, wide) if o.dtype in SIGNED else self.b.zext(x, wide)

    def _body(
        self,
        rows: list[ll.Value],
        inner: list[ll.Value],
        once: dict[int, ll.Value],
        c: ll.Value,
        lanes: int,
    ) -> None:
        b = self.b
        values = []
        for i, o in enumerate(self.spec.sources):
            if i in once:
                values.append(_splat(b, once[i], lanes))
            elif o.inner == 1:
                values.append(self._load_lanes(o, self._at(o, rows[i], c), lanes))
            else:
                values.append(self._gather(o, rows[i], inner[i], c, lanes))
        cache: dict[object, ll.Value] = {}
        for step in self.spec.steps:
            args = [values[j] for j in step.args]
            values.append(
                emit_scalar(b, step.function, args, lanes, self.target.hardware_fma, cache)
            )
        first = len(self.spec.sources)
        results = [(o, self._at(o, rows[first + k], c), values[first + index])
                   for k, (index, o) in enumerate(self.spec.stores)]  # fmt: skip
        floats = [x for o, _, x in results if o.dtype is DType.F32]
        if (
            lanes <= self.target.lanes or not floats
        ):  # a branch pays where it serves several vectors
            self._store_all(results, lanes, True)
            return
        with b.if_else(self._any_nan(floats, lanes), likely=False) as (some, none):
            with some:
                self._store_all(results, lanes, True)
            with none:
                self._store_all(results, lanes, False)

    def _any_nan(self, values: list[ll.Value], lanes: int) -> ll.Value:
        """Whether one of these vectors has a NaN. A comparison looks at two elements, so half of each is
        compared with the other half."""
        b, half, found = self.b, lanes // 2, None
        halves = [
            ll.Constant(ll.VectorType(I32, half), [*range(at, at + half)]) for at in (0, half)
        ]
        for x in values:
            low, high = (b.shuffle_vector(x, x, places) for places in halves)
            unordered = b.fcmp_unordered("uno", low, high)
            found = unordered if found is None else b.or_(found, unordered)
        bits = ll.IntType(half)
        return b.icmp_unsigned("!=", b.bitcast(found, bits), bits(0))

    def _store_all(
        self, results: list[tuple[Operand, ll.Value, ll.Value]], lanes: int, nans: bool
    ) -> None:
        for o, p, x in results:
            self._store_lanes(o, p, x, lanes, nans)

    def _at(self, o: Operand, row: ll.Value, c: ll.Value) -> ll.Value:
        return self.b.gep(row, [c], source_etype=STORAGE[o.dtype])

    def _load_lanes(self, o: Operand, p: ll.Value, lanes: int) -> ll.Value:
        if lanes == 1:
            return self._get(o, p)
        t = ll.VectorType(STORAGE[o.dtype], lanes)
        return self._widen(o, self.b.load(p, typ=t, align=o.dtype.size), lanes)

    def _gather(
        self, o: Operand, row: ll.Value, stride: ll.Value, c: ll.Value, lanes: int
    ) -> ll.Value:
        parts = [
            self._get(o, self._at(o, row, self.b.mul(self.b.add(c, I64(j)), stride)))
            for j in range(lanes)
        ]
        if lanes == 1:
            return parts[0]
        out: ll.Value = ll.Constant(ll.VectorType(parts[0].type, lanes), ll.Undefined)
        for j, x in enumerate(parts):
            out = self.b.insert_element(out, x, I32(j))
        return out

    def _store_lanes(self, o: Operand, p: ll.Value, x: ll.Value, lanes: int, nans: bool) -> None:
        b = self.b
        if o.dtype is DType.F32:
            if not nans:
                b.store(x, p, align=o.dtype.size)
                return
            x = self._canonical(x, lanes)
        elif o.dtype is DType.BOOL:
            x = b.zext(x, I8 if lanes == 1 else ll.VectorType(I8, lanes))
        elif o.dtype.size < 4:
            narrow = STORAGE[o.dtype]
            x = b.trunc(x, narrow if lanes == 1 else ll.VectorType(narrow, lanes))
        b.store(x, p, align=o.dtype.size)

    def _canonical(self, x: ll.Value, lanes: int) -> ll.Value:
        """The bits of x, NaNs as 0x7fc00000. In integers: to LLVM all float NaNs are alike, and it
        removes a select between a NaN and another (seen with sqrt, LLVM 22)."""
        b = self.b
        t = I32 if lanes == 1 else ll.VectorType(I32, lanes)

        def constant(v: int) -> ll.Constant:
            return ll.Constant(t, v if lanes == 1 else [v] * lanes)

        bits = b.bitcast(x, t)
        size = b.and_(bits, constant(0x7FFFFFFF))
        nan = b.icmp_unsigned(">", size, constant(0x7F800000))
        return b.select(nan, constant(CANONICAL_NAN), bits)


class _Loop:
    """for i in range(start, stop, step): the body is emitted inside the `with` block."""

    def __init__(self, b: ll.IRBuilder, start: ll.Value, stop: ll.Value, step: ll.Value) -> None:
        self.b, self.start, self.stop, self.step = b, start, stop, step

    def __enter__(self) -> ll.Value:
        b = self.b
        before = b.block
        self.head = b.append_basic_block("head")
        body = b.append_basic_block("body")
        self.end = b.append_basic_block("end")
        b.branch(self.head)
        b.position_at_end(self.head)
        self.i = b.phi(I64)
        self.i.add_incoming(self.start, before)
        b.cbranch(b.icmp_signed("<", self.i, self.stop), body, self.end)
        b.position_at_end(body)
        return self.i

    def __exit__(self, *exc: object) -> None:
        b = self.b
        self.i.add_incoming(b.add(self.i, self.step), b.block)
        b.branch(self.head)
        b.position_at_end(self.end)


def _splat(b: ll.IRBuilder, x: ll.Value, lanes: int) -> ll.Value:
    if lanes == 1:
        return x
    t = ll.VectorType(x.type, lanes)
    one = b.insert_element(ll.Constant(t, ll.Undefined), x, I32(0))
    mask = ll.Constant(ll.VectorType(I32, lanes), [0] * lanes)
    return b.shuffle_vector(one, ll.Constant(t, ll.Undefined), mask)
