"""Integers divided by 0: an error of the run, as in torch, found as an index that is out of range.

The operators themselves give 0, for a contract has no errors in arithmetic; it has them at indices.
"""

from __future__ import annotations

import re

from ree.compiler.frontend.importer import Importer, RefusedCall
from ree.compiler.ir import Kind, Ref
from ree.kernels.types import DType, broadcast_shapes

BY_ZERO = -(1 << 63)  # the index that is read where a divisor is 0: no other one is likely to be it

_READ = re.compile(rf"index {BY_ZERO} at position (\d+) ")


def divisor(m: Importer, a: Ref, b: Ref) -> Ref:
    """b, by which a is divided; an error of the run where an integer one is 0."""
    t = m.type(b)
    if t.dtype is not DType.I64 or 0 in broadcast_shapes(m.type(a).shape, t.shape):
        return b
    if b.kind is Kind.CONST:
        if not m.builder.consts[b.index].array().all():
            raise RefusedCall("an integer divided by 0")
        return b
    zero = m.scalar(0, DType.I64)
    bad = m.add("where", m.add("eq", b, zero), m.scalar(BY_ZERO, DType.I64), zero)
    table = m.add("full", shape=(1, 1), value=0, dtype=DType.I64)
    read = m.view(m.add("embedding", table, bad), t.shape)
    return m.add("add", b, read)


def said(text: str) -> str:
    """What the message of an index that is out of range says."""
    found = _READ.match(text)
    return (
        f"an integer is divided by 0, which is element {found[1]} of the divisor" if found else text
    )
