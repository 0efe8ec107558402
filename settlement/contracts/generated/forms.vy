# pragma version 0.4.3
"""
@title Forms
@notice The operators that can be decided, and how each comes about.
@dev Written by settlement/generated.py from kernels/forms.py and the registry; do not edit.
"""

# forms
POINTWISE: constant(uint256) = 1
CONTRACTION: constant(uint256) = 2
SUM: constant(uint256) = 3
EXTREME: constant(uint256) = 4
ARGUMENT: constant(uint256) = 5
SCAN: constant(uint256) = 6
SORT: constant(uint256) = 7
MOVEMENT: constant(uint256) = 8
TABLE: constant(uint256) = 9
CAT: constant(uint256) = 10
PAD: constant(uint256) = 11
CREATE: constant(uint256) = 12
SCATTER: constant(uint256) = 13
COMPOSITE: constant(uint256) = 14
INTEGER_CONTRACTION: constant(uint256) = 16
OUTPUT: constant(uint256) = 15

# a bit each: those whose number of operations follows from an index rule, and those of which an
# operation needs the index rule, the attributes
COUNTED: constant(uint256) = (
    2**CONTRACTION + 2**SUM + 2**EXTREME + 2**ARGUMENT + 2**SCAN + 2**SORT + 2**TABLE + 2**SCATTER +
    2**INTEGER_CONTRACTION
)
RULED: constant(uint256) = (
    2**POINTWISE + 2**CONTRACTION + 2**SUM + 2**EXTREME + 2**ARGUMENT + 2**SCAN + 2**SORT + 2**TABLE +
    2**CAT + 2**PAD + 2**SCATTER + 2**INTEGER_CONTRACTION
)
ATTRIBUTED: constant(uint256) = (
    2**SCAN + 2**SORT + 2**PAD + 2**CREATE + 2**SCATTER
)


@internal
@pure
def of(opcode: uint256) -> uint256:
    """
    @notice Form of an operator, 0 if disputes about it cannot be decided.
    """
    if opcode < 260:
        if opcode < 221:
            if opcode < 203:
                if opcode < 109:
                    return POINTWISE
                if opcode < 200:
                    return 0
                return CONTRACTION
            if opcode < 204:
                return INTEGER_CONTRACTION
            if opcode < 220:
                return 0
            return SUM
        if opcode < 230:
            if opcode < 223:
                return EXTREME
            if opcode < 225:
                return ARGUMENT
            return 0
        if opcode < 240:
            if opcode < 231:
                return SCAN
            return 0
        if opcode < 241:
            return SORT
        return 0
    if opcode < 308:
        if opcode < 267:
            if opcode < 264:
                return MOVEMENT
            if opcode < 265:
                return CAT
            return MOVEMENT
        if opcode < 303:
            if opcode < 300:
                return 0
            return TABLE
        if opcode < 304:
            return PAD
        return SCATTER
    if opcode < 330:
        if opcode < 320:
            return 0
        if opcode < 322:
            return CREATE
        return 0
    if opcode < 340:
        if opcode < 331:
            return POINTWISE
        return 0
    if opcode < 345:
        return COMPOSITE
    return 0
