"""The derivations of all operators, by form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ree.kernels import opdef
from ree.kernels.numerics import SEGMENT, SUM_BLOCK, SUM_LANES
from ree.kernels.opdef import Array, Bound, Form
from ree.kernels.scalar.language import F32, I32, I64, Function, param
from ree.kernels.scalar.microcode import Microcode, MicroStep, assemble
from ree.kernels.types import DType
from ree.verde.derivation import (
    Bits,
    Copy,
    Derivation,
    EarlierEntry,
    ElementRead,
    FunctionCall,
    Operand,
    Operation,
    Scalar,
    Undecidable,
    load_bits,
)
from ree.verde.fast_entries import contraction, integer_contraction, lane_sums, running_sum
from ree.verde.ruled import ZERO, Ruled
from ree.verde.selections import ArgExtreme, Extreme, Scatter, Sort

_MULTIPLY_ADD = assemble(
    Function("multiply_add", (I32, I32, I32), param(0, I32) * param(1, I32) + param(2, I32))
)
FMA = {DType.F32: MicroStep("fma", F32, F32, ())}
ADD = {DType.F32: MicroStep("add", F32, F32, ()), DType.I64: MicroStep("add", I64, I64, ())}


class Pointwise(Ruled):
    """Parameters, then the steps of the scalar function."""

    def __init__(self, node: Bound, element: int, result: int = 0) -> None:
        super().__init__(node, element, result)
        scalar = opdef.get(node.op).scalar
        assert scalar is not None
        self.program = _program(scalar([t.dtype for t in node.inputs], node.attrs))
        types = (*self.program.params, *(s.result for s in self.program.steps))
        self.width = 8 if I64 in types else 4

    @property
    def count(self) -> int:
        return len(self.program.params) + len(self.program.steps)

    def operation(self, i: int) -> Operation:
        n = len(self.program.params)
        if i < n:
            return Copy(self.read(i))
        s = self.program.steps[i - n]
        if s.op == "const":
            return Copy(Bits(self.program.execute(s, ())))
        return Scalar(s, tuple(EarlierEntry(a) for a in s.args), self.program.tables)

    def where(self, i: int) -> str:
        n = len(self.program.params)
        return f"operand {i}" if i < n else f"step {i - n}: {self.program.steps[i - n].op}"


@lru_cache(maxsize=1024)
def _program(f: Function) -> Microcode:
    return assemble(f)


class Move(Ruled):
    """One element of a source, found by the index rule and at most three indices."""

    def __init__(self, node: Bound, element: int, result: int = 0) -> None:
        super().__init__(node, element, result)
        self.steps: list[Operation] = []
        table = self.rule.accesses[0]
        terms = []
        for term in table.indirect:
            self.steps.append(Copy(self.read(term.operand)))
            terms.append((len(self.steps) - 1, term))
        source = self.read(0)
        if isinstance(source, ElementRead):
            source = ElementRead(0, source.flat, tuple(terms))
        form = opdef.get(node.op).form
        if form is Form.PAD and not isinstance(source, ElementRead):
            source = Bits(_constant(node))
        if form is Form.CAT:
            source = next(
                r for i in range(len(node.inputs)) if isinstance(r := self.read(i), ElementRead)
            )
        self.steps.append(Copy(source))

    @property
    def count(self) -> int:
        return len(self.steps)

    def operation(self, i: int) -> Operation:
        return self.steps[i]


def _constant(node: Bound) -> int:
    """The bits of the attribute `value`."""
    x = np.asarray(node.attrs["value"]).astype(node.out.dtype.numpy)
    return load_bits(x.tobytes(), node.out.dtype)


class Create(Derivation):
    """An element that needs no source."""

    @property
    def count(self) -> int:
        return 1

    def operation(self, i: int) -> Operation:
        if "value" in self.node.attrs:
            return Copy(Bits(_constant(self.node)))
        x = self.node.int_attr("start") + self.node.int_attr("step") * self.element
        return Copy(Bits(x & (1 << 64) - 1))


class Contraction(Ruled):
    """Segments of fused multiply-adds from +0 (128 each in float32's chain), each followed by its addition to
    the total."""

    width = 4

    def __init__(self, node: Bound, element: int, result: int = 0) -> None:
        super().__init__(node, element, result)
        chain = opdef.get(node.op).form.chain
        assert chain is not None  # of a contraction
        self.segment = chain.segment
        self.k = int(np.prod(self.rule.red_digits, dtype=np.int64))

    @property
    def count(self) -> int:
        return max(self.k + -(-self.k // self.segment), 1)

    def operation(self, i: int) -> Operation:
        if self.k == 0:
            return Copy(ZERO)
        segment, r = divmod(i, self.segment + 1)
        k = segment * self.segment + r
        if r < self.segment and k < self.k:
            total = EarlierEntry(i - 1) if r else ZERO
            return Scalar(FMA[DType.F32], (self.read(0, k), self.read(1, k), total))
        before = EarlierEntry(segment * (self.segment + 1) - 1) if segment else ZERO
        return Scalar(ADD[DType.F32], (before, EarlierEntry(i - 1)))

    def entries(self, sources: Sequence[Array]) -> Array:
        if self.k == 0:
            return super().entries(sources)
        return contraction(self.row(0, sources[0]), self.row(1, sources[1]), self.k)

    def where(self, i: int) -> str:
        segment, r = divmod(i, self.segment + 1)
        k = segment * self.segment + r
        added = r < self.segment and k < self.k
        return f"multiply-add k={k}" if added else f"total of segment {segment}"


class IntegerContraction(Contraction):
    """Multiply-adds of integers, each to the total of those before."""

    @property
    def count(self) -> int:
        return max(self.k, 1)

    def operation(self, i: int) -> Operation:
        if self.k == 0:
            return Copy(ZERO)
        total = EarlierEntry(i - 1) if i else ZERO
        return FunctionCall(_MULTIPLY_ADD, (self.read(0, i), self.read(1, i), total))

    def entries(self, sources: Sequence[Array]) -> Array:
        if self.k == 0:
            return super().entries(sources)
        return integer_contraction(self.row(0, sources[0]), self.row(1, sources[1]), self.k)

    def where(self, i: int) -> str:
        return f"multiply-add k={i}"


class Sum(Ruled):
    """Blocks of 1,024: additions to 64 lanes, then 63 folds; block results by the same rule."""

    width = 4

    def __init__(self, node: Bound, element: int, result: int = 0) -> None:
        super().__init__(node, element, result)
        n = int(np.prod(self.rule.red_digits, dtype=np.int64))
        self.levels: list[tuple[int, int]] = []  # (first operation, elements)
        at = 0
        while True:
            self.levels.append((at, n))
            at += n + (SUM_LANES - 1) * -(-n // SUM_BLOCK)
            n = -(-n // SUM_BLOCK)
            if n <= 1:
                break
        self._count = max(at, 1)

    @property
    def count(self) -> int:
        return self._count

    def operation(self, i: int) -> Operation:
        if self.levels[0][1] == 0:
            return Copy(ZERO)
        level = max(j for j, (first, _) in enumerate(self.levels) if first <= i)
        first, n = self.levels[level]
        block, r = divmod(i - first, SUM_BLOCK + SUM_LANES - 1)
        start = first + block * (SUM_BLOCK + SUM_LANES - 1)
        size = min(SUM_BLOCK, n - block * SUM_BLOCK)
        add = ADD[DType.F32]
        if r < size:  # lane r mod 64 takes element r of the block
            before = EarlierEntry(i - SUM_LANES) if r >= SUM_LANES else ZERO
            return Scalar(add, (before, self._element(level, block * SUM_BLOCK + r)))
        f, width, offset = r - size, SUM_LANES // 2, 0
        while f >= width:
            f, offset, width = f - width, offset + width, width // 2

        def lane(x: int) -> Operand:
            if offset:  # a result of the fold before, twice as wide
                return EarlierEntry(start + size + offset - 2 * width + x)
            last = x + (size - 1 - x) // SUM_LANES * SUM_LANES
            return EarlierEntry(start + last) if x < size else ZERO

        return Scalar(add, (lane(f), lane(f + width)))

    def entries(self, sources: Sequence[Array]) -> Array:
        n = self.levels[0][1]
        return lane_sums(self.row(0, sources[0]), n) if n else super().entries(sources)

    def _element(self, level: int, k: int) -> Operand:
        if level == 0:
            return self.read(0, k)
        first, n = self.levels[level - 1]
        size = min(SUM_BLOCK, n - k * SUM_BLOCK)
        return EarlierEntry(first + k * (SUM_BLOCK + SUM_LANES - 1) + size + SUM_LANES - 2)


class Cumsum(Derivation):
    """Additions of the elements in segments of 128; the total of the segments before is added last."""

    def __init__(self, node: Bound, element: int, result: int = 0) -> None:
        super().__init__(node, element, result)
        self.add = ADD[node.out.dtype]
        self.width = node.out.dtype.size
        dims, axis = node.out.dims, node.int_attr("dim")
        self.stride = int(np.prod(dims[axis + 1 :], dtype=np.int64))
        self.position = element // self.stride % dims[axis]
        self.base = element - self.position * self.stride

    @property
    def count(self) -> int:
        whole, rest = divmod(self.position, SEGMENT)
        return whole * (SEGMENT + 1) + rest + 2

    def operation(self, i: int) -> Operation:
        segment, r = divmod(i, SEGMENT + 1)
        k = segment * SEGMENT + r
        before = EarlierEntry(segment * (SEGMENT + 1) - 1) if segment else ZERO
        if i == self.count - 1 or r == SEGMENT:
            return Scalar(self.add, (before, EarlierEntry(i - 1)))
        return Scalar(
            self.add,
            (EarlierEntry(i - 1) if r else ZERO, ElementRead(0, self.base + k * self.stride)),
        )

    def entries(self, sources: Sequence[Array]) -> Array:
        x = sources[0].reshape(-1)[self.base :: self.stride]
        return running_sum(lambda start, at: x[start:at], self.position + 1, x.dtype)


# of every form but that of composites
DERIVATIONS: dict[Form, type[Derivation]] = {
    Form.POINTWISE: Pointwise,
    Form.CONTRACTION: Contraction,
    Form.INTEGER_CONTRACTION: IntegerContraction,
    Form.SUM: Sum,
    Form.EXTREME: Extreme,
    Form.ARGUMENT: ArgExtreme,
    Form.SCAN: Cumsum,
    Form.SORT: Sort,
    Form.MOVEMENT: Move,
    Form.TABLE: Move,
    Form.CAT: Move,
    Form.PAD: Move,
    Form.CREATE: Create,
    Form.SCATTER: Scatter,
}


def derivation(node: Bound, element: int, result: int = 0) -> Derivation:
    """The derivation of one element; Undecidable for a composite or an element that does not exist."""
    if not 0 <= element < node.outputs[result].numel:
        raise Undecidable(f"{node.op} has no element {element}")
    kind = DERIVATIONS.get(opdef.get(node.op).form)
    if kind is None:
        raise Undecidable(f"{node.op} is opened by its row program")
    return kind(node, element, result)


__all__ = ["DERIVATIONS", "Derivation", "derivation"]
