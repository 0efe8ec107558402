"""Whether every proof about an instance fits into a move; a job whose proofs do not is refused."""

from __future__ import annotations

from ree.compiler.instance import LOCAL, RECORD_BYTES, encode_attrs
from ree.compiler.ir import Kind, Ref
from ree.compiler.layout import ROW_NUMBER, TYPE
from ree.kernels import opdef
from ree.kernels.forms import Form, Reads
from ree.settlement.decidable import obstacles
from ree.settlement.evidence import Evidence
from ree.settlement.layout import MAX_BLOBS, MAX_HOPS, MAX_MOVE, STATEMENT
from ree.settlement.openings import microcode, rule_bytes
from ree.settlement.ways import Way, Ways
from ree.traces.merkle import depth
from ree.traces.tensor import LEAF_BYTES, body_leaves
from ree.verde.scope import OUTPUTS, ROW, VALUES, RowScope

ENTRY = LEAF_BYTES + 1 + 32 * 25  # a leaf of a derivation of at most 2^32 operations


def refusals(evidence: Evidence) -> list[str]:
    """Why a job with this instance is refused: operators without a rule, and proofs that do not fit."""
    found = obstacles(evidence.graph)
    if found:
        return found
    scope, out = evidence.game.program, []
    for v, node in enumerate(scope.producers):
        form = opdef.get(node.op).form
        if form is Form.MOVEMENT or node.results[v - node.first].numel == 0:
            continue
        if form is not Form.COMPOSITE:
            ways = evidence.ways(VALUES, v, None)
            out += _check(evidence, node.op, form, scope.node(VALUES, v)[0], ways)
            continue
        program = scope.row_program(VALUES, v)
        assert program is not None  # a composite
        inner = RowScope(scope, (VALUES, v, 0), program)
        for i, b in enumerate(inner.nodes):
            if not inner.is_move(ROW, i):
                ways, name = evidence.ways(ROW, i, (VALUES, v)), f"{b.op} in {node.op}"
                out += _check(evidence, name, opdef.get(b.op).form, b, ways, inner)
    for i, ref in enumerate(evidence.graph.outputs):
        if ref.kind is Kind.VALUE:
            out += _check(evidence, "an output", Form.OUTPUT, None, evidence.ways(OUTPUTS, i, None))
    if any(r.kind is Kind.CONST for r in evidence.graph.outputs):
        out.append("an output is a constant")
    return sorted(set(out))


def _check(
    evidence: Evidence,
    name: str,
    form: Form,
    b: opdef.Bound | None,
    ways: Ways,
    inner: RowScope | None = None,
) -> list[str]:
    """The largest DERIVE and PROVE of an operator."""
    if form is Form.COMPOSITE or not form.number:
        return [f"{name}: no rule on chain"]
    hops = max((len(w.hops) for w in ways.ways), default=0)
    if hops > MAX_HOPS:  # their number is a byte
        return [f"{name}: a source is {hops} moves away, expected {MAX_HOPS} at most"]
    reads = [sum(len(h.rule) for h in w.hops) + _opening(evidence, w, inner) for w in ways.ways]
    blobs = [len(w.hops) for w in ways.ways]
    if form.needs.reads is Reads.ONE:
        reads, blobs = [max(reads, default=0)], [max(blobs, default=0)]
    if form.needs.reads is Reads.TWICE:
        reads, blobs = reads * 2, blobs * 2
    own = 1 + RECORD_BYTES + LEAF_BYTES + 1 + STATEMENT.size + 64 + len(ways.encode())
    if b is not None:
        own += len(encode_attrs(b))
        own += len(rule_bytes(b)) if opdef.get(b.op).index_rule else 0
    code = len(microcode(b)) if b is not None and form.needs.code else 0
    entries = form.needs.entries * ENTRY
    # an operation of microcode reads entries alone, those before it one source
    prove = own + (max(sum(reads), code + entries) if code else sum(reads) + entries)
    derive = own + code + len(ways.shown) + (2 if form.needs.chosen else 1) * ENTRY
    if max(prove, derive) > MAX_MOVE or sum(blobs) + 3 > MAX_BLOBS:
        return [
            f"{name}: a proof of {max(prove, derive)} bytes and {sum(blobs) + 3} rules does not fit into a move"
        ]
    return []


def _opening(evidence: Evidence, way: Way, inner: RowScope | None) -> int:
    """Bytes of the opening of what a way leads to."""
    if way.kind != LOCAL:
        t = evidence.game.program.typer(Ref(Kind(way.kind), way.index))
        tensors, local = max(len(evidence.records), len(evidence.interface)), 0
    else:
        assert inner is not None  # only there are locals
        t, tensors = inner.types[way.index], len(inner.nodes)
        local = ROW_NUMBER.size + 1 + 32 * depth(len(inner.types) + 1)
    leaves = body_leaves(t.nbytes)
    return local + TYPE.size + LEAF_BYTES + 1 + 32 * depth(leaves) + 1 + 32 * depth(tensors)
