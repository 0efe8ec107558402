"""Instances: a program with every symbol bound, committed so that a contract can read it.

instance = H(0x04 || INSTANCE of layout.py)

The node root is a Merkle tree with one record of fixed size per value; what varies in size (index rule,
attributes, microcode, row program) stands in the record as its digest.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ree.compiler.ir import Graph, Node, Typer, bind_graph, bound_node
from ree.compiler.layout import INSTANCE, RECORD, InterfaceLeaf, RowLeaf
from ree.compiler.layout import LOCAL as LOCAL
from ree.compiler.passes.expansion import expand
from ree.compiler.passes.load_time import Prelude, without_prelude
from ree.compiler.text import print_attrs
from ree.kernels import macro, opdef
from ree.kernels.index import IndexRule
from ree.kernels.numerics import CANONICAL_NAN, CONTRACT, SEGMENT, SUM_BLOCK, SUM_LANES
from ree.kernels.opdef import Bound, OpDef
from ree.kernels.rowprogram import Affine, RowProgram
from ree.kernels.scalar.microcode import microcode_bytes
from ree.kernels.schema import check_attrs
from ree.kernels.schema import encode_attrs as schema_bytes
from ree.kernels.types import MAX_RANK, DType, TensorType
from ree.traces.merkle import merkle_root
from ree.traces.tensor import tensor_hash

RECORD_BYTES = RECORD.size
NO_DIGEST = bytes(32)
Digests = dict[tuple[object, ...], bytes]  # by operator, types of the sources and attributes


@dataclass(frozen=True)
class Instance:
    """A bound program and its commitment."""

    graph: Graph
    program: bytes
    numeric_id: bytes
    node_root: bytes
    interface_root: bytes
    encoded: bytes  # what the digest is of, behind its tag: INSTANCE of layout.py
    digest: bytes


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


@lru_cache(maxsize=1)
def numeric_id() -> bytes:
    """Identity of the numeric contract: its name, constants, and the rule and attributes of every operator
    and macro."""
    from ree.kernels import registry  # noqa: F401  (all operators)

    parts = [CONTRACT.encode(), struct.pack(">IIII", SEGMENT, SUM_BLOCK, SUM_LANES, CANONICAL_NAN)]
    for name in opdef.names():
        op = opdef.get(name)
        schema = "".join(f"\0{k} {a.text}" for k, a in op.closed_schema.items())
        parts.append(struct.pack(">H", op.opcode) + sha256((op.rule + schema).encode()))
    for m in filter(None, map(macro.get, macro.names())):
        schema = "".join(f"\0{k} {a.text}" for k, a in m.closed_schema.items())
        parts.append(sha256(f"{m.name}\0{m.rule}{schema}".encode()))
    return sha256(b"ree.numeric\0", *parts)


def bind_all(
    g: Graph, env: Mapping[str, int], made: Prelude | None = None, kept: Collection[str] = ()
) -> Graph:
    """Program g with its symbols bound to env and its macros written out; ValueError if a shape rule refuses
    or a symbol is unbound. Of a graph that only runs: made is its prelude, whose values are further weights
    then; the macros in `kept`, which have a kernel, stay.
    """
    missing = [s.name for s in g.symbols if s.name not in env]
    if missing:
        raise ValueError(f"symbol {missing[0]} is not bound")
    bound = bind_graph(g, env)
    return expand(without_prelude(bound, made) if made else bound, kept)


def make_instance(g: Graph, env: Mapping[str, int]) -> Instance:
    """The instance of program g with its symbols bound to env; ValueError as `bind_all`."""
    return commit(g, bind_all(g, env))


def commit(g: Graph, bound: Graph) -> Instance:
    """The instance of program g that is bound so."""
    typer = bound.typer()
    known: Digests = {}
    records = [r for n in bound.nodes for r in node_records(n, typer, known)]
    node_root = merkle_root(records)
    interface_root = merkle_root(interface_leaves(bound))
    nid = numeric_id()
    encoded = INSTANCE.pack(
        numeric_id=nid, node_root=node_root, values=len(records), interface_root=interface_root,
        inputs=len(g.inputs), weights=len(g.weights), states=len(g.states), constants=len(g.consts),
        outputs=len(g.outputs),
    )  # fmt: skip
    digest = sha256(b"\x04", encoded)
    return Instance(bound, g.program_hash(), nid, node_root, interface_root, encoded, digest)


def encode_type(t: TensorType) -> bytes:
    """dtype, rank and eight dimensions, 66 bytes."""
    dims = t.dims + (0,) * (MAX_RANK - t.rank)
    return struct.pack(">BB8Q", t.dtype.code, t.rank, *dims)


def encode_attrs(b: Bound) -> bytes:
    """The attributes of a bound operator as its schema lays them out; ValueError if they are others."""
    schema = opdef.get(b.op).closed_schema
    check_attrs(b.op, schema, b.attrs)
    return schema_bytes(schema, b.attrs)


def node_records(n: Node, typer: Typer, known: Digests | None = None) -> list[bytes]:
    """One record per result; known: digests of nodes like it, which are added to.

    RECORD of layout.py: opcode, result, number of sources, type, sources, the digests of index rule,
    attributes, microcode and row program, the row program's number of leaves.
    """
    refs = [(s.kind, s.index) for s in n.sources]
    if known is None:
        return _records(bound_node(n, typer), refs)
    key = (n.op, tuple(typer(s) for s in n.sources), print_attrs(n))
    if key not in known:
        known[key] = _digests(bound_node(n, typer))
    return _records_of(n.op, n.results, refs, known[key])


def _records(b: Bound, refs: Sequence[tuple[int, int]]) -> list[bytes]:
    """The records of a bound operator whose sources are these kinds and indices."""
    return _records_of(b.op, b.outputs, refs, _digests(b))


def _records_of(
    name: str, results: Sequence[TensorType], refs: Sequence[tuple[int, int]], digests: bytes
) -> list[bytes]:
    sources = b"".join(struct.pack(">BI", *r) for r in refs)
    sources += bytes(RECORD["rule"].offset - RECORD["sources"].offset - len(sources))
    opcode, out = opdef.get(name).opcode, []
    for i, t in enumerate(results):
        record = struct.pack(">HBB", opcode, i, len(refs)) + encode_type(t) + sources + digests
        out.append(record.ljust(RECORD_BYTES, b"\0"))
    return out


def _digests(b: Bound) -> bytes:
    """What a record says of a bound operator wherever it stands, behind its sources."""
    op = opdef.get(b.op)
    rule = sha256(encode_rule(op.index_rule(b))) if op.index_rule else NO_DIGEST
    attrs = sha256(encode_attrs(b))
    sub, count = _sub_program(op, b)
    return rule + attrs + _microcode_id(op, b) + sub + struct.pack(">Q", count)


def _microcode_id(op: OpDef, b: Bound) -> bytes:
    if op.scalar is None:
        return NO_DIGEST
    return _function_id(op.name, tuple(t.dtype for t in b.inputs), tuple(sorted(b.attrs.items())))


@lru_cache(maxsize=1024)
def _function_id(
    name: str, dtypes: tuple[DType, ...], attrs: tuple[tuple[str, object], ...]
) -> bytes:
    scalar = opdef.get(name).scalar
    assert scalar is not None
    return sha256(microcode_bytes(scalar(dtypes, dict(attrs))))  # type: ignore[arg-type]


def _sub_program(op: OpDef, b: Bound) -> tuple[bytes, int]:
    """Commitment to the row program, which is the same for every element."""
    if op.row_program is None or b.out.numel == 0:
        return NO_DIGEST, 0
    program = op.row_program(b)
    leaves = row_leaves(program)
    return merkle_root(leaves), len(leaves)


def row_leaves(program: RowProgram) -> list[bytes]:
    """Canonical bytes of a row program, a leaf each, in the order of its locals:

    inputs, constants, numbers that depend on the element, nodes, whose sources are locals, and last where the
    element stands in the last node: RowLeaf and ROW_... of layout.py.
    """
    leaves = [bytes([RowLeaf.INPUT, x.operand]) + encode_type(x.type) + sha256(encode_rule(x.rule))
              for x in program.inputs]  # fmt: skip
    leaves += [bytes([RowLeaf.CONSTANT]) + tensor_hash(c) for c in program.constants]
    leaves += [bytes([RowLeaf.NUMBER]) + _number(program, n, 0) for n in program.numbers]
    types = program.given_types()
    for node in program.nodes:
        b = opdef.bind(node.op, [types[s] for s in node.sources], node.attrs, {})
        (record,) = _records(b, [(LOCAL, s) for s in node.sources])
        leaves.append(bytes([RowLeaf.NODE]) + record)
        types.append(b.out)
    return [*leaves, bytes([RowLeaf.ELEMENT]) + _number(program, program.element, program.first)]


def _number(program: RowProgram, x: Affine, first: int) -> bytes:
    pairs = [v for pair in zip(program.digits, x.coeffs, strict=True) for v in pair]
    pairs += [0] * (2 * MAX_RANK - len(pairs))
    return struct.pack(">I17q", first, *pairs, x.offset)


def encode_rule(rule: IndexRule) -> bytes:
    """Canonical bytes of an index rule: counts before lists, 64-bit big-endian integers."""

    def ints(*v: int) -> bytes:
        return struct.pack(f">{len(v)}q", *v)

    parts = [ints(len(rule.out_digits), *rule.out_digits, len(rule.red_digits), *rule.red_digits,
                  len(rule.accesses))]  # fmt: skip
    for a in rule.accesses:
        parts.append(ints(len(a.coords)))
        parts += [ints(*c.coeffs, c.bound, c.stride, c.offset) for c in a.coords]
        parts.append(ints(len(a.indirect)))
        parts += [ints(t.operand, t.bound, t.stride, t.wrap) for t in a.indirect]
    return b"".join(parts)


def interface_leaves(g: Graph) -> list[bytes]:
    """Leaves of the interface tree: inputs, weights, states, constants, outputs, in that order."""
    leaves = [bytes([InterfaceLeaf.INPUT]) + encode_type(t) for t in g.inputs]
    leaves += [bytes([InterfaceLeaf.WEIGHT]) + encode_type(t) for t in g.weights]
    leaves += [bytes([InterfaceLeaf.STATE]) + encode_type(t) for t in g.states]
    leaves += [bytes([InterfaceLeaf.CONSTANT]) + tensor_hash(c.array()) for c in g.consts]
    leaves += [
        bytes([InterfaceLeaf.OUTPUT]) + struct.pack(">BI", r.kind, r.index) for r in g.outputs
    ]
    return leaves
