"""A party of verde as a player on chain: it reads the Court's state and answers by the rules in verde."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ree.compiler.instance import Instance
from ree.errors import ChainError
from ree.settlement.evidence import Evidence
from ree.settlement.layout import STATE, STEP
from ree.settlement.terms import OneRun, TrainingRun, decode_facts
from ree.settlement.watcher import Standing
from ree.traces.encoding import ZERO
from ree.traces.merkle import depth
from ree.traces.tensor import LEAF_BYTES, body_leaves
from ree.verde.moves import Leaf, RunStatement, State, Statement, TreeNode
from ree.verde.party import Party
from ree.verde.protocol import FAN, VERSION, Phase, Tree, TreeKind
from ree.verde.run_party import RunParty
from ree.verde.scope import VALUES

_PHASES = {p.number: p for p in Phase}
_TREES = {t.number: t for t in Tree}
_KINDS = {k.number: k for k in TreeKind}


class VerdePlayer:
    """Plays for a party that can make its run again. It keeps no state of its own."""

    def __init__(self, party: Party | RunParty, instance: Instance) -> None:
        self.party, self.instance = party, instance
        self.evidence = Evidence(party.game, instance)

    def move(self, standing: Standing) -> bytes:
        """The move that is due, whoever's it is; ChainError for a state of another program."""
        s = self.state(standing)
        return self.evidence.move(s, self.party.move(s))

    def state(self, standing: Standing) -> State:
        """The state as the rules in verde have it."""
        raw = standing.state
        if len(raw) != STATE.size or raw[STATE["version"].offset] != VERSION:
            raise ChainError("a state of another version")
        x = STATE.unpack(raw)
        statement, run = self._statement(standing, x["step"])
        kind = _KINDS.get(x["kind"])
        s = State(
            statement, _PHASES[x["phase"]], run, x["step"], _some(x["values"]), _TREES[x["tree"]], x["tensor"],
            x["element"], x["bits"], (VALUES, x["owner"], x["owner_element"]) if x["inside"] else None,
            _some(x["rows"]), TreeNode(kind, x["node"], x["count"], x["level"], x["index"]) if kind else None,
            leaf_index=x["leaf_index"], entries=_some(x["entries"]), entry=x["entry"],
        )  # fmt: skip
        s = replace(s, chosen=self._chosen(s, standing.moves))
        return self._shown(s, standing.moves[-1] if standing.moves else b"")

    def _chosen(self, s: State, moves: Sequence[bytes]) -> int:
        """What the defender has chosen, as it stands in the leaf that its DERIVE opens last; -1 if nothing."""
        if s.phase is Phase.PICK and s.node is not None and s.node.kind is TreeKind.ENTRIES:
            level = s.node.level
        elif s.phase is Phase.ENTRY:
            level = 0
        else:
            return -1
        d = self.evidence.game.derivation(s)
        if not d.chosen:
            return -1
        top = depth(body_leaves(d.count * d.width))
        # reveals and picks so far, then the reveal or the leaf that is shown
        since = 2 * -(-(top - level) // FAN) + (1 if top else 0)
        raw = moves[-1 - since][-(LEAF_BYTES + 1 + 32 * top) :]
        return int.from_bytes(raw[: d.width], "little")

    def _shown(self, s: State, shown: bytes) -> State:
        """With what the move before has shown, of which the contract keeps a hash."""
        if s.phase is Phase.PICK:
            assert s.node is not None  # a phase of a tree
            digests = [shown[i : i + 32] for i in range(0, len(shown), 32)]
            absent = (1 << min(FAN, s.node.level)) - len(digests)
            return replace(s, revealed=(*digests, *[ZERO] * absent))
        if s.phase is Phase.ELEMENT:
            return replace(s, leaf=shown)
        if (
            s.phase is Phase.ENTRY
        ):  # a leaf, or a derivation with one leaf and an empty proof at its end
            return replace(
                s, leaf=shown if len(shown) == LEAF_BYTES else shown[-LEAF_BYTES - 1 : -1]
            )
        if s.phase is Phase.PROVE:  # the defender's own
            node = TreeNode(TreeKind.ENTRIES, s.entries, 1, 0, s.leaf_index)
            own = self.party.move(replace(s, phase=Phase.ENTRIES, node=node))
            assert isinstance(own, Leaf)  # what that phase asks for
            return replace(s, leaf=own.data)
        return s

    def _statement(self, standing: Standing, step: int) -> tuple[Statement, RunStatement | None]:
        facts, digest = decode_facts(standing.facts), self.instance.digest
        if isinstance(facts, OneRun):
            given = (facts.inputs, facts.weights, facts.states)
            return Statement(digest, *given, standing.root, b""), None
        run = RunStatement(
            digest, facts.weights, facts.initial, facts.steps, facts.batches, standing.root
        )
        if not step:
            return Statement(digest, ZERO, facts.weights, ZERO, ZERO, ZERO), run
        return self._of_step(facts, standing), run

    def _of_step(self, facts: TrainingRun, standing: Standing) -> Statement:
        """What the defender has shown of the step: state and loss after it, batch, state before it."""
        at = 2 * -(-depth(facts.steps) // FAN)  # reveals of the history, each with a pick
        move = standing.moves[at]
        x, rest = STEP.unpack(move[: STEP.size]), move[STEP.size :]
        before = 1 + len(ZERO) * rest[0]  # behind the proof of the batch
        return Statement(self.instance.digest, x["batch"], facts.weights, rest[before : before + len(ZERO)],
                         x["state"], x["loss"])  # fmt: skip


def _some(digest: bytes) -> bytes:
    return b"" if digest == ZERO else digest
