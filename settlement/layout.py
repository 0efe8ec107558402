"""What contracts read and write, field by field; contracts/generated/protocol.vy is made of it."""

from __future__ import annotations

import enum

from ree.compiler.layout import INSTANCE, Layout

MAX_MOVE = 12288  # bytes
MAX_HOPS = 12  # moves of data between a source and what is committed
MAX_BLOBS = 16  # of a move


class ClaimStatus(enum.IntEnum):
    """Of a provider's claim in the Court."""

    ACCEPTED = 1
    COMMITTED = 2
    REVEALED = 3
    REFUTED = 4


class ChallengeStatus(enum.IntEnum):
    """Of a challenge of a claim."""

    PENDING = 1
    OPENED = 2
    CLOSED = 3


class CourtVerdict(enum.IntEnum):
    """What the Court keeps of a dispute that is decided, where a side stands while it is played."""

    DEFENDER_WON = 3
    CHALLENGER_WON = 4


# what a defender stands for: an instance, roots of what went in and came out, the loss's tensor hash or zeros
STATEMENT = Layout(
    **INSTANCE.sizes, inputs_root=32, weights_root=32, states_root=32, outputs_root=32, loss=32
)
# a training run
RUN = Layout(initial=32, steps=8, batches=32, history=32)
# an opened step, ahead of what proves it: state and loss after it, its batch
STEP = Layout(statement=STATEMENT.size, run=RUN.size, state=32, loss=32, batch=32)

# the facts of a job: over one run of a program, and over a training run, whose fields after the weights are
# those of RUN ahead of the history
ONE_RUN = Layout(**INSTANCE.sizes, inputs_root=32, weights_root=32, states_root=32)
TRAINING = Layout(**INSTANCE.sizes, weights_root=32, initial=32, steps=8, batches=32)

# a dispute: three words of numbers, nine digests
STATE = Layout(
    # head: version of the layout, then numbers of verde/protocol.py; kind: of the tree of `node`
    version=1, phase=1, winner=1, reason=1, tree=1, kind=1, level=1,
    width=1,  # bytes of an entry
    dtype=1,
    form=1,  # of the operator (kernels/forms.py)
    inside=1,  # 1 in a row program
    player=1,  # whose move it is
    tensor=4,
    owner=4,  # the value whose row program it is
    first=4,  # locals ahead of its nodes
    leaves=4,  # of the row program
    step=4,
    # numbers; limit: elements of the tensor, then operations of the derivation
    element=8, bits=8, owner_element=8, limit=8,
    # place: count of leaves and index of the node
    count=8, index=8, leaf_index=8, entry=8,
    context=32,  # hash of the statement
    run=32,  # hash of the run; inside a row program leaf hash of the owner's record
    values=32, rows=32, program=32,
    record=32,  # its hash; after DERIVE joined with that of its ways
    node=32, leaf=32, entries=32,
)  # fmt: skip
# words of a state that a descent in a tree changes
HEAD, PLACE, NODE = STATE["version"].word, STATE["count"].word, STATE["node"].word

# the clocks of a dispute, in a word: seconds of a move at least, seconds left, since when, round, turn
CLOCKS = Layout(_high=5, grace=4, challenger=6, defender=6, since=6, round=4, turn=1)
