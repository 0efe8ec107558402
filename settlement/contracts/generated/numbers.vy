# pragma version 0.4.3
"""
@title Numbers
@notice The numbers of the numeric contract.
@dev Written by settlement/numbers.py from kernels/constants.py and the registries; do not edit.
"""

# forms
SEGMENT: constant(uint256) = 128
SUM_BLOCK: constant(uint256) = 1024
SUM_LANES: constant(uint256) = 64

# tensors
LEAF_BYTES: constant(uint256) = 512
MAX_RANK: constant(uint256) = 8
MAX_ELEMENTS: constant(uint256) = 2147483647

# element types
DTYPE_F32: constant(uint256) = 0
DTYPE_F16: constant(uint256) = 1
DTYPE_BF16: constant(uint256) = 2
DTYPE_I64: constant(uint256) = 3
DTYPE_I32: constant(uint256) = 4
DTYPE_I16: constant(uint256) = 5
DTYPE_I8: constant(uint256) = 6
DTYPE_U8: constant(uint256) = 7
DTYPE_BOOL: constant(uint256) = 8

# operators
OPERATOR_AMAX: constant(uint256) = 221
OPERATOR_ARGMAX: constant(uint256) = 223
OPERATOR_INDEX_PUT: constant(uint256) = 306
OPERATOR_FULL: constant(uint256) = 320

# types of registers
TYPE_F32: constant(uint256) = 0
TYPE_I32: constant(uint256) = 1
TYPE_U32: constant(uint256) = 2
TYPE_I64: constant(uint256) = 3
TYPE_BOOL: constant(uint256) = 4

# operations of microcode
OP_PARAM: constant(uint256) = 0
OP_CONST: constant(uint256) = 1
OP_ADD: constant(uint256) = 2
OP_SUB: constant(uint256) = 3
OP_MUL: constant(uint256) = 4
OP_FMA: constant(uint256) = 5
OP_DIV: constant(uint256) = 6
OP_SQRT: constant(uint256) = 7
OP_NEG: constant(uint256) = 8
OP_ABS: constant(uint256) = 9
OP_RINT: constant(uint256) = 10
OP_LT: constant(uint256) = 11
OP_LE: constant(uint256) = 12
OP_EQ: constant(uint256) = 13
OP_NE: constant(uint256) = 14
OP_SELECT: constant(uint256) = 15
OP_CONVERT: constant(uint256) = 16
OP_BITCAST: constant(uint256) = 17
OP_AND: constant(uint256) = 18
OP_OR: constant(uint256) = 19
OP_XOR: constant(uint256) = 20
OP_NOT: constant(uint256) = 21
OP_SHL: constant(uint256) = 22
OP_SHR: constant(uint256) = 23
OP_MUL_HI: constant(uint256) = 24
OP_TABLE: constant(uint256) = 25
OP_FLOORDIV: constant(uint256) = 26
OP_MOD: constant(uint256) = 27
# those with one operand and no table, a bit each
OPS_OF_ONE: constant(int256) = 2295680
