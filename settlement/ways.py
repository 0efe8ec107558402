"""The ways of an operator's sources through tensors that are only moved: contracts/referee/ways.vy reads them.

A DERIVE shows by records and leaves that they are right; a PROVE walks them and opens what they lead to.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ree.compiler.instance import LOCAL, encode_rule, sha256
from ree.compiler.ir import Kind, Ref
from ree.settlement.openings import Shown, constant, proof, rule_bytes
from ree.verde.derivation import Bits, digits_of, flat_at
from ree.verde.scope import OUTPUTS, ROW, VALUES, RowScope, follow

if TYPE_CHECKING:
    from ree.settlement.evidence import Evidence

MOVED, CUT = 0, 1  # hops: a move of the program; an input of a row program, cut out of a source


@dataclass(frozen=True)
class Hop:
    """A move. of: the bound operator, or the row program's input; leaf: what says so, with its proof; value: if
    it is one of the program's, its index."""

    kind: int
    of: Any
    leaf: bytes
    proof: tuple[bytes, ...]
    value: int | None = None

    @property
    def rule(self) -> bytes:
        return rule_bytes(self.of) if self.kind == MOVED else encode_rule(self.of.rule)

    def follow(self, flat: int, digits: Sequence[int]) -> int | Bits:
        """Where element `flat` comes from; digits: of the element whose row program it is."""
        if self.kind == MOVED:
            return follow(self.of, flat)
        rule = self.of.rule
        at = flat_at(rule.accesses[0], [*digits, *digits_of(flat, rule.red_digits)])
        assert at is not None  # cut out of the source
        return at


@dataclass(frozen=True)
class Way:
    """Moves, and the kind and index of the source that they lead to."""

    hops: tuple[Hop, ...]
    kind: int
    index: int

    def encode(self) -> bytes:
        hops = [bytes([h.kind]) + sha256(h.rule) for h in self.hops]
        return b"".join([bytes([len(hops)]), *hops, struct.pack(">BI", self.kind, self.index)])


@dataclass(frozen=True)
class Ways:
    """Those of all sources of an operator. record: of the composite whose row program it stands in."""

    ways: tuple[Way, ...]
    record: bytes = b""

    def encode(self) -> bytes:
        return b"".join(w.encode() for w in self.ways)

    @property
    def shown(self) -> bytes:
        """What a DERIVE shows of them: the composite's record once; the proof of a value's record to where it
        meets that of the first."""
        parts, record, first = [], self.record, None
        for hop in (h for w in self.ways for h in w.hops):
            siblings = hop.proof
            if hop.value is not None and first is not None:
                siblings = siblings[: max((hop.value ^ first).bit_length() - 1, 0)]
            elif hop.value is not None:
                first = hop.value
            parts += [hop.leaf, proof(siblings)]
            if hop.kind == CUT:
                parts.append(record)
                record = b""
        return b"".join(parts)

    @property
    def outer(self) -> bool:
        """Whether the statement is needed."""
        return any(h.value is not None for w in self.ways for h in w.hops)


def ways(evidence: Evidence, tree: str, index: int, owner: tuple[str, int] | None) -> Ways:
    """Those of the operator behind a tensor; owner: of the row program that it stands in, if it does."""
    program = evidence.game.program
    if owner is None:
        outputs = evidence.graph.outputs
        refs = (outputs[index],) if tree == OUTPUTS else program.producers[index].sources
        return Ways(tuple(_outer(evidence, r) for r in refs))
    row = program.row_program(*owner)
    assert row is not None  # a composite
    inner = RowScope(program, (*owner, 0), row)
    found = tuple(_local(evidence, inner, x) for x in row.nodes[index].sources)
    return Ways(found, evidence.records[owner[1]])


def _outer(evidence: Evidence, start: Ref) -> Way:
    """From a source of the program."""
    ref, scope, hops = start, evidence.game.program, []
    while ref.kind is Kind.VALUE and scope.is_move(VALUES, ref.index):
        node, siblings = scope.node(VALUES, ref.index)[0], evidence.record_tree.prove(ref.index)
        hops.append(Hop(MOVED, node, evidence.records[ref.index], tuple(siblings), ref.index))
        ref = scope.producers[ref.index].sources[0]
    return Way(tuple(hops), ref.kind, ref.index)


def _local(evidence: Evidence, inner: RowScope, start: int) -> Way:
    """From a local of a row program."""
    row, local, hops = inner.program, start, []
    leaves, tree = evidence.row_program(*inner.owner[:2])
    while local >= inner.first and inner.is_move(ROW, local - inner.first):
        node = inner.nodes[local - inner.first]
        hops.append(Hop(MOVED, node, leaves[local], tuple(tree.prove(local))))
        local = row.nodes[local - inner.first].sources[0]
    if local >= len(row.inputs):
        return Way(tuple(hops), LOCAL, local)
    hops.append(Hop(CUT, row.inputs[local], leaves[local], tuple(tree.prove(local))))
    owner = evidence.game.program.producers[inner.owner[1]]
    rest = _outer(evidence, owner.sources[row.inputs[local].operand])
    return Way((*hops, *rest.hops), rest.kind, rest.index)


def walk(evidence: Evidence, way: Way, inner: RowScope | None, flat: int, shown: Shown) -> None:
    """Show what element `flat` of a source is, through its way, to a PROVE."""
    for hop in way.hops:
        shown.blobs.append(hop.rule)
        found = hop.follow(flat, inner.digits if inner else ())
        if isinstance(found, Bits):
            return
        flat = found
    if way.kind != LOCAL:
        shown.outer = True
        ref = Ref(Kind(way.kind), way.index)
        if ref.kind is Kind.CONST:
            at = evidence.given(ref)
            shown.parts += [constant(evidence.graph.consts[ref.index].array(), flat),
                            proof(evidence.interface_tree.prove(at))]  # fmt: skip
        else:
            shown.opening(evidence.game.program.typer(ref))
        return
    assert inner is not None  # only there are locals
    if way.index >= inner.first:
        shown.opening(inner.types[way.index])
        return
    leaves, tree = evidence.row_program(*inner.owner[:2])
    shown.parts += [leaves[way.index], proof(tree.prove(way.index))]
    given = way.index - len(inner.program.inputs)
    if given < len(inner.program.constants):
        shown.parts.append(constant(np.asarray(inner.program.constants[given]), flat))
