# pragma version 0.4.3
"""
@title Derivations
@notice How one element comes about: the number of operations, and how wide their results are.
@dev verde/forms.py, verde/ruled.py and verde/selections.py have the same.
"""

from ..generated import forms
from ..generated import numbers
from . import rules
from . import calldata


@internal
@view
def operations(form: uint256, r: rules.Rule, position: uint256, code: uint256, sources: uint256) -> uint256:
    """
    @notice Number of operations of an element.
    @param position Of the element on the axis of a running sum
    """
    if form == forms.POINTWISE:
        return sources + calldata.u32(code + 4)
    if form == forms.CAT or form == forms.PAD or form == forms.CREATE or form == forms.OUTPUT:
        return 1
    if form == forms.TABLE:
        return 1 + rules.terms(r, 0)
    if form == forms.SCAN:
        return (position // numbers.SEGMENT) * (numbers.SEGMENT + 1) + position % numbers.SEGMENT + 2
    n: uint256 = rules.reduction(r)
    if form == forms.CONTRACTION:
        return max(n + (n + numbers.SEGMENT - 1) // numbers.SEGMENT, 1)
    if form == forms.SUM:
        total: uint256 = 0
        for _: uint256 in range(5):
            blocks: uint256 = (n + numbers.SUM_BLOCK - 1) // numbers.SUM_BLOCK
            total += n + (numbers.SUM_LANES - 1) * blocks
            n = blocks
            if n < 2:
                break
        return max(total, 1)
    if form == forms.SORT:
        return n + 3
    if form == forms.SCATTER:
        return n + 1
    return max(n, 1)


@internal
@view
def width(form: uint256, dtype: uint256, code: uint256, sources: uint256) -> uint256:
    """
    @notice Bytes of an entry: 8 if any register holds 64 bits.
    """
    if form == forms.CONTRACTION or form == forms.INTEGER_CONTRACTION:
        return 4
    if form == forms.SUM or form == forms.EXTREME:
        return 4
    if form == forms.SCAN or form == forms.OUTPUT:
        return 8 if dtype == numbers.DTYPE_I64 else 4
    if form != forms.POINTWISE:
        return 8
    records: uint256 = sources + calldata.u32(code + 4)
    at: uint256 = code + 8
    for i: uint256 in range(records, bound=1024):
        types: uint256 = calldata.u8(at + 1)
        if types >> 4 == numbers.TYPE_I64 or types & 15 == numbers.TYPE_I64:
            return 8
        at += 8
    return 4
