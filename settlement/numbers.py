"""The numbers that contracts share with kernels, as Vyper constants; generated.py writes the file."""

from __future__ import annotations

from ree.kernels import constants, registry
from ree.kernels.scalar import language as scalar
from ree.kernels.types import MAX_ELEMENTS, DType

OPERATORS = ("amax", "argmax", "index_put", "full")  # whose codes contracts ask for
HEAD = '''# pragma version 0.4.3
"""
@title Numbers
@notice The numbers of the numeric contract.
@dev Written by settlement/numbers.py from kernels/constants.py and the registries; do not edit.
"""
'''


def text() -> str:
    """The module `numbers.vy`."""
    groups = {
        "forms": {"SEGMENT": constants.SEGMENT, "SUM_BLOCK": constants.SUM_BLOCK,
                  "SUM_LANES": constants.SUM_LANES},
        "tensors": {"LEAF_BYTES": constants.LEAF_BYTES, "MAX_RANK": constants.MAX_RANK,
                    "MAX_ELEMENTS": MAX_ELEMENTS},
        "element types": {f"DTYPE_{d.name}": d.code for d in DType},
        "operators": {f"OPERATOR_{n.upper()}": registry.get(n).opcode for n in OPERATORS},
        "types of registers": {f"TYPE_{t.text.upper()}": t.code for t in scalar.T},
        "operations of microcode": {f"OP_{n.upper()}": op.code for n, op in scalar.OPS.items()},
    }  # fmt: skip
    parts = [HEAD]
    for title, numbers in groups.items():
        lines = [f"{name}: constant(uint256) = {value}\n" for name, value in numbers.items()]
        parts.append("".join([f"\n# {title}\n", *lines]))
    unary = sum(1 << op.code for n, op in scalar.OPS.items() if op.arity == 1 and n != "table")
    parts.append(
        f"# those with one operand and no table, a bit each\nOPS_OF_ONE: constant(int256) = {unary}\n"
    )
    return "".join(parts)
