"""view(dtype): the bits of every type as every other, with torch's shapes, in canonical bits."""

import numpy as np
import pytest
import torch

import ree
from ree.compiler.frontend.torch_types import TORCH_NAMES, to_numpy
from ree.errors import ReeError
from ree.kernels.canonical import canonical

DTYPES = [getattr(torch, name) for name in TORCH_NAMES.values()]


class Views(torch.nn.Module):
    def forward(self, x):
        return [x.view(d) for d in DTYPES]


def bits_of(t):
    return canonical(np.array(to_numpy(t)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_as_every_other(dtype):
    raw = np.random.default_rng(1).integers(0, 256, (3, 64), dtype=np.uint8)
    raw[0, :16] = np.frombuffer(
        np.array([0xFFC00001, 0x7F800001, 0x7C01FF81, 0xFE00], "<u4"), np.uint8
    )
    bits = torch.from_numpy(raw)
    x = bits > 127 if dtype is torch.bool else bits.view(dtype)
    program = ree.compile(Views(), (x,))
    # what comes in is canonical, and so is what comes out
    want = [x.view(d) for d in DTYPES]
    inside = torch.from_numpy(bits_of(x).view(np.uint8)).view(dtype)
    for d, y, eager in zip(DTYPES, program(x), want, strict=True):
        assert y.dtype == d
        assert y.shape == eager.shape
        assert to_numpy(y).tobytes() == bits_of(inside.view(d)).tobytes(), d
    for y, z in zip(program(x), program.run(x, device="interpret").outputs, strict=True):
        assert to_numpy(y).tobytes() == to_numpy(z).tobytes()


def test_a_symbolic_axis():
    class Halves(torch.nn.Module):
        def forward(self, x):
            return x.view(torch.int16), x.view(torch.int64)

    n = torch.export.Dim("n", min=2, max=9)
    x = torch.randn(4, 6)
    program = ree.compile(Halves(), (x,), dynamic_shapes={"x": {0: n}})
    other = torch.randn(7, 6)
    for y, z in zip(program(other), Halves()(other), strict=True):
        assert torch.equal(y, z)


def test_an_inverse_root_by_its_bits():
    """Bits of a float that are computed with, and no gradient through them, as in torch."""

    class Root(torch.nn.Module):
        def forward(self, x):
            y = (0x5F3759DF - (x.view(torch.int32) >> 1)).to(torch.int32).view(torch.float32)
            return y * (1.5 - 0.5 * x * y * y)

    x = torch.rand(100) + 0.1
    assert torch.equal(ree.compile(Root(), (x,))(x), Root()(x))
    seen = x.clone().requires_grad_()
    assert not seen.view(torch.int32).view(torch.float32).requires_grad


def test_widths_that_do_not_fit_are_refused():
    class Wide(torch.nn.Module):
        def forward(self, x):
            return x.view(torch.int64)

    with pytest.raises(ReeError, match="divisible by 2"):
        ree.compile(Wide(), (torch.randn(3, 5),))

    class Double(torch.nn.Module):
        def forward(self, x):
            return x.view(torch.float64).view(torch.int64)

    with pytest.raises(ReeError, match="float64"):
        ree.compile(Double(), (torch.randn(3, 6),))
