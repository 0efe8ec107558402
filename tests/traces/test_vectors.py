"""tests/vectors/trees.json: the same numbers for Python, C++ and contracts.

The file is what `expected()` computes here from the definition, without the library;
`python tests/traces/test_vectors.py` writes it again.
"""

import hashlib
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

VECTORS = Path(__file__).resolve().parent.parent / "vectors" / "trees.json"
COUNTS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33]
BODIES = [0, 1, 4, 511, 512, 513, 1023, 1024, 1025, 1536, 8192, 8193, 131072, 131073, 270001]
TENSORS = [
    (0, []), (0, [1]), (0, [2, 3]), (0, [3, 2]), (0, [6]), (0, [0]), (0, [2, 0, 5]), (0, [129]),
    (1, [7]), (2, [7]), (3, [5]), (4, [5]), (5, [5]), (6, [5]), (7, [5]), (8, [5]),
    (0, [1, 1, 1, 1, 1, 1, 1, 9]),
]  # fmt: skip
SIZES = [4, 2, 2, 8, 4, 2, 1, 1, 1]
NUMPY = ["<f4", "<f2", "<u2", "<i8", "<i4", "<i2", "i1", "u1", "?"]


def h(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def node(leaves: list[bytes], level: int, index: int) -> bytes:
    """A node by its definition."""
    if index * 2**level >= len(leaves):
        return bytes(32)
    if level == 0:
        return h(b"\0", leaves[index])
    return h(b"\1", node(leaves, level - 1, 2 * index), node(leaves, level - 1, 2 * index + 1))


def height(count: int) -> int:
    d = 0
    while 2**d < count:
        d += 1
    return d


def root(leaves: list[bytes]) -> bytes:
    return node(leaves, height(len(leaves)), 0)


def leaf(i: int) -> bytes:
    return b"leaf %d" % i


def pattern(n: int) -> bytes:
    return bytes((7 * i + 3) % 251 for i in range(n))


def body(raw: bytes) -> bytes:
    return root([raw[i : i + 512].ljust(512, b"\0") for i in range(0, len(raw), 512)])


def tensor_bytes(code: int, dims: list[int]) -> bytes:
    n = int(np.prod(dims, dtype=int)) * SIZES[code]
    return bytes(i % 2 for i in range(n)) if code == 8 else pattern(n)


def tensor(code: int, dims: list[int], raw: bytes) -> bytes:
    shape = struct.pack(f">{len(dims)}Q", *dims)
    return h(b"\2", bytes([code, len(dims)]), shape, body(raw))


def tensors_root(hashes: list[bytes]) -> bytes:
    return root([struct.pack(">I", i) + x for i, x in enumerate(hashes)])


def example() -> dict[str, object]:
    """The trace of docs/trace-format.md: y = relu(view(x + 1)) on x = [1, -2, 3]."""

    def f32(dims: list[int], *values: float) -> bytes:
        return tensor(0, dims, struct.pack(f"<{len(values)}f", *values))

    header = [h(x) for x in (b"numeric", b"program", b"instance")]
    inputs, outputs = [f32([3], 1, -2, 3)], [f32([3, 1], 2, 0, 4)]
    values = [f32([3], 2, -1, 4), bytes(32), outputs[0]]
    io = h(
        b"\3", struct.pack(">I", 1), *header, bytes(32), struct.pack(">I", 1),
        tensors_root(inputs), struct.pack(">I", 1), tensors_root(outputs),
    )  # fmt: skip
    return {
        "numeric_id": header[0].hex(), "program": header[1].hex(), "instance": header[2].hex(),
        "weights_root": bytes(32).hex(), "inputs": [x.hex() for x in inputs],
        "outputs": [x.hex() for x in outputs], "values": [x.hex() for x in values],
        "inputs_root": tensors_root(inputs).hex(), "outputs_root": tensors_root(outputs).hex(),
        "values_root": tensors_root(values).hex(), "io_root": io.hex(),
        "root": h(b"\5", io, struct.pack(">I", 3), tensors_root(values)).hex(),
    }  # fmt: skip


def expected() -> dict[str, object]:
    trees = []
    for n in COUNTS:
        leaves = [leaf(i) for i in range(n)]
        d = height(n)
        proofs = {
            str(i): [node(leaves, level, i >> level ^ 1).hex() for level in range(d)]
            for i in sorted({0, n // 2, n - 1}) if 0 <= i < n
        }  # fmt: skip
        trees.append({"count": n, "root": root(leaves).hex(), "proofs": proofs})
    return {
        "about": [
            "trees: leaf i is the ASCII text 'leaf <i>'; proofs by leaf index, from the leaf up",
            "bodies: byte i of the tensor is (7*i+3) mod 251",
            "tensors: the same bytes, i mod 2 for bool (dtype 8); hash of dtype code and dims",
            "trace: the example of docs/trace-format.md",
        ],
        "trees": trees,
        "bodies": [{"bytes": n, "root": body(pattern(n)).hex()} for n in BODIES],
        "tensors": [
            {"dtype": c, "dims": dims, "hash": tensor(c, dims, tensor_bytes(c, dims)).hex()}
            for c, dims in TENSORS
        ],
        "trace": example(),
    }


def load() -> dict:
    return json.loads(VECTORS.read_text())


def test_file_is_what_the_definition_says() -> None:
    assert load() == expected()


@pytest.mark.parametrize("at", range(len(COUNTS)), ids=lambda i: str(COUNTS[i]))
def test_trees(at: int) -> None:
    from ree.traces.merkle import MerkleTree, merkle_root, verify

    case = load()["trees"][at]
    leaves = [leaf(i) for i in range(case["count"])]
    tree = MerkleTree(leaves)
    assert merkle_root(leaves).hex() == tree.root().hex() == case["root"]
    for index, proof in case["proofs"].items():
        i, digests = int(index), [bytes.fromhex(x) for x in proof]
        assert list(tree.prove(i)) == digests
        verify(bytes.fromhex(case["root"]), case["count"], i, leaf(i), digests)


@pytest.mark.parametrize("at", range(len(BODIES)), ids=lambda i: str(BODIES[i]))
def test_bodies(at: int) -> None:
    from ree.traces.tensor import body_root

    case = load()["bodies"][at]
    raw = np.frombuffer(pattern(case["bytes"]), np.uint8)
    assert body_root(raw).hex() == case["root"]


@pytest.mark.parametrize("at", range(len(TENSORS)), ids=lambda i: str(TENSORS[i]))
def test_tensors(at: int) -> None:
    from ree.traces.tensor import tensor_hash

    case = load()["tensors"][at]
    raw = tensor_bytes(case["dtype"], case["dims"])
    x = np.frombuffer(raw or b"\0" * 8, NUMPY[case["dtype"]])[: len(raw)]
    x = (x if raw else x[:0]).reshape(case["dims"])
    assert tensor_hash(x).hex() == case["hash"]


def test_trace_example() -> None:
    from ree.traces.tensor import tensor_hash
    from ree.traces.trace import make_trace, tensors_root

    want = load()["trace"]
    header = ("numeric_id", "program", "instance", "weights_root")
    x = np.array([1, -2, 3], np.float32)
    y = np.maximum(x + np.float32(1), 0).reshape(3, 1)
    trace = make_trace(
        **{k: bytes.fromhex(want[k]) for k in header},
        inputs=[tensor_hash(x)], outputs=[tensor_hash(y)],
        values=[tensor_hash(x + np.float32(1)), bytes(32), tensor_hash(y)],
    )  # fmt: skip
    assert [v.hex() for v in trace.values] == want["values"]
    assert tensors_root(trace.values).hex() == want["values_root"]
    assert trace.io_root.hex() == trace.at_io_level().root.hex() == want["io_root"]
    assert trace.root.hex() == want["root"]


def test_document_shows_these_numbers() -> None:
    document = (VECTORS.parents[2] / "docs" / "trace-format.md").read_text()
    shown = re.findall(r"^    ([0-9a-f]{64})$", document, re.MULTILINE)
    t, raw = load()["trace"], struct.pack("<3f", 1, -2, 3)
    assert shown == [
        body(raw).hex(), *t["inputs"], *t["values"], t["inputs_root"], t["outputs_root"],
        t["values_root"], t["io_root"], t["root"],
    ]  # fmt: skip


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(expected(), indent=1) + "\n")
