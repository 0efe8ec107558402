"""The arrays that operators read, moves among them as views where their index rule is one of strides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ree.float_mode import clean_floats
from ree.kernels import opdef
from ree.kernels.index import Coord
from ree.kernels.opdef import Array, Bound


@clean_floats
def result(node: Bound, sources: Sequence[Array]) -> Array:
    """The first result of an operator."""
    op = opdef.get(node.op)
    if op.form is opdef.Form.MOVEMENT:
        return moved(node, sources)
    assert op.reference is not None  # checked at registration
    return op.reference(sources, node)[0]


def moved(node: Bound, sources: Sequence[Array]) -> Array:
    """The result of a move: a view of its source if no element is outside, else made by the reference."""
    op, x = opdef.get(node.op), sources[0]
    assert op.index_rule is not None  # both are checked at registration
    assert op.reference is not None
    rule = op.index_rule(node)
    access = rule.accesses[0]
    if len(sources) == 1 and not access.indirect and node.op != "pad" and x.size:
        bounds = [_bounds(c, rule.digits) for c in access.coords]
        if all(
            low >= 0 and high < c.bound
            for c, (low, high) in zip(access.coords, bounds, strict=True)
        ):
            flat = np.ascontiguousarray(x).reshape(-1)
            strides = [flat.itemsize * sum(c.coeffs[d] * c.stride for c in access.coords)
                       for d in range(len(rule.digits))]  # fmt: skip
            start = sum(c.offset * c.stride for c in access.coords)
            view = np.lib.stride_tricks.as_strided(
                flat[start:], rule.digits, strides, writeable=False
            )
            return view.reshape(node.out.dims)
    return op.reference(sources, node)[0]


def _bounds(c: Coord, digits: Sequence[int]) -> tuple[int, int]:
    """The least and the greatest value of a coordinate."""
    reach = [k * (d - 1) for k, d in zip(c.coeffs, digits, strict=True)]
    return c.offset + sum(min(r, 0) for r in reach), c.offset + sum(max(r, 0) for r in reach)


def taken(x: Array, flat: npt.NDArray[np.int64]) -> Array:
    """Elements by flat index, without a copy of the whole."""
    y: Array = x.reshape(-1)[flat] if x.flags.c_contiguous else x[np.unravel_index(flat, x.shape)]
    return y
