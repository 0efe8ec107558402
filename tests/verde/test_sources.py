"""What parties read through views and run by bound nodes is what the references give."""

import numpy as np
import pytest
import torch

from ree.kernels import opdef, registry, rowprogram
from ree.kernels.opdef import Form, apply
from ree.kernels.types import DType, TensorType
from ree.verde.party import Party, run_of
from ree.verde.sources import moved, result, taken
from ree.verde.testing import program_of, samples

MOVES = [n for n in registry.names() if opdef.get(n).form is Form.MOVEMENT]
COMPOSITES = [n for n in registry.names() if opdef.get(n).form is Form.COMPOSITE]


def test_results_keep_subnormals_in_a_thread_that_flushes_them():
    x = np.full(4, 1e-39, np.float32)
    node = opdef.bind("mul", [TensorType(DType.F32, (4,))] * 2, {}, {})
    want = result(node, [x, np.full(4, 0.5, np.float32)])
    assert want.any()
    try:
        assert torch.set_flush_denormal(True)
        assert result(node, [x, np.full(4, 0.5, np.float32)]).tobytes() == want.tobytes()
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("op", MOVES)
def test_a_move_is_what_its_reference_gives(op):
    for sample in opdef.get(op).samples():
        types = [TensorType(DType.of(x.dtype), x.shape) for x in sample.inputs]
        node = opdef.bind(op, types, sample.attrs, {})
        (want,) = apply(op, sample.inputs, sample.attrs)
        for inputs in (sample.inputs, [np.asfortranarray(x) for x in sample.inputs]):
            got = moved(node, inputs)
            assert (got.dtype, got.shape) == (want.dtype, want.shape), sample.name
            assert got.tobytes() == want.tobytes(), sample.name
            flat = np.arange(want.size)[::3]
            assert taken(got, flat).tobytes() == want.reshape(-1)[flat].tobytes()


def test_moves_of_strides_are_views():
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    t = TensorType(DType.F32, x.shape)
    for op, attrs in (("permute", {"dims": (2, 0, 1)}), ("flip", {"dim": 2})):
        assert np.shares_memory(moved(opdef.bind(op, [t], attrs, {}), [x]), x), op


@pytest.mark.parametrize("op", COMPOSITES)
def test_a_row_is_what_its_program_gives(op):
    for sample in samples(op, 3):
        program, _ = program_of(op, sample)
        run, instance = run_of(program, sample.inputs)
        last = run.scope.type("values", 0).numel - 1
        mine = Party(run, instance.digest).row_values(("values", 0, last))
        want = rowprogram.run(run.scope.row_program("values", 0), sample.inputs, last)
        assert [x.tobytes() for x in mine] == [x.tobytes() for x in want]
