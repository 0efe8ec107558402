"""Every operator's element, derived one operation at a time, equals its reference."""

import numpy as np
import pytest

from ree.kernels import opdef, registry, rowprogram
from ree.kernels.opdef import Form, apply
from ree.kernels.types import DType, TensorType
from ree.traces.merkle import MerkleTree
from ree.verde import fast_entries
from ree.verde.commitments import Entries, entry_leaves
from ree.verde.derivation import Derivation, load_bits, read_bits, run_all, store_bits
from ree.verde.forms import DERIVATIONS, Contraction, derivation


@pytest.mark.parametrize("seed", range(6))
def test_chains_round_once(seed):
    """Every bit pattern: subnormals, infinities, NaN, sums that cancel and products far apart."""
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 2**32, 300, dtype=np.uint32).view(np.float32) for _ in range(2))
    if seed % 3 == 1:  # exponents close to each other, few bits set: ties
        a, b = (
            (rng.integers(-8, 8, 300) * 2.0 ** rng.integers(-13, 13, 300)).astype(np.float32)
            for _ in "ab"
        )
    if seed == 4:  # just below and just above a tie in float32, on it when rounded to float64 first
        tie, below = np.float32(1 + 2.0**-23), np.float32(1 - 2.0**-23)
        a, b = np.zeros((2, 300), np.float32)
        a[::2], b[::2] = tie, np.float32(1) * np.resize([1, -1], 150)
        a[1::2], b[1::2] = tie * np.float32(2**-12), below * np.float32(2**-12)
    if seed % 3 == 2:  # products at the edge of the subnormals
        a, b = ((x.view(np.uint32) & 0x807FFFFF | 0x20000000).view(np.float32) for x in (a, b))
    node = opdef.bind("linear", [TensorType(DType.F32, (1, 300))] * 2, {}, {})
    d = derivation(node, 0)
    assert d.entries([a[None], b[None]]).tolist() == run_all(d, [a[None], b[None]])
    node = opdef.bind("sum", [TensorType(DType.F32, (300,))], {"dim": 0, "keepdim": False}, {})
    d = derivation(node, 0)
    assert d.entries([a]).tolist() == run_all(d, [a])


SPECIAL = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -3e38, 1.0], np.float32)


@pytest.mark.parametrize("n", [1, 127, 128, 129, 1023, 1024, 1025, 2048, 2049, 4300])
@pytest.mark.parametrize("axis", [0, 1])
def test_blocks_join_where_they_meet(monkeypatch, n, axis):
    """Chains of more than a block, along an axis of step 1 and of step 2, special values among them."""
    monkeypatch.setattr(fast_entries, "BLOCK", 1024)
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, 2) if axis == 0 else (2, n), np.float32)
    x.reshape(-1)[rng.integers(0, 2 * n, n // 40)] = rng.choice(SPECIAL, n // 40)
    index = rng.integers(-3, 3, n)
    ints = (np.nan_to_num(x).clip(-9, 9) * 5).astype(np.int64)
    cases = [(op, [x], {"dim": axis, "keepdim": False})
             for op in ("sum", "amax", "amin", "argmax", "argmin")]  # fmt: skip
    cases += [("cumsum", [y], {"dim": axis}) for y in (x, ints)]
    cases += [("sort", [y], {"dim": axis, "descending": down})
              for y in (x, ints) for down in (False, True)]  # fmt: skip
    three = np.ascontiguousarray(x[:3] if axis == 0 else x[:, :3])
    if n > 3:
        cases += [("index_add", [three, index, x], {"dim": axis})]
        cases += [("index_put", [three, index, x], {"dim": axis})]
    cases += [
        ("matmul", [x.T if axis == 0 else x, x if axis == 0 else np.ascontiguousarray(x.T)], {})
    ]
    for op, given, attrs in cases:
        given = [np.ascontiguousarray(y) for y in given]
        node = opdef.bind(op, [TensorType(DType.of(y.dtype), y.shape) for y in given], attrs, {})
        for result in range(len(node.outputs)):
            d = derivation(node, node.outputs[result].numel - 1, result)
            assert d.entries(given).tolist() == run_all(d, given), op


def _sampled():
    """A few samples of each operator: the shapes differ between samples more than the values do."""
    for name in registry.names():
        samples = list(opdef.get(name).samples())
        step = max(1, len(samples) // 12)
        yield from (pytest.param(name, s, id=f"{name}-{s.name}") for s in samples[::step])


@pytest.mark.parametrize(("name", "sample"), list(_sampled()))
def test_the_last_entry_is_the_element(name, sample):
    types = tuple(TensorType(DType.of(x.dtype), x.shape) for x in sample.inputs)
    node = opdef.bind(name, types, sample.attrs, {})
    results = apply(name, sample.inputs, sample.attrs)
    rng = np.random.default_rng(1)
    for r, y in enumerate(results):
        if y.size == 0:
            continue
        for e in {0, y.size - 1, *(int(i) for i in rng.integers(0, y.size, 2))}:
            want = read_bits(y, e)
            if opdef.get(name).form is Form.COMPOSITE:
                program = opdef.get(name).row_program(node)
                values = rowprogram.run(program, sample.inputs, e)
                assert read_bits(values[-1], program.element.at(program.split(e))) == want
                continue
            d = derivation(node, e, r)
            entries = run_all(d, sample.inputs)
            if type(d).entries is not Derivation.entries:  # made all at once
                assert d.entries(sample.inputs).tolist() == entries
            assert len(entries) == d.count
            assert (
                load_bits(store_bits(entries[-1], node.outputs[r].dtype), node.outputs[r].dtype)
                == want
            )
            assert all(x < 1 << 8 * d.width for x in entries)


def test_every_form_of_an_operator_has_a_derivation():
    assert set(DERIVATIONS) == set(Form) - {Form.COMPOSITE, Form.OUTPUT}
    assert {f for f, d in DERIVATIONS.items() if d.chosen} == {f for f in Form if f.needs.chosen}
    assert len({f.number for f in Form}) == len(Form)
    chained = {f for f, d in DERIVATIONS.items() if issubclass(d, Contraction)}
    assert chained == {f for f in Form if f.chain}


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("n", [1, 63, 64, 65, 190])
def test_entries_are_leaves_as_written_down(n, width):
    bits = np.random.default_rng(n).integers(0, 2**31, n).astype(f"<u{width}")
    entries, leaves = Entries(bits), entry_leaves(bits.tolist(), width)
    tree = MerkleTree(leaves)
    assert entries.tree.root() == tree.root()
    for i in range(n):
        at = entries.leaf_of(i)
        opening = entries.open(i)
        assert (opening.leaf, list(opening.proof)) == (leaves[at], list(tree.prove(at)))
