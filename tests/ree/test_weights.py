"""Weights that are held once: as they were given, or in the panels that plans read."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

import ree
from ree import _core
from ree.compiler.ir import Kind, Ref
from ree.compiler.plan.recipe import Packing
from ree.errors import InputError
from ree.runtime.weights import Panels, Weights


class Tied(torch.nn.Module):
    """Embedding and output share a weight; 300 rows fill no whole number of panels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(300, 96)
        self.norm = torch.nn.LayerNorm(96)
        self.inner = torch.nn.Linear(96, 96)
        self.out = torch.nn.Linear(96, 300, bias=False)
        self.out.weight = self.table.weight

    def forward(self, tokens):
        return self.out(self.inner(self.norm(self.table(tokens))))


@pytest.fixture(scope="module")
def tied():
    tokens = torch.randint(0, 300, (3, 7), generator=torch.Generator().manual_seed(1))
    return ree.compile(Tied(), (tokens,)), tokens.numpy()


def test_a_table_that_is_multiplied_by_is_read_in_panels_alone(tied):
    program, tokens = tied
    for isa in _core.isa_names():
        executable = program.cpu.executable(program, {}, isa)
        table = next(p.source for p in executable.recipe.packings if p.n == 300)
        recipe = executable.recipe
        read = [recipe.slots[i].buffer for call in recipe.calls for i in call.slots]
        assert table.index not in {b.index for b in read if b.kind == "weight"}
        got = program.run(tokens, isa=isa, trace="ops")
        assert got.trace.root == program.run(tokens, isa="portable", trace="ops").trace.root
    for wrong in (-1, 300):
        with pytest.raises(InputError, match="is not in"):
            program.run(np.full((3, 7), wrong))


def test_siblings_hold_weights_once_and_give_them_back(tied):
    program, tokens = tied
    want, before = program.run(tokens).outputs[0], [w.copy() for w in program.weights]
    root = program.weights_root
    sibling = program.sibling(program.graph, program.names)
    for isa in reversed(_core.isa_names()):  # panels of one width, read by all
        assert sibling.run(tokens, isa=isa).outputs[0].tobytes() == want.tobytes()
    held = [isinstance(h, Panels) for h in program.weights._held]
    assert held == [w.ndim == 2 for w in before]
    for w, b in zip(program.weights, before, strict=True):
        assert (w.shape, w.dtype, w.tobytes()) == (b.shape, b.dtype, b.tobytes())
        assert w.flags.c_contiguous
    program.__dict__.pop("weight_hashes")
    program.__dict__.pop("weights_root")
    assert program.weights_root == root
    packed = {id(h.packed) for h in program.weights._held if isinstance(h, Panels)}
    sibling.cpu.executables.clear()
    gc.collect()
    sibling.run(tokens, isa=_core.isa_names()[-1])  # finds the panels that are held
    found = next(iter(sibling.cpu.executables.values())).panels().values()
    assert {id(x) for x in found} == packed


def test_weights_that_are_not_packed_do_not_keep_the_file(tied, tmp_path):
    program, tokens = tied
    program.save(tmp_path / "t.ree")
    loaded = ree.load(tmp_path / "t.ree")
    assert any(w.base is not None for w in loaded.weights)  # views of the file's bytes
    sibling = loaded.sibling(loaded.graph, loaded.names)
    assert sibling.run(tokens).outputs[0].tobytes() == program.run(tokens).outputs[0].tobytes()
    assert all(isinstance(h, Panels) or h.base is None for h in loaded.weights._held)


def test_panels_of_a_part_or_another_order_do_not_stand_for_a_weight():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    for p in (
        Packing(Ref(Kind.WEIGHT, 0), 3, 4, 4, 1),  # by columns
        Packing(Ref(Kind.WEIGHT, 0), 4, 2, 1, 4),  # two of three rows
        Packing(Ref(Kind.WEIGHT, 1), 4, 3, 1, 4),  # none of these weights
    ):
        weights = Weights([x])
        weights.hold_panels({p: np.zeros(64, np.uint8)}, 4)
        assert weights[0] is x
    weights = Weights([x])
    packed = np.zeros((1, 4, 4), np.float32)
    packed[0, :, :3] = x.T
    weights.hold_panels(
        {Packing(Ref(Kind.WEIGHT, 0), 4, 3, 1, 4): packed.reshape(-1).view(np.uint8)}, 4
    )
    assert weights[0] is not x
    assert weights[0].tobytes() == x.tobytes()
    assert weights[0].flags.c_contiguous  # also of one panel, whose axes numpy could merge
    assert weights[:1][0].tobytes() == x.tobytes()


@pytest.mark.parametrize("isa", _core.isa_names())
@pytest.mark.parametrize(("n", "k"), [(70, 33), (5, 1), (64, 128)])
def test_bytes_are_given_back_from_either_layout(isa, n, k):
    x = np.random.default_rng(n).integers(-128, 128, (n, k)).astype(np.int8)
    panel, other = _core.panel(isa), np.zeros(3, np.float32)
    for group in {2, _core.byte_group(isa)}:
        p = Packing(Ref(Kind.WEIGHT, 1), k, n, 1, k, group=group)
        packed = np.zeros(p.bytes(panel), np.uint8)
        plan = _core.Plan(isa)
        plan.add(*p.call(0, 1))
        plan.run(_core.Pool(2), [x.ctypes.data, packed.ctypes.data])
        weights = Weights([other, x.copy()])
        weights.hold_panels({p: packed}, panel)
        assert isinstance(weights._held[1], Panels)
        packed_again = weights[1]
        assert packed_again.dtype == np.int8
        assert packed_again.tobytes() == x.tobytes()
