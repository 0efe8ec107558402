"""Merkle and Commitments in the EVM: the vectors all languages share, and the Python of traces/ and
compiler/ on other trees."""

import json
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from hypothesis import given, settings
from hypothesis import strategies as st

from ree.compiler.instance import RECORD_BYTES, encode_type, make_instance, node_records
from ree.compiler.ir import Builder, Graph
from ree.kernels import registry  # noqa: F401  (all operators)
from ree.kernels.ops.casts import load
from ree.kernels.types import DType, TensorType
from ree.settlement.testing.evm import Contract, Reverted
from ree.settlement.testing.gas import trees_tester
from ree.traces.merkle import MerkleTree, depth, merkle_root, node_hash
from ree.traces.tensor import body_leaf, body_leaves, body_root, raw_bytes, tensor_hash

VECTORS = json.loads((Path(__file__).resolve().parents[1] / "vectors" / "trees.json").read_text())
ZERO = bytes(32)


@pytest.fixture(scope="module", params=[False, True], ids=["legacy", "venom"])
def c(request: pytest.FixtureRequest) -> Contract:
    return trees_tester(request.param)


def leaf(i: int) -> bytes:
    return b"leaf %d" % i


@lru_cache(maxsize=64)
def tree(count: int) -> MerkleTree:
    return MerkleTree(leaf(i) for i in range(count))


def pattern(n: int) -> bytes:
    return bytes((7 * i + 3) % 251 for i in range(n))


def type_bytes(code: int, dims: list[int]) -> bytes:
    return struct.pack(">BB8Q", code, len(dims), *dims, *[0] * (8 - len(dims)))


# shared vectors


@pytest.mark.parametrize("case", VECTORS["trees"], ids=lambda t: str(t["count"]))
def test_tree_vectors(c: Contract, case: dict[str, Any]) -> None:
    for index, proof in case["proofs"].items():
        digests = [bytes.fromhex(x) for x in proof]
        root, _ = c.call("root_from_leaf", case["count"], int(index), leaf(int(index)), digests)
        assert root.hex() == case["root"]


@pytest.mark.parametrize("case", VECTORS["bodies"], ids=lambda t: str(t["bytes"]))
def test_body_vectors(c: Contract, case: dict[str, Any]) -> None:
    raw = pattern(case["bytes"])
    kind = type_bytes(DType.U8.code, [len(raw)])
    elements, count = c.call("elements", kind)
    assert (elements, count) == (len(raw), body_leaves(len(raw)))
    if not raw:
        return
    body = MerkleTree(body_leaf(raw, i) for i in range(count))
    assert body.root().hex() == case["root"]
    for index in {0, len(raw) // 2, len(raw) - 1}:
        at = index // 512
        digest, value, _ = c.call("open_element", kind, index, body_leaf(raw, at), body.prove(at))
        want, _ = c.call("tensor_hash", kind, bytes.fromhex(case["root"]))
        assert (digest, value) == (want, raw[index])


@pytest.mark.parametrize("case", VECTORS["tensors"], ids=lambda t: f"{t['dtype']}{t['dims']}")
def test_tensor_vectors(c: Contract, case: dict[str, Any]) -> None:
    code, dims = case["dtype"], case["dims"]
    size = [4, 2, 2, 8, 4, 2, 1, 1, 1][code] * int(np.prod(dims, dtype=int))
    raw = bytes(i % 2 for i in range(size)) if code == 8 else pattern(size)
    root = merkle_root(body_leaf(raw, i) for i in range(body_leaves(size)))
    digest, _ = c.call("tensor_hash", type_bytes(code, dims), root)
    assert digest.hex() == case["hash"]
    assert list(c.call("dims", type_bytes(code, dims))) == dims


def test_trace_vector(c: Contract) -> None:
    t = VECTORS["trace"]
    heads = [bytes.fromhex(t[k]) for k in ("numeric_id", "program", "instance", "weights_root")]
    roots = {k: bytes.fromhex(t[f"{k}_root"]) for k in ("inputs", "outputs", "values")}
    io, ops = c.call("ops_root", heads, len(t["inputs"]), roots["inputs"], len(t["outputs"]),
                     roots["outputs"], len(t["values"]), roots["values"])  # fmt: skip
    assert (io.hex(), ops.hex()) == (t["io_root"], t["root"])
    leaves = [c.call("tensor_leaf_hash", i, bytes.fromhex(h)) for i, h in enumerate(t["values"])]
    assert node_hash(node_hash(leaves[0], leaves[1]), node_hash(leaves[2], ZERO)) == roots["values"]


# trees


COUNTS = [1, 2, 3, 5, 16, 17, 31, 100, 257]


def test_depth(c: Contract) -> None:
    counts = [*range(70), *(2**k + d for k in range(7, 41) for d in (-1, 0, 1))]
    for n in [n for n in counts if n <= 2**40]:
        assert c.call("depth", n) == depth(n)


def reveal(t: MerkleTree, level: int, index: int) -> list[bytes]:
    """What a defender shows: the descendants that have a leaf."""
    down = min(level, 4)
    below, first = level - down, index << down
    return [t.node(below, i) for i in range(first, first + (1 << down)) if i << below < len(t)]


@pytest.mark.parametrize("count", COUNTS)
def test_every_reveal_and_every_node(c: Contract, count: int) -> None:
    t = tree(count)
    d = depth(count)
    for level in range(d + 1):
        for index in range((count - 1 >> level) + 1):
            shown = reveal(t, level, index)
            node = t.node(level, index)
            assert c.call("children", count, level, index) == len(shown)
            assert c.call("reveal", count, level, index, shown)[0] == node
            proof = [t.node(h, index >> h - level ^ 1) for h in range(level, d)]
            assert c.call("root_from_node", count, level, index, node, proof)[0] == t.root()
            if d - level >= 2:
                above = c.call("ancestor", count, level, index, node, proof[:2])[0]
                assert above == t.node(level + 2, index >> 2)


def test_descent_to_a_leaf_by_sixteens(c: Contract) -> None:
    """A whole descent: each child picked is the node that the next reveal gives."""
    t = tree(257)
    for target in (0, 100, 255, 256):
        node, level, index = t.root(), depth(257), 0
        while level:
            shown = reveal(t, level, index)
            assert c.call("reveal", 257, level, index, shown)[0] == node
            down = min(level, 4)
            level -= down
            child = (target >> level) - (index << down)
            node, index = shown[child], target >> level
        assert (index, node) == (target, c.call("leaf_hash", leaf(target)))


def rejected(c: Contract, reason: str, name: str, *arguments: Any) -> None:
    with pytest.raises(Reverted) as caught:
        c.call(name, *arguments)
    assert reason in str(caught.value)


def test_index_at_or_beyond_the_count_is_rejected(c: Contract) -> None:
    t = tree(5)
    for index in (5, 7, 8, 2**40, 2**255, 2**256 - 1):
        rejected(c, "merkle: index", "root_from_leaf", 5, index, leaf(4), t.prove(4))
    rejected(c, "merkle: index", "reveal", 5, 2, 2, [ZERO] * 4)
    rejected(c, "merkle: index", "reveal", 5, 1, 3, [])
    rejected(c, "merkle: index", "reveal", 5, 3, 2**253, reveal(t, 3, 0))  # its shift overflows


def test_an_empty_tree_proves_nothing(c: Contract) -> None:
    rejected(c, "merkle: level", "root_from_leaf", 0, 0, b"", [])
    rejected(c, "merkle: level", "reveal", 0, 0, 0, [])
    rejected(c, "merkle: count", "ancestor", 2**40 + 1, 0, 0, ZERO, [])
    rejected(c, "merkle: count", "reveal", 2**255, 4, 0, [ZERO] * 16)


def test_level_above_the_root_is_rejected(c: Contract) -> None:
    t = tree(5)
    rejected(c, "merkle: level", "reveal", 5, 4, 0, reveal(t, 3, 0))
    rejected(c, "merkle: level", "root_from_node", 5, 4, 0, t.root(), [])
    rejected(c, "merkle: level", "reveal", 5, 2**255, 0, reveal(t, 3, 0))


def test_proof_of_another_length_is_rejected(c: Contract) -> None:
    """A shorter one would pose a node as a leaf's hash, a longer one a leaf as a node."""
    t = tree(16)
    proof = list(t.prove(3))
    for wrong in ([], proof[:-1], [*proof, ZERO], [*proof, *proof]):
        rejected(c, "merkle: proof length", "root_from_leaf", 16, 3, leaf(3), wrong)
        rejected(c, "merkle: proof length", "root_from_node", 16, 0, 3, t.node(0, 3), wrong)


def test_absent_node_other_than_zero_is_rejected(c: Contract) -> None:
    t = tree(5)
    for at in (0, 1):
        proof = list(t.prove(4))
        assert proof[at] == ZERO
        proof[at] = b"\1" * 32
        rejected(c, "merkle: absent node", "root_from_leaf", 5, 4, leaf(4), proof)


def test_children_of_another_number_are_rejected(c: Contract) -> None:
    """A child beyond the count cannot be shown, one within cannot be left out."""
    t = tree(17)
    for wrong in (
        [],
        reveal(t, 4, 0)[:-1],
        [*reveal(t, 4, 1), ZERO],
        [*reveal(t, 4, 1), b"\1" * 32],
    ):
        index = 0 if len(wrong) in (0, 15) else 1
        rejected(c, "merkle: children", "reveal", 17, 4, index, wrong)


def test_altered_children_give_another_node(c: Contract) -> None:
    t = tree(100)
    shown = reveal(t, 4, 6)
    for i in range(len(shown)):
        for other in (ZERO, shown[i - 1]):
            wrong = [*shown[:i], other, *shown[i + 1 :]]
            assert c.call("reveal", 100, 4, 6, wrong)[0] != t.node(4, 6)


def test_node_is_no_leaf(c: Contract) -> None:
    """Traps, disputes 11: a leaf of 64 bytes is not the node of two hashes."""
    left, right = t = (tree(2).node(0, 0), tree(2).node(0, 1))
    assert c.call("leaf_hash", left + right) != c.call("node_hash", *t)


def test_zero_node_is_data_not_a_sign_of_error(c: Contract) -> None:
    """A committer may claim 32 zero bytes for a node that has leaves: it is hashed like any other."""
    assert c.call("reveal", 2, 1, 0, [ZERO, ZERO])[0] == node_hash(ZERO, ZERO)
    assert c.call("reveal", 1, 0, 0, [ZERO])[0] == ZERO


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.data())
def test_random_openings(count: int, data: st.DataObject) -> None:
    t = tree(count)
    index = data.draw(st.integers(0, count - 1))
    proof = list(t.prove(index))
    root, _ = trees_tester().call("root_from_leaf", count, index, leaf(index), proof)
    assert root == t.root()
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        bit = data.draw(st.integers(0, 255))
        proof[at] = (int.from_bytes(proof[at], "big") ^ 1 << bit).to_bytes(32, "big")
        try:
            root, _ = trees_tester().call("root_from_leaf", count, index, leaf(index), proof)
        except Reverted:
            return
        assert root != t.root()


# tensors


@pytest.mark.parametrize("d", DType, ids=lambda d: d.text)
def test_elements_of_every_type(c: Contract, d: DType) -> None:
    rng = np.random.default_rng(3)
    shape = (3, 7, 61)
    n = int(np.prod(shape))
    raw = rng.integers(0, 2 if d is DType.BOOL else 256, n * d.size, np.uint8).tobytes()
    x = np.frombuffer(raw, d.numpy).reshape(shape)
    kind = encode_type(TensorType(d, shape))
    leaves = [body_leaf(raw_bytes(x), i) for i in range(body_leaves(x.nbytes))]
    body = MerkleTree(leaves)
    registers = load(x, d).reshape(-1)
    width = registers.dtype.itemsize
    bits = registers.view(f"<u{width}" if width > 1 else np.uint8)
    for index in [0, 1, n - 1, *rng.integers(0, n, 12).tolist()]:
        at = index * d.size // 512
        digest, value, _ = c.call("open_element", kind, index, leaves[at], body.prove(at))
        assert (digest, value) == (tensor_hash(x), int(bits[index]))


def test_every_position_of_a_leaf(c: Contract) -> None:
    raw = pattern(512)
    for d in (DType.F32, DType.I64, DType.BF16, DType.I8):
        want = load(np.frombuffer(raw, d.numpy), d)
        unsigned = want.view(f"<u{want.dtype.itemsize}")
        got = [c.call("element", raw, d.code, i) for i in range(512 // d.size)]
        assert got == unsigned.tolist()
        rejected(c, "leaf: position", "element", raw, d.code, 512 // d.size)
        rejected(c, "leaf: position", "element", raw, d.code, 2**255)


def test_malformed_tensors_are_rejected(c: Contract) -> None:
    x = np.arange(300, dtype=np.float32)
    kind = encode_type(TensorType(DType.F32, (300,)))
    body = MerkleTree(body_leaf(raw_bytes(x), i) for i in range(3))
    last = body_leaf(raw_bytes(x), 2)
    rejected(c, "tensor: index", "open_element", kind, 300, last, body.prove(2))  # in the zero fill
    rejected(c, "leaf: length", "open_element", kind, 299, last[:-1], body.prove(2))
    rejected(c, "type: length", "open_element", kind[:-1], 0, last, body.prove(2))
    rejected(c, "type: dtype", "open_element", b"\x09" + kind[1:], 0, last, body.prove(2))
    rejected(c, "type: rank", "tensor_hash", kind[:1] + b"\x09" + kind[2:], ZERO)
    large = type_bytes(0, [2**20, 2**11])
    rejected(c, "type: elements", "open_element", large, 0, last, body.prove(2))
    digest, value, _ = c.call("open_element", kind, 260, last, body.prove(2))
    assert (digest, value) == (tensor_hash(x), int(x.view(np.uint32)[260]))
    assert c.call("open_element", kind, 260, pattern(512), body.prove(2))[0] != tensor_hash(x)
    assert body_root(x) == body.root()


# instances


def sample_graph() -> Graph:
    b = Builder()
    x = b.input(TensorType(DType.F32, (5, 8)))
    y = b.add("gelu", b.add("linear", x, b.weight(TensorType(DType.F32, (6, 8)))))
    y = b.add("permute", b.add("view", y, shape=(5, 2, 3)), dims=(1, 0, 2))
    return b.finish((b.add("softmax", b.add("mul", y, b.const(np.float32(0.125))), dim=2),))


def test_records_of_an_instance(c: Contract) -> None:
    instance = make_instance(sample_graph(), {})
    records = [r for n in instance.graph.nodes for r in node_records(n, instance.graph.typer())]
    t = MerkleTree(records)
    for i, record in enumerate(records):
        assert len(record) == RECORD_BYTES
        root, _ = c.call("root_from_leaf", len(records), i, record, t.prove(i))
        assert root == instance.node_root
        opcode, result, sources = struct.unpack_from(">HBB", record)
        fields = [c.call("record_field", record, *at) for at in ((0, 2), (2, 1), (3, 1))]
        assert fields == [opcode, result, sources]
        assert c.call("record_type", record) == record[4:70]
        for s in range(sources):
            want = struct.unpack_from(">BI", record, 70 + 5 * s)
            assert c.call("record_source", record, s) == want
        rejected(c, "record: source", "record_source", record, sources)
        for start in (96, 128, 160, 192):
            got = c.call("record_field", record, start, 32)
            assert got == int.from_bytes(record[start : start + 32], "big")
        assert c.call("record_field", record, 224, 8) == int.from_bytes(record[224:232], "big")
    digest = c.call("instance_digest", instance.numeric_id, instance.node_root, len(records),
                    instance.interface_root, instance.encoded[104:])  # fmt: skip
    assert digest == instance.digest
