# pragma version 0.4.3
"""
@title Forms
@notice The operators that can be decided, and how each comes about.
@dev Codes are those of settlement/decidable.py; a test compares them for every operator of the registry.
"""

POINTWISE: constant(uint256) = 1
CONTRACTION: constant(uint256) = 2
SUM: constant(uint256) = 3
EXTREME: constant(uint256) = 4
ARGUMENT: constant(uint256) = 5
CUMSUM: constant(uint256) = 6
SORT: constant(uint256) = 7
MOVED: constant(uint256) = 8
TABLE: constant(uint256) = 9
CAT: constant(uint256) = 10
PAD: constant(uint256) = 11
CREATE: constant(uint256) = 12
SCATTER: constant(uint256) = 13
COMPOSITE: constant(uint256) = 14
OUTPUT: constant(uint256) = 15

# forms, one bit each, whose number of operations follows from an index rule
COUNTED: constant(uint256) = (
    2**CONTRACTION + 2**SUM + 2**EXTREME + 2**ARGUMENT + 2**CUMSUM + 2**SORT + 2**TABLE + 2**SCATTER
)


@internal
@pure
def of(opcode: uint256) -> uint256:
    """
    @notice Form of an operator, 0 if disputes about it cannot be decided.
    """
    if opcode < 200 or opcode == 330:
        return POINTWISE
    if opcode < 220:
        return CONTRACTION if opcode < 203 else 0
    if opcode < 260:
        if opcode == 220:
            return SUM
        if opcode < 223:
            return EXTREME
        if opcode < 225:
            return ARGUMENT
        if opcode == 230:
            return CUMSUM
        return SORT if opcode == 240 else 0
    if opcode < 300:
        if opcode == 264:
            return CAT
        return MOVED if opcode < 267 else 0
    if opcode < 320:
        if opcode < 303:
            return TABLE
        if opcode == 303:
            return PAD
        return SCATTER if opcode < 308 else 0
    if opcode < 322:
        return CREATE
    return COMPOSITE if opcode >= 340 and opcode < 345 else 0
