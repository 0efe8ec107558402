# pragma version 0.4.3
"""
@title Operations
@notice How one element comes about: what operation i does to which operands.
@dev verde/forms.py, verde/ruled.py and verde/selections.py have the same.
"""

from ..generated import forms
from ..generated import numbers
from ..generated import protocol
from . import rules
from . import calldata
from . import states

FULL: constant(uint256) = numbers.SUM_BLOCK + numbers.SUM_LANES - 1  # operations of a whole block of a sum

OPERATION_BYTES: constant(uint256) = 32 * 22  # of an Operation, encoded

# operations
COPY: constant(uint256) = 0
CODE: constant(uint256) = 1  # a step of microcode
FMA: constant(uint256) = 2
ADD: constant(uint256) = 3
ADD64: constant(uint256) = 4
EXTREME: constant(uint256) = 5
BETTER: constant(uint256) = 6
PRECEDES: constant(uint256) = 7
EQUAL: constant(uint256) = 8
UPDATE: constant(uint256) = 9
WITNESS: constant(uint256) = 10
MULTIPLY_ADD: constant(uint256) = 11  # of integers

# operands
BITS: constant(uint256) = 0
ENTRY: constant(uint256) = 1
READ: constant(uint256) = 2  # reduction index `value` of a source
NAMED: constant(uint256) = 3  # reduction index in entry `value`, of source 0
TERMS: constant(uint256) = 4  # source 0 with its indirect terms, in the entries from 0


struct Operand:
    kind: uint256
    value: uint256
    source: uint256


struct Operation:
    what: uint256
    step: uint256  # of microcode
    count: uint256  # of operands
    operands: Operand[5]
    outside: uint256  # what a read outside its bounds gives
    # positions in the move: the index rule, the leaf with the claimed entry; and the next blob
    rule: uint256
    leaf: uint256
    blob: uint256


@internal
@pure
def _entry(i: uint256) -> Operand:
    return Operand(kind=ENTRY, value=i, source=0)


@internal
@pure
def _bits(x: uint256) -> Operand:
    return Operand(kind=BITS, value=x, source=0)


@internal
@pure
def _read(source: uint256, k: uint256) -> Operand:
    return Operand(kind=READ, value=k, source=source)


@internal
@view
def operation(
    s: states.State, record: uint256, r: rules.Rule, attrs: uint256, code: uint256, sources: uint256
) -> Operation:
    """
    @notice What operation s.entry of element s.element does.
    @dev record, attrs and code are positions of the node's record, attributes and microcode.
    """
    p: Operation = empty(Operation)
    i: uint256 = s.entry
    if s.form == forms.POINTWISE:
        if i >= sources:
            return self._step(code, sources, i - sources)
        p.count = 1
        p.operands[0] = self._read(i, 0)
        return p
    if s.form == forms.CONTRACTION or s.form == forms.SCAN:
        return self._segments(s, r, attrs)
    if s.form == forms.SUM:
        return self._sum(r, i)
    if s.form == forms.INTEGER_CONTRACTION:
        p.count = 1  # a copy of 0
        if rules.reduction(r) > 0:
            p.what = MULTIPLY_ADD
            p.count = 3
            p.operands[0] = self._read(0, i)
            p.operands[1] = self._read(1, i)
            if i > 0:
                p.operands[2] = self._entry(i - 1)
        return p
    if s.form == forms.EXTREME:
        p.what = EXTREME
        p.count = 3
        p.operands[0] = self._entry(i - 1) if i > 0 else self._bits(511 * 2**23 if calldata.u16(record) == numbers.OPERATOR_AMAX else 255 * 2**23)
        p.operands[1] = self._read(0, i)
        p.operands[2] = self._bits(calldata.u16(record) - numbers.OPERATOR_AMAX)
    elif s.form == forms.ARGUMENT:
        p.count = 1  # a copy of 0
        if i > 0:
            p.what = BETTER
            p.count = 5
            p.operands[0] = self._bits(i)
            p.operands[1] = self._entry(i - 1)
            p.operands[2] = self._read(0, i)
            p.operands[3] = Operand(kind=NAMED, value=i - 1, source=0)
            p.operands[4] = self._bits(calldata.u16(record) - numbers.OPERATOR_ARGMAX)
    elif s.form == forms.SORT:
        return self._sort(s, record, r, attrs)
    elif s.form == forms.SCATTER:
        p.count = 1
        p.operands[0] = self._read(0, 0)
        if i > 0:
            p.what = UPDATE
            p.count = 5
            p.operands[0] = self._entry(i - 1)
            p.operands[1] = self._read(1, i - 1)
            axis: uint256 = calldata.u64(attrs)
            p.operands[2] = self._bits(rules.digit(r, s.element, axis))
            p.operands[3] = self._read(2, i - 1)
            opcode: uint256 = calldata.u16(record)
            # odd codes add; from index_put on a negative index counts from the end
            p.operands[4] = self._bits((opcode & 1) + (rules.size(r, axis) << 1 if opcode >= numbers.OPERATOR_INDEX_PUT else 0))
    else:
        p.count = 1
        p.operands[0] = self._moved(s, record, r, attrs, sources)
        if s.form == forms.PAD:
            p.outside = self._value(s.dtype, attrs, 16 + 16 * calldata.u64(attrs))
    return p


@internal
@view
def _moved(s: states.State, record: uint256, r: rules.Rule, attrs: uint256, sources: uint256) -> Operand:
    """
    @notice The operand of a copy: of gathers, cat, pad, and of what needs no source.
    """
    if s.form == forms.CAT:
        for i: uint256 in range(sources, bound=4):
            if rules.flat(r, i, s.element, 0)[0]:
                return self._read(i, 0)
        raise "proof: cat"
    if s.form == forms.CREATE:
        if calldata.u16(record) == numbers.OPERATOR_FULL:  # attributes: dtype, shape, value
            return self._bits(self._value(s.dtype, attrs, 16 + 8 * calldata.u64(attrs + 8)))
        # n, start, step
        x: int256 = calldata.integer(attrs + 8) + calldata.integer(attrs + 16) * convert(s.element, int256)
        return self._bits(self._wrapped(x))
    if s.form == forms.TABLE and s.entry < rules.terms(r, 0):
        t: rules.Term = rules.term(r, 0, s.entry)
        return self._read(t.operand, 0)
    if s.form == forms.TABLE:
        return Operand(kind=TERMS, value=0, source=0)
    return self._read(0, 0)


@internal
@pure
def _wrapped(x: int256) -> uint256:
    if x < 0:
        return unsafe_sub(0, convert(-x, uint256)) & (2**64 - 1)
    return convert(x, uint256) & (2**64 - 1)


@internal
@view
def _value(dtype: uint256, attrs: uint256, at: uint256) -> uint256:
    """
    @notice An attribute as an element of this type; a float stands in the low 32 bits.
    """
    x: uint256 = calldata.u64(attrs + at)
    if dtype == numbers.DTYPE_I64:
        return x
    assert dtype == numbers.DTYPE_F32 or dtype == numbers.DTYPE_I32 or dtype == numbers.DTYPE_BOOL, "proof: attribute"
    return x & (2**32 - 1)


@internal
@view
def _step(code: uint256, params: uint256, i: uint256) -> Operation:
    """
    @notice Step i of a scalar function.
    """
    p: Operation = empty(Operation)
    p.what = CODE
    steps: uint256 = calldata.u32(code + 4)
    p.step = calldata.u64(code + 8 * (1 + params + i))
    op: uint256 = p.step >> 56
    a: uint256 = (p.step >> 32) & 65535
    b: uint256 = (p.step >> 16) & 65535
    if op == numbers.OP_CONST:
        return p
    p.operands[0] = self._entry(a)
    p.count = 1
    if op == numbers.OP_TABLE:
        table: uint256 = code + 8 * (1 + params + steps + 8 * b)
        p.count = 3
        p.operands[1] = self._bits(calldata.number(table, 32))
        p.operands[2] = self._bits(calldata.number(table + 32, 32))
    elif numbers.OPS_OF_ONE >> op & 1 == 0:
        p.count = 2
        p.operands[1] = self._entry(b)
        if op == numbers.OP_FMA or op == numbers.OP_SELECT:
            p.count = 3
            p.operands[2] = self._entry(p.step & 65535)
    return p


@internal
@view
def _segments(s: states.State, r: rules.Rule, attrs: uint256) -> Operation:
    """
    @notice Contractions, and running sums, whose reduction index counts backwards.
    """
    p: Operation = empty(Operation)
    segment: uint256 = s.entry // (numbers.SEGMENT + 1)
    j: uint256 = s.entry % (numbers.SEGMENT + 1)
    k: uint256 = segment * numbers.SEGMENT + j
    before: Operand = self._entry(segment * (numbers.SEGMENT + 1) - 1) if segment > 0 else self._bits(0)
    last: Operand = self._entry(s.entry - 1) if s.entry > 0 else self._bits(0)
    running: bool = s.form == forms.SCAN
    p.what = ADD
    if running and s.dtype == numbers.DTYPE_I64:
        p.what = ADD64
    p.count = 2
    if s.entry == s.limit - 1 or j == numbers.SEGMENT:
        if not running and s.limit == 1:  # nothing to add up
            p.what = COPY
            p.count = 1
            p.operands[0] = self._bits(0)
            return p
        p.operands[0] = before
        p.operands[1] = last
        return p
    if j == 0:
        last = self._bits(0)
    if running:
        position: uint256 = rules.digit(r, s.element, calldata.u64(attrs))
        p.operands[0] = last
        p.operands[1] = self._read(0, position - k)
        return p
    p.what = FMA
    p.count = 3
    p.operands[0] = self._read(0, k)
    p.operands[1] = self._read(1, k)
    p.operands[2] = last
    return p


@internal
@view
def _sum(r: rules.Rule, i: uint256) -> Operation:
    p: Operation = empty(Operation)
    n: uint256 = rules.reduction(r)
    if n == 0:
        p.count = 1
        return p
    # the level, its first operation and its elements; the same of the level below
    first: uint256 = 0
    below: uint256 = 0
    n_below: uint256 = 0
    for _: uint256 in range(5):
        end: uint256 = first + n + (numbers.SUM_LANES - 1) * ((n + numbers.SUM_BLOCK - 1) // numbers.SUM_BLOCK)
        if i < end:
            break
        below = first
        n_below = n
        first = end
        n = (n + numbers.SUM_BLOCK - 1) // numbers.SUM_BLOCK
    part: uint256 = (i - first) // FULL
    j: uint256 = (i - first) % FULL
    start: uint256 = first + part * FULL
    size: uint256 = min(numbers.SUM_BLOCK, n - part * numbers.SUM_BLOCK)
    p.what = ADD
    p.count = 2
    if j < size:  # lane j mod 64 takes element j of the block
        p.operands[0] = self._entry(i - numbers.SUM_LANES) if j >= numbers.SUM_LANES else self._bits(0)
        k: uint256 = part * numbers.SUM_BLOCK + j
        if first == 0:
            p.operands[1] = self._read(0, k)
        else:
            size = min(numbers.SUM_BLOCK, n_below - k * numbers.SUM_BLOCK)
            p.operands[1] = self._entry(below + k * FULL + size + numbers.SUM_LANES - 2)
        return p
    f: uint256 = j - size
    half: uint256 = numbers.SUM_LANES // 2
    offset: uint256 = 0
    for _: uint256 in range(6):
        if f < half:
            break
        f -= half
        offset += half
        half = half >> 1
    for side: uint256 in range(2):
        x: uint256 = f + side * half
        if offset > 0:  # a result of the fold before, twice as wide
            p.operands[side] = self._entry(start + size + offset - 2 * half + x)
        elif x < size:
            p.operands[side] = self._entry(start + x + (size - 1 - x) // numbers.SUM_LANES * numbers.SUM_LANES)
    return p


@internal
@view
def _sort(s: states.State, record: uint256, r: rules.Rule, attrs: uint256) -> Operation:
    """
    @notice The index that the defender names, the elements counted that come before it, their number.
    """
    p: Operation = empty(Operation)
    n: uint256 = rules.reduction(r)
    i: uint256 = s.entry
    if i == 0:
        p.what = WITNESS
        p.count = 1
        p.operands[0] = self._bits(n)
    elif i <= n:
        p.what = PRECEDES
        p.count = 5
        if i > 1:
            p.operands[0] = self._entry(i - 1)
        # its index and, above it, the direction
        p.operands[1] = self._bits((i - 1) | (calldata.u64(attrs) << 64))
        p.operands[2] = self._entry(0)
        p.operands[3] = self._read(0, i - 1)
        p.operands[4] = Operand(kind=NAMED, value=0, source=0)
    elif i == n + 1:
        p.what = EQUAL
        p.count = 2
        p.operands[0] = self._entry(n)
        p.operands[1] = self._bits(rules.digit(r, s.element, calldata.u64(attrs + 8)))
    else:
        p.count = 1
        p.operands[0] = self._entry(0)
        if calldata.u8(record + protocol.RECORD_RESULT) == 0:
            p.operands[0] = Operand(kind=NAMED, value=0, source=0)
    return p
