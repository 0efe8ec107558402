# pragma version 0.4.3
"""
@title Protocol
@notice The numbers of disputes, and where fields stand.
@dev Written by settlement/generated.py from verde/protocol.py and settlement/layout.py; do not edit.
"""

# masks, and the sign of an i64
MASK8: constant(uint256) = 2**8 - 1
MASK32: constant(uint256) = 2**32 - 1
MASK48: constant(uint256) = 2**48 - 1
MASK64: constant(uint256) = 2**64 - 1
MASK128: constant(uint256) = 2**128 - 1
SIGN64: constant(uint256) = 2**63

# sides
DEFENDER: constant(uint256) = 1
CHALLENGER: constant(uint256) = 2

# phases
PHASE_STEP: constant(uint256) = 0
PHASE_OPEN: constant(uint256) = 1
PHASE_CHOOSE: constant(uint256) = 2
PHASE_REVEAL: constant(uint256) = 3
PHASE_PICK: constant(uint256) = 4
PHASE_TENSOR: constant(uint256) = 5
PHASE_BODY: constant(uint256) = 6
PHASE_ELEMENT: constant(uint256) = 7
PHASE_DERIVE: constant(uint256) = 8
PHASE_ROWS: constant(uint256) = 9
PHASE_ENTRIES: constant(uint256) = 10
PHASE_ENTRY: constant(uint256) = 11
PHASE_PROVE: constant(uint256) = 12
PHASE_OVER: constant(uint256) = 13

# phases of the challenger, a bit each; phases at a leaf by kind of tree, four bits each
PHASES_OF_CHALLENGER: constant(uint256) = 2196
PHASES_AT_LEAF: constant(uint256) = 681216

# kinds of trees
KIND_HISTORY: constant(uint256) = 1
KIND_TENSORS: constant(uint256) = 2
KIND_BODY: constant(uint256) = 3
KIND_ENTRIES: constant(uint256) = 4

# trees of tensors
TREE_VALUES: constant(uint256) = 0
TREE_OUTPUTS: constant(uint256) = 1
TREE_ROW: constant(uint256) = 2

# reasons of a verdict
REASON_MOVED: constant(uint256) = 1
REASON_EMPTY: constant(uint256) = 2
REASON_FILL: constant(uint256) = 3
REASON_FILL_FALSE: constant(uint256) = 4
REASON_BOOL_FALSE: constant(uint256) = 5
REASON_EXECUTED: constant(uint256) = 6

# levels that a reveal descends
FAN: constant(uint256) = 4

# bytes of a move, at most
MOVE_BYTES: constant(uint256) = 12288

# version of a state
STATE_VERSION: constant(uint256) = 1

# a state: its bytes, words by number, numbers by their bits from a word's low end
STATE_BYTES: constant(uint256) = 384
WORD_HEAD: constant(uint256) = 0
WORD_NUMBERS: constant(uint256) = 1
WORD_PLACE: constant(uint256) = 2
WORD_CONTEXT: constant(uint256) = 3
WORD_RUN: constant(uint256) = 4
WORD_VALUES: constant(uint256) = 5
WORD_ROWS: constant(uint256) = 6
WORD_PROGRAM: constant(uint256) = 7
WORD_RECORD: constant(uint256) = 8
WORD_NODE: constant(uint256) = 9
WORD_LEAF: constant(uint256) = 10
WORD_ENTRIES: constant(uint256) = 11
STATE_PHASE: constant(uint256) = 240
STATE_WINNER: constant(uint256) = 232
STATE_REASON: constant(uint256) = 224
STATE_TREE: constant(uint256) = 216
STATE_KIND: constant(uint256) = 208
STATE_LEVEL: constant(uint256) = 200
STATE_WIDTH: constant(uint256) = 192
STATE_DTYPE: constant(uint256) = 184
STATE_FORM: constant(uint256) = 176
STATE_INSIDE: constant(uint256) = 168
STATE_PLAYER: constant(uint256) = 160
STATE_TENSOR: constant(uint256) = 128
STATE_OWNER: constant(uint256) = 96
STATE_FIRST: constant(uint256) = 64
STATE_LEAVES: constant(uint256) = 32
STATE_STEP: constant(uint256) = 0
STATE_ELEMENT: constant(uint256) = 192
STATE_BITS: constant(uint256) = 128
STATE_OWNER_ELEMENT: constant(uint256) = 64
STATE_LIMIT: constant(uint256) = 0
STATE_COUNT: constant(uint256) = 192
STATE_INDEX: constant(uint256) = 128
STATE_LEAF_INDEX: constant(uint256) = 64
STATE_ENTRY: constant(uint256) = 0
STATE_VERSION_AT: constant(uint256) = 248

# clocks: bits from the low end
CLOCKS_GRACE: constant(uint256) = 184
CLOCKS_CHALLENGER: constant(uint256) = 136
CLOCKS_DEFENDER: constant(uint256) = 88
CLOCKS_SINCE: constant(uint256) = 40
CLOCKS_ROUND: constant(uint256) = 8
CLOCKS_TURN: constant(uint256) = 0

# an instance and what follows it in a statement: offsets
STATEMENT_BYTES: constant(uint256) = 284
STATEMENT_NUMERIC_ID: constant(uint256) = 0
STATEMENT_NODE_ROOT: constant(uint256) = 32
STATEMENT_VALUES: constant(uint256) = 64
STATEMENT_INTERFACE_ROOT: constant(uint256) = 72
STATEMENT_INPUTS: constant(uint256) = 104
STATEMENT_WEIGHTS: constant(uint256) = 108
STATEMENT_STATES: constant(uint256) = 112
STATEMENT_CONSTANTS: constant(uint256) = 116
STATEMENT_OUTPUTS: constant(uint256) = 120
STATEMENT_INPUTS_ROOT: constant(uint256) = 124
STATEMENT_WEIGHTS_ROOT: constant(uint256) = 156
STATEMENT_STATES_ROOT: constant(uint256) = 188
STATEMENT_OUTPUTS_ROOT: constant(uint256) = 220
STATEMENT_LOSS: constant(uint256) = 252
INSTANCE_BYTES: constant(uint256) = 124

# a training run: offsets
RUN_BYTES: constant(uint256) = 104
RUN_INITIAL: constant(uint256) = 0
RUN_STEPS: constant(uint256) = 32
RUN_BATCHES: constant(uint256) = 40
RUN_HISTORY: constant(uint256) = 72

# facts of a job: offsets behind the instance
ONE_RUN_BYTES: constant(uint256) = 220
TRAINING_BYTES: constant(uint256) = 228
TRAINING_WEIGHTS: constant(uint256) = 124
TRAINING_RUN: constant(uint256) = 156

# the record of a value: offsets
RECORD_BYTES: constant(uint256) = 240
RECORD_OPCODE: constant(uint256) = 0
RECORD_RESULT: constant(uint256) = 2
RECORD_COUNT: constant(uint256) = 3
RECORD_TYPE: constant(uint256) = 4
RECORD_SOURCES: constant(uint256) = 70
RECORD_RULE: constant(uint256) = 96
RECORD_ATTRIBUTES: constant(uint256) = 128
RECORD_CODE: constant(uint256) = 160
RECORD_PROGRAM: constant(uint256) = 192
RECORD_PROGRAM_LEAVES: constant(uint256) = 224

# kinds of sources, and of what they may be
SOURCE_VALUE: constant(uint256) = 0
SOURCE_WEIGHT: constant(uint256) = 1
SOURCE_STATE: constant(uint256) = 2
SOURCE_INPUT: constant(uint256) = 3
SOURCE_CONST: constant(uint256) = 4
SOURCE_LOCAL: constant(uint256) = 5
SOURCE_BYTES: constant(uint256) = 5
MAX_SOURCES: constant(uint256) = 4
MAX_HOPS: constant(uint256) = 12
MAX_BLOBS: constant(uint256) = 16

# leaves of a row program: the first byte, bytes, offsets
ROW_INPUT: constant(uint256) = 0
ROW_CONSTANT: constant(uint256) = 1
ROW_NODE: constant(uint256) = 2
ROW_NUMBER: constant(uint256) = 3
ROW_ELEMENT: constant(uint256) = 4
ROW_INPUT_BYTES: constant(uint256) = 100
ROW_INPUT_OPERAND: constant(uint256) = 1
ROW_INPUT_RULE: constant(uint256) = 68
ROW_CONSTANT_BYTES: constant(uint256) = 33
ROW_NODE_BYTES: constant(uint256) = 241
ROW_NUMBER_BYTES: constant(uint256) = 141
ROW_NUMBER_FIRST: constant(uint256) = 1
ROW_NUMBER_OFFSET: constant(uint256) = 133

# leaves of the interface: the first byte, bytes
INTERFACE_INPUT: constant(uint256) = 0
INTERFACE_WEIGHT: constant(uint256) = 1
INTERFACE_CONSTANT: constant(uint256) = 2
INTERFACE_OUTPUT: constant(uint256) = 3
INTERFACE_STATE: constant(uint256) = 4
GIVEN_BYTES: constant(uint256) = 67
RETURNED_BYTES: constant(uint256) = 6
TYPE_BYTES: constant(uint256) = 66

# claims, challenges, verdicts
CLAIM_ACCEPTED: constant(uint256) = 1
CLAIM_COMMITTED: constant(uint256) = 2
CLAIM_REVEALED: constant(uint256) = 3
CLAIM_REFUTED: constant(uint256) = 4
CHALLENGE_PENDING: constant(uint256) = 1
CHALLENGE_OPENED: constant(uint256) = 2
CHALLENGE_CLOSED: constant(uint256) = 3
DEFENDER_WON: constant(uint256) = 3
CHALLENGER_WON: constant(uint256) = 4
