"""The pytest plugin, used as a project would use it."""

import numpy as np
import pytest
import torch

from ree import _core
from ree.errors import ReeError
from ree.kernels import opdef, registry  # noqa: F401


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(130, 33), torch.nn.GELU(), torch.nn.LayerNorm(33)
    ).eval()


def test_same_bits(assert_same_bits):
    devices = ["cpu", *(f"cpu:{isa}" for isa in _core.isa_names())]
    assert_same_bits(model(), (torch.randn(3, 130),), devices=devices)


def test_a_difference_is_named(assert_same_bits, monkeypatch):
    from ree.program import Program

    real = Program.run

    def off_by_one(self, *args, isa=None, **kwargs):
        result = real(self, *args, isa=isa, **kwargs)
        if isa == "portable":
            x = np.asarray(result.outputs[0]).copy()
            x.reshape(-1).view(np.uint32)[5] ^= 1
            result.outputs = (torch.from_numpy(x),)
        return result

    monkeypatch.setattr(Program, "run", off_by_one)
    with pytest.raises(pytest.fail.Exception, match="cpu and cpu:portable give different bits"):
        assert_same_bits(model(), (torch.randn(3, 130),), devices=["cpu", "cpu:portable"])


def test_a_missing_device_is_an_error(assert_same_bits):
    if torch.cuda.is_available():
        pytest.fail("this test is for machines without a GPU; run it with CUDA_VISIBLE_DEVICES=")
    with pytest.raises(ReeError, match="no CUDA device"):
        assert_same_bits(model(), (torch.randn(3, 130),), devices=["cpu", "cuda"])
