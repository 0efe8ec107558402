"""Merkle trees against the definition, and proofs that must not pass."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ree.traces.encoding import ZERO
from ree.traces.merkle import (
    MerkleTree,
    ProofError,
    depth,
    leaf_hash,
    merkle_root,
    node_hash,
    verify,
    verify_node,
)


def leaves(n: int) -> list[bytes]:
    return [b"%d" % i for i in range(n)]


def definition(data: list[bytes], level: int, index: int) -> bytes:
    if index << level >= len(data):
        return bytes(32)
    if level == 0:
        return hashlib.sha256(b"\0" + data[index]).digest()
    pair = definition(data, level - 1, 2 * index) + definition(data, level - 1, 2 * index + 1)
    return hashlib.sha256(b"\1" + pair).digest()


def test_depth() -> None:
    assert [depth(n) for n in (0, 1, 2, 3, 4, 5, 8, 9, 1024, 1025)] == [
        0, 0, 1, 2, 2, 3, 3, 4, 10, 11,
    ]  # fmt: skip


@given(st.lists(st.binary(max_size=70), max_size=70))
def test_root_is_the_definition(data: list[bytes]) -> None:
    want = definition(data, depth(len(data)), 0)
    assert merkle_root(data) == MerkleTree(data).root() == want


def test_history_has_the_root_and_proofs_of_every_size() -> None:
    data, tree = leaves(40), MerkleTree()
    for i, leaf in enumerate(data):
        assert tree.append(leaf) == i
    for n in range(41):
        root = tree.root(n)
        assert root == merkle_root(data[:n])
        for i in range(n):
            verify(root, n, i, data[i], tree.prove(i, n))


def test_every_node_verifies() -> None:
    data = leaves(21)
    tree, root = MerkleTree(data), merkle_root(data)
    for level in range(depth(21) + 1):
        for index in range((21 >> level) + 2):
            want = definition(data, level, index)
            assert tree.node(level, index) == want
            proof = [tree.node(k, index >> (k - level) ^ 1) for k in range(level, depth(21))]
            if index << level < 21:
                verify_node(root, 21, level, index, want, proof)
            else:
                with pytest.raises(ProofError, match="index"):
                    verify_node(root, 21, level, index, want, proof)


@given(st.integers(1, 40), st.data())
def test_nothing_but_the_leaf_at_its_place_verifies(n: int, data: st.DataObject) -> None:
    content = leaves(n)
    tree, root = MerkleTree(content), merkle_root(content)
    i = data.draw(st.integers(0, n - 1))
    proof = tree.prove(i)
    verify(root, n, i, content[i], proof)
    for j in range(-1, 2 * n):
        if j != i:
            with pytest.raises(ProofError):
                verify(root, n, j, content[i], proof)
    with pytest.raises(ProofError):
        verify(root, n, i, content[i] + b"!", proof)
    for k in range(len(proof)):
        bad = list(proof)
        bad[k] = bytes([bad[k][0] ^ 1]) + bad[k][1:]
        with pytest.raises(ProofError):
            verify(root, n, i, content[i], bad)
        with pytest.raises(ProofError, match="proof: expected"):
            verify(root, n, i, content[i], proof[:k])
        with pytest.raises(ProofError, match="32 bytes"):
            verify(root, n, i, content[i], [*proof[:k], b"", *proof[k + 1 :]])
    with pytest.raises(ProofError, match="proof: expected"):
        verify(root, n, i, content[i], (*proof, ZERO))


def test_a_committer_cannot_hide_leaves_beyond_the_count() -> None:
    a, b, c, hidden = (leaf_hash(x) for x in leaves(4))
    root = node_hash(node_hash(a, b), node_hash(c, hidden))  # stated with count 3
    verify(root, 3, 0, b"0", (b, node_hash(c, hidden)))
    with pytest.raises(ProofError, match="absent node at level 0: expected zeros"):
        verify(root, 3, 2, b"2", (hidden, node_hash(a, b)))
    with pytest.raises(ProofError, match="index"):
        verify(root, 3, 3, b"3", (c, node_hash(a, b)))


def test_an_inner_node_is_no_leaf() -> None:
    a, b = (leaf_hash(x) for x in leaves(2))
    root = node_hash(a, b)
    assert merkle_root([a + b]) != root
    with pytest.raises(ProofError):
        verify(root, 1, 0, a + b, ())


def test_the_last_leaf_is_not_duplicated() -> None:
    assert merkle_root(leaves(3)) != merkle_root([*leaves(3), b"2"])


def test_empty_tree_has_no_leaf_to_prove() -> None:
    assert merkle_root([]) == MerkleTree().root() == ZERO
    with pytest.raises(ProofError, match="index"):
        verify(ZERO, 0, 0, b"", ())
    with pytest.raises(IndexError):
        MerkleTree().prove(0)


def test_sizes_and_indices_out_of_range() -> None:
    tree = MerkleTree(leaves(3))
    for size in (-1, 4):
        with pytest.raises(IndexError):
            tree.root(size)
    for index, size in ((-1, 3), (3, 3), (2, 2)):
        with pytest.raises(IndexError):
            tree.prove(index, size)
