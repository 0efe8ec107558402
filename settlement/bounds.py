"""Whether every proof about an instance fits into a move; a job whose proofs do not is refused."""

from __future__ import annotations

from ree.compiler.instance import RECORD_BYTES, encode_attrs, encode_rule
from ree.compiler.ir import Kind, Ref
from ree.kernels import opdef
from ree.settlement.decidable import Form, form, obstacles
from ree.settlement.evidence import MAX_MOVE, Evidence
from ree.settlement.openings import microcode, rule_bytes
from ree.traces.merkle import depth
from ree.traces.tensor import LEAF_BYTES, body_leaves
from ree.verde.scope import ROW, VALUES, RowScope

MAX_HOPS = 11  # moves between a source and what is committed
MAX_BLOBS = 16
STATEMENT = 285
ENTRY = LEAF_BYTES + 1 + 32 * 25  # a leaf of a derivation of at most 2^32 operations
# entries outside the leaf that one operation reads, at most
ENTRIES = {Form.CONTRACTION: 2, Form.SUM: 2, Form.CUMSUM: 2, Form.EXTREME: 1, Form.ARGUMENT: 2, Form.SORT: 4,
           Form.SCATTER: 1, Form.TABLE: 0}  # fmt: skip
Size = tuple[int, int, int]  # bytes, blobs, hops


def refusals(evidence: Evidence) -> list[str]:
    """Why a job with this instance is refused: operators without a rule, and proofs that do not fit."""
    found = obstacles(evidence.graph)
    if found:
        return found
    scope, out = evidence.game.program, []
    for v, node in enumerate(scope.producers):
        kind = form(node.op)
        if kind is Form.MOVED or node.results[v - node.first].numel == 0:
            continue
        if kind is not Form.COMPOSITE:
            sizes = [_outer(evidence, s) for s in node.sources]
            out += _check(node.op, kind, scope.node(VALUES, v)[0], sizes)
            continue
        program = scope.row_program(VALUES, v)
        assert program is not None  # a composite
        inner = RowScope(scope, (VALUES, v, 0), program)
        for i, b in enumerate(inner.nodes):
            if not inner.is_move(ROW, i):
                sizes = [_local(evidence, inner, v, s) for s in program.nodes[i].sources]
                out += _check(f"{b.op} in {node.op}", form(b.op), b, sizes)
    for v in {r.index for r in evidence.graph.outputs if r.kind is Kind.VALUE}:
        size = _outer(evidence, Ref(Kind.VALUE, v))
        if size[0] + STATEMENT + ENTRY > MAX_MOVE or size[2] > MAX_HOPS:
            out.append("an output: its proof does not fit into a move")
    if any(r.kind is Kind.CONST for r in evidence.graph.outputs):
        out.append("an output is a constant")
    return sorted(set(out))


def _check(name: str, kind: Form, b: opdef.Bound, sizes: list[Size]) -> list[str]:
    if kind in (Form.NONE, Form.COMPOSITE):
        return [f"{name}: no rule on chain"]
    if kind in (Form.POINTWISE, Form.CAT):  # reads one source, or entries alone
        sizes = sizes and [max(sizes)]
    if kind in (Form.ARGUMENT, Form.SORT):
        sizes = sizes * 2
    total, blobs, hops = 0, 2, 0
    for size in sizes:
        total, blobs, hops = total + size[0], blobs + size[1], max(hops, size[2])
    own = 241 + LEAF_BYTES + STATEMENT + 64 + len(encode_attrs(sorted(b.attrs.items())))
    own += len(rule_bytes(b)) if opdef.get(b.op).index_rule else 0
    own += ENTRIES.get(kind, 0) * ENTRY
    if kind is Form.POINTWISE:
        total = max(total, len(microcode(b)) + 3 * ENTRY)
    if total + own > MAX_MOVE or blobs > MAX_BLOBS or hops > MAX_HOPS:
        return [
            f"{name}: a proof of {total + own} bytes, {blobs} rules and {hops} moves does not fit into one"
        ]
    return []


def _opening(evidence: Evidence, leaves: int, tensors: int) -> int:
    return 1 + 66 + LEAF_BYTES + 1 + 32 * depth(leaves) + 1 + 32 * depth(tensors)


def _record(evidence: Evidence) -> int:
    return 2 + RECORD_BYTES + 32 * depth(len(evidence.records))


def _outer(evidence: Evidence, start: Ref) -> Size:
    """The way to a source of the program."""
    scope, ref, total, hops = evidence.game.program, start, 0, 0
    while ref.kind is Kind.VALUE and scope.is_move(VALUES, ref.index):
        total += _record(evidence) + len(rule_bytes(scope.node(VALUES, ref.index)[0]))
        hops += 1
        ref = scope.producers[ref.index].sources[0]
    leaves = body_leaves(scope.typer(ref).nbytes)
    tensors = max(len(evidence.records), len(evidence.interface))
    return total + _opening(evidence, leaves, tensors), hops, hops


def _local(evidence: Evidence, inner: RowScope, owner: int, start: int) -> Size:
    """The way to a local of a row program."""
    program, local, total, hops = inner.program, start, 0, 0
    proof = 2 + 32 * depth(len(inner.types) + 1)
    while local >= inner.first and inner.is_move(ROW, local - inner.first):
        total += 241 + proof + len(rule_bytes(inner.nodes[local - inner.first]))
        hops += 1
        local = program.nodes[local - inner.first].sources[0]
    if local >= inner.first or local >= len(program.inputs):
        leaves = body_leaves(inner.types[local].nbytes)
        return total + 141 + proof + _opening(evidence, leaves, len(inner.nodes)), hops, hops
    x = program.inputs[local]
    total += 100 + proof + len(encode_rule(x.rule)) + RECORD_BYTES
    outer = _outer(evidence, evidence.game.program.producers[owner].sources[x.operand])
    return total + outer[0], hops + 1 + outer[1], hops + 1 + outer[2]
