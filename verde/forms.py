"""The derivations of all operators, by form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from ree.kernels import opdef
from ree.kernels.casts import SCALAR
from ree.kernels.index import IndexRule
from ree.kernels.microcode import Program, Step, assemble
from ree.kernels.numerics import SEGMENT, SUM_BLOCK, SUM_LANES
from ree.kernels.opdef import Array, Bound, Form
from ree.kernels.scalar import (
    BOOL,
    F32,
    I64,
    Expr,
    Function,
    T,
    eq,
    is_nan,
    maximum,
    minimum,
    param,
    select,
)
from ree.kernels.types import DType
from ree.verde.derivation import (
    Bits,
    Call,
    Copy,
    Derivation,
    Entry,
    Equal,
    Operand,
    Operation,
    Read,
    Scalar,
    Undecidable,
    Witness,
    digits_of,
    flat_at,
    load_bits,
    read_bits,
)

FMA = Step("fma", F32, F32, ())
ADD = {DType.F32: Step("add", F32, F32, ()), DType.I64: Step("add", I64, I64, ())}
ZERO = Bits(0)


class Ruled(Derivation):
    """A derivation whose reads follow the operator's index rule."""

    def __init__(self, node: Bound, element: int) -> None:
        super().__init__(node, element)
        rule = opdef.get(node.op).index_rule
        assert rule is not None  # checked at registration
        self.rule: IndexRule = rule(node)
        self.out = digits_of(element, self.rule.out_digits)

    def read(self, source: int, k: int = 0, outside: Operand = ZERO) -> Operand:
        """Source's element for reduction index k."""
        digits = self.out + digits_of(k, self.rule.red_digits)
        flat = flat_at(self.rule.accesses[source], digits)
        return outside if flat is None else Read(source, flat)


class Pointwise(Ruled):
    """Parameters, then the steps of the scalar function."""

    def __init__(self, node: Bound, element: int) -> None:
        super().__init__(node, element)
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
        return Scalar(s, tuple(Entry(a) for a in s.args), self.program.tables)

    def where(self, i: int) -> str:
        n = len(self.program.params)
        return f"operand {i}" if i < n else f"step {i - n}: {self.program.steps[i - n].op}"


@lru_cache(maxsize=1024)
def _program(f: Function) -> Program:
    return assemble(f)


class Move(Ruled):
    """One element of a source, found by the index rule and at most three indices."""

    def __init__(self, node: Bound, element: int) -> None:
        super().__init__(node, element)
        self.steps: list[Operation] = []
        table = self.rule.accesses[0]
        terms = []
        for term in table.indirect:
            self.steps.append(Copy(self.read(term.operand)))
            terms.append((len(self.steps) - 1, term))
        source = self.read(0)
        if isinstance(source, Read):
            source = Read(0, source.flat, tuple(terms))
        if node.op == "pad" and not isinstance(source, Read):
            source = Bits(_constant(node))
        if node.op == "cat":
            source = next(r for i in range(len(node.inputs)) if isinstance(r := self.read(i), Read))
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
        if self.node.op == "full":
            return Copy(Bits(_constant(self.node)))
        x = self.node.int_attr("start") + self.node.int_attr("step") * self.element
        return Copy(Bits(x & (1 << 64) - 1))


class Contraction(Ruled):
    """Segments of 128 fused multiply-adds from +0, each followed by its addition to the total."""

    width = 4

    def __init__(self, node: Bound, element: int) -> None:
        super().__init__(node, element)
        self.k = int(np.prod(self.rule.red_digits, dtype=np.int64))

    @property
    def count(self) -> int:
        return max(self.k + -(-self.k // SEGMENT), 1)

    def operation(self, i: int) -> Operation:
        if self.k == 0:
            return Copy(ZERO)
        segment, r = divmod(i, SEGMENT + 1)
        k = segment * SEGMENT + r
        if r < SEGMENT and k < self.k:
            total = Entry(i - 1) if r else ZERO
            return Scalar(FMA, (self.read(0, k), self.read(1, k), total))
        before = Entry(segment * (SEGMENT + 1) - 1) if segment else ZERO
        return Scalar(ADD[DType.F32], (before, Entry(i - 1)))

    def where(self, i: int) -> str:
        segment, r = divmod(i, SEGMENT + 1)
        k = segment * SEGMENT + r
        return f"multiply-add k={k}" if r < SEGMENT and k < self.k else f"total of segment {segment}"


class Sum(Ruled):
    """Blocks of 1,024: additions to 64 lanes, then 63 folds; block results by the same rule."""

    width = 4

    def __init__(self, node: Bound, element: int) -> None:
        super().__init__(node, element)
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
            before = Entry(i - SUM_LANES) if r >= SUM_LANES else ZERO
            return Scalar(add, (before, self._element(level, block * SUM_BLOCK + r)))
        f, width, offset = r - size, SUM_LANES // 2, 0
        while f >= width:
            f, offset, width = f - width, offset + width, width // 2

        def lane(x: int) -> Operand:
            if offset:  # a result of the fold before, twice as wide
                return Entry(start + size + offset - 2 * width + x)
            last = x + (size - 1 - x) // SUM_LANES * SUM_LANES
            return Entry(start + last) if x < size else ZERO

        return Scalar(add, (lane(f), lane(f + width)))

    def _element(self, level: int, k: int) -> Operand:
        if level == 0:
            return self.read(0, k)
        first, n = self.levels[level - 1]
        size = min(SUM_BLOCK, n - k * SUM_BLOCK)
        return Entry(first + k * (SUM_BLOCK + SUM_LANES - 1) + size + SUM_LANES - 2)


class Cumsum(Derivation):
    """Additions of the elements in segments of 128; the total of the segments before is added last."""

    def __init__(self, node: Bound, element: int) -> None:
        super().__init__(node, element)
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
        before = Entry(segment * (SEGMENT + 1) - 1) if segment else ZERO
        if i == self.count - 1 or r == SEGMENT:
            return Scalar(self.add, (before, Entry(i - 1)))
        return Scalar(self.add, (Entry(i - 1) if r else ZERO, Read(0, self.base + k * self.stride)))


def _function(name: str, types: Sequence[T], build: Callable[..., Expr]) -> Program:
    return assemble(Function(name, tuple(types), build(*(param(i, t) for i, t in enumerate(types)))))


@lru_cache(maxsize=16)
def _extreme(op: str) -> Program:
    return _function(op, (F32, F32), maximum if op == "amax" else minimum)


class Extreme(Ruled):
    """The maximum or minimum so far, element after element."""

    width = 4

    @property
    def count(self) -> int:
        return max(int(np.prod(self.rule.red_digits, dtype=np.int64)), 1)

    def operation(self, i: int) -> Operation:
        infinite = 0xFF800000 if self.node.op == "amax" else 0x7F800000
        before = Entry(i - 1) if i else Bits(infinite)
        return Call(_extreme(self.node.op), (before, self.read(0, i)))


@lru_cache(maxsize=4)
def _better(greatest: bool) -> Program:
    """(k, best, x[k], x[best]) to the index of the better one; the later one only if it is strictly
    better, NaN best of all."""

    def build(k: Expr, best: Expr, x: Expr, top: Expr) -> Expr:
        beats = top < x if greatest else x < top
        return select(beats | (is_nan(x) & ~is_nan(top)), k, best)

    return _function("better", (I64, I64, F32, F32), build)


class ArgExtreme(Ruled):
    """The index of the best element so far."""

    @property
    def count(self) -> int:
        return int(np.prod(self.rule.red_digits, dtype=np.int64))

    def operation(self, i: int) -> Operation:
        if i == 0:
            return Copy(ZERO)
        dims, axis = self.node.inputs[0].dims, self.node.int_attr("dim")
        stride = int(np.prod(dims[axis + 1 :], dtype=np.int64))
        first = self.read(0, 0)
        assert isinstance(first, Read)
        from ree.kernels.index import Indirect

        top = Read(0, first.flat, ((i - 1, Indirect(0, dims[axis], stride)),))
        return Call(_better(self.node.op == "argmax"), (Bits(i), Entry(i - 1), self.read(0, i), top))


@lru_cache(maxsize=8)
def _precedes(t: T, descending: bool) -> Program:
    """(count, j, i, x[j], x[i]) to count + (x[j] comes before x[i]); ties by index."""

    def build(count: Expr, j: Expr, i: Expr, x: Expr, y: Expr) -> Expr:
        if t is F32:
            nx, ny = is_nan(x), is_nan(y)
            less, more = (x < y) | (~nx & ny), (y < x) | (nx & ~ny)
        else:
            less, more = x < y, y < x
        first = more if descending else less
        last = less if descending else more
        before = first | (~last & (j < i))
        return count + select(before, param(1, I64) * 0 + 1, param(1, I64) * 0)

    return _function("precedes", (I64, I64, I64, t, t), build)


class Sort(Derivation):
    """The defender names an index; the elements that come before it are counted; there must be as many
    as its position says."""

    def __init__(self, node: Bound, element: int, result: int) -> None:
        super().__init__(node, element)
        dims, axis = node.out.dims, node.int_attr("dim")
        self.result, self.n = result, dims[axis]
        self.stride = int(np.prod(dims[axis + 1 :], dtype=np.int64))
        self.position = element // self.stride % self.n
        self.base = element - self.position * self.stride

    @property
    def count(self) -> int:
        return self.n + 3

    def operation(self, i: int) -> Operation:
        from ree.kernels.index import Indirect

        if i == 0:
            return Witness(self.n)
        named = Read(0, self.base, ((0, Indirect(0, self.n, self.stride)),))
        if i <= self.n:
            j = i - 1
            program = _precedes(SCALAR[self.node.out.dtype], bool(self.node.attrs["descending"]))
            before = Entry(i - 1) if j else ZERO
            return Call(program, (before, Bits(j), Entry(0), Read(0, self.base + j * self.stride), named))
        if i == self.n + 1:
            return Equal(Entry(self.n), Bits(self.position))
        return Copy(named if self.result == 0 else Entry(0))

    def choose(self, i: int, sources: Sequence[Array]) -> int:
        from ree.kernels.opdef import apply

        order = apply("sort", sources, self.node.attrs)[1]
        return read_bits(order, self.element)


@lru_cache(maxsize=16)
def _update(t: T, add: bool, wrap: int) -> Program:
    """(value, index, place, update) to the value after an update; `wrap` is added to negative indices."""

    def build(value: Expr, index: Expr, place: Expr, update: Expr) -> Expr:
        if wrap:
            index = select(index < 0, index + wrap, index)
        return select(eq(index, place), value + update if add else update, value)

    return _function("update", (t, I64, I64, t), build)


class Scatter(Ruled):
    """The element itself, then every update along the axis, in order."""

    def __init__(self, node: Bound, element: int) -> None:
        super().__init__(node, element)
        self.n = node.inputs[2].dims[node.int_attr("dim")]
        size = node.out.dims[node.int_attr("dim")]
        wrap = size if node.op in ("index_put", "index_add") else 0
        self.update = _update(SCALAR[node.out.dtype], node.op in ("scatter_add", "index_add"), wrap)
        self.place = digits_of(element, node.out.dims)[node.int_attr("dim")]

    @property
    def count(self) -> int:
        return self.n + 1

    def operation(self, i: int) -> Operation:
        if i == 0:
            return Copy(self.read(0))
        args = (Entry(i - 1), self.read(1, i - 1), Bits(self.place), self.read(2, i - 1))
        return Call(self.update, args)


def derivation(node: Bound, element: int, result: int = 0) -> Derivation:
    """The derivation of one element; Undecidable for a composite or an element that does not exist."""
    if not 0 <= element < node.outputs[result].numel:
        raise Undecidable(f"{node.op} has no element {element}")
    form = opdef.get(node.op).form
    if node.op == "sort":
        return Sort(node, element, result)
    if node.op in ("scatter", "scatter_add", "index_put", "index_add"):
        return Scatter(node, element)
    by_name: dict[str, type[Derivation]] = {
        "cumsum": Cumsum, "amax": Extreme, "amin": Extreme, "argmax": ArgExtreme, "argmin": ArgExtreme,
    }  # fmt: skip
    by_form: dict[Form, type[Derivation]] = {
        Form.POINTWISE: Pointwise, Form.CONTRACTION: Contraction, Form.SUM: Sum, Form.MOVE: Move,
        Form.GATHER: Move, Form.CREATE: Create,
    }  # fmt: skip
    kind = by_name.get(node.op) or by_form.get(form)
    if kind is None:
        raise Undecidable(f"{node.op} is opened by its row program")
    return kind(node, element)


__all__ = ["BOOL", "Derivation", "derivation"]
