"""Convolution, pooling, padding and resizing of torch modules: near torch, and the same bits always."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ree
from ree import _core
from ree.compiler import interp
from ree.compiler.frontend.capture import capture
from ree.compiler.instance import make_instance
from ree.errors import UnsupportedError
from ree.kernels import opdef


def check(module, *shapes, atol=2e-5, exact=False):
    """Outputs near torch's, and equal over instruction sets, threads and fusion; the program."""
    torch.manual_seed(len(shapes[0]))
    module = module.eval()
    inputs = tuple(torch.randn(s) for s in shapes)
    with torch.inference_mode():
        want = module(*inputs).numpy()
    program = ree.compile(module, inputs)
    first = np.asarray(program.run(*inputs).outputs[0])
    assert first.shape == want.shape
    if exact:
        np.testing.assert_array_equal(first, want)
    np.testing.assert_allclose(first, want, atol=atol, rtol=1e-5)
    for isa, threads, fuse in itertools.product(_core.isa_names(), (1, 2, 7), (True, False)):
        got = np.asarray(program.run(*inputs, isa=isa, threads=threads, fuse=fuse).outputs[0])
        assert got.tobytes() == first.tobytes(), (isa, threads, fuse)
    return program


def ops(program):
    return [n.op for n in program.graph.nodes]


CONVOLUTIONS = {
    "plain": (nn.Conv2d(3, 8, 3), (2, 3, 9, 11)),
    "padded": (nn.Conv2d(16, 20, 3, padding=1), (2, 16, 13, 15)),  # K = 144
    "stride": (nn.Conv2d(5, 7, 5, stride=(2, 3), padding=(2, 1)), (1, 5, 17, 20)),
    "groups": (nn.Conv2d(8, 12, 3, padding=1, groups=4), (2, 8, 10, 33)),
    "depthwise": (nn.Conv2d(10, 20, 3, padding=1, stride=2, groups=10), (1, 10, 15, 41)),
    "dilation": (nn.Conv2d(4, 5, 3, padding=(4, 2), dilation=(4, 2)), (1, 4, 14, 35)),
    "same": (nn.Conv2d(4, 5, (4, 3), padding="same", dilation=(1, 2)), (1, 4, 9, 8)),
    "one": (nn.Conv2d(140, 33, 1), (2, 140, 7, 9)),
    "one, stride": (nn.Conv2d(20, 9, 1, stride=2, bias=False), (1, 20, 9, 9)),
    "few channels": (nn.Conv2d(150, 2, 1), (1, 150, 7, 9)),
    "reflect": (nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"), (1, 4, 7, 8)),
    "circular": (nn.Conv1d(4, 5, 3, padding=1, padding_mode="circular"), (2, 4, 19)),
    "one axis": (nn.Conv1d(6, 9, 7, stride=3, padding=3), (3, 6, 100)),
    "same, one axis": (nn.Conv1d(3, 4, 4, padding="same"), (3, 20)),
    "three axes": (
        nn.Conv3d(3, 4, (2, 3, 3), padding=(0, 1, 2), stride=(1, 2, 1)),
        (2, 3, 4, 7, 9),
    ),
    # tiles of several lines, of several images, and of unequal parts of a line
    "weight gradient": (nn.Conv2d(3, 20, (9, 11), padding=1), (5, 3, 9, 11)),
    "weight gradient, stride": (nn.Conv2d(2, 20, (6, 7), dilation=2), (3, 2, 13, 15)),
    "lines of 15": (nn.Conv2d(15, 20, 3, padding=1), (2, 15, 5, 15)),
    "lines of 1": (nn.Conv2d(8, 40, (3, 5)), (6, 8, 9, 5)),
    "unbatched": (nn.Conv2d(3, 4, 3), (3, 8, 9)),
    "one pixel": (nn.Conv2d(3, 6, 5), (2, 3, 5, 5)),
    "many channels": (nn.Conv2d(20, 250, 3, padding=1), (1, 20, 5, 6)),
    "deep": (nn.Conv2d(100, 16, 3, padding=1), (3, 100, 6, 7)),  # more than one pass over K
    "large": (nn.Conv2d(5, 9, 3, stride=4), (2, 5, 460, 460)),  # an image at a time
    "large, few channels": (nn.Conv2d(5, 3, 3, stride=4), (2, 5, 460, 460)),
    "transposed": (
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1),
        (2, 6, 7, 5),
    ),
    "transposed, groups": (nn.ConvTranspose2d(6, 8, (3, 2), stride=(1, 3), groups=2), (1, 6, 7, 5)),
    "transposed, dilated": (nn.ConvTranspose2d(3, 4, 3, padding=3, dilation=2), (1, 3, 9, 7)),
    "transposed, cut": (nn.ConvTranspose2d(3, 4, 3, stride=2, padding=4), (1, 3, 9, 7)),
    "transposed, one axis": (nn.ConvTranspose1d(5, 3, 8, stride=4, padding=2), (2, 5, 11)),
    "transposed, three axes": (nn.ConvTranspose3d(2, 3, 2, stride=2), (1, 2, 2, 3, 4)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name):
    module, shape = CONVOLUTIONS[name]
    program = check(module, shape)
    assert ops(program).count("convolution") == 1


class Wrap(nn.Module):
    """A function of one tensor as a module."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


EXACT = {
    "max": (nn.MaxPool2d(2), (2, 3, 8, 9)),
    "max, overlapping": (nn.MaxPool2d(3, 2, 1), (1, 4, 11, 12)),
    "max, dilated": (nn.MaxPool2d((2, 3), 1, dilation=(3, 2)), (1, 2, 9, 9)),
    "max, ceil": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), (1, 2, 8, 10)),
    "max, one axis": (nn.MaxPool1d(4, 3, 1), (2, 3, 30)),
    "max, three axes": (nn.MaxPool3d(2), (1, 2, 4, 5, 6)),
    "zeros": (nn.ZeroPad2d((1, 2, 0, 3)), (1, 2, 4, 5)),
    "constant, cut": (Wrap(lambda x: F.pad(x, (-1, 2, 1, -2), value=-1.5)), (2, 4, 5)),
    "reflect": (nn.ReflectionPad2d((3, 2, 1, 4)), (1, 2, 5, 6)),
    "replicate": (nn.ReplicationPad2d((3, 0, 1, 2)), (1, 2, 5, 6)),
    "replicate, one axis": (nn.ReplicationPad1d((3, 2)), (2, 5, 6)),
    "circular": (nn.CircularPad2d((2, 1, 0, 3)), (1, 2, 5, 6)),
    "shuffle": (nn.PixelShuffle(3), (2, 18, 4, 5)),
    "nearest": (nn.Upsample(scale_factor=2), (1, 3, 4, 5)),
    "nearest, size": (nn.Upsample(size=(7, 11)), (1, 3, 4, 5)),
    "nearest, factor": (nn.Upsample(scale_factor=1.7), (1, 3, 9, 8)),
    "nearest, one axis": (nn.Upsample(scale_factor=3), (2, 3, 9)),
    "flip": (Wrap(lambda x: torch.flip(x, (1, -1))), (2, 3, 40)),
}


@pytest.mark.parametrize("name", EXACT)
def test_moves_and_maxima(name):
    module, shape = EXACT[name]
    check(module, shape, exact=True)


NEAR = {
    "mean": (nn.AvgPool2d(2), (2, 3, 8, 9)),
    "mean, padded": (nn.AvgPool2d(3, 2, 1), (1, 4, 11, 12)),
    "mean, without padding": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), (1, 4, 11, 12)),
    "mean, ceil": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), (1, 4, 12, 9)),
    "mean, ceil, without padding": (
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        (1, 4, 12, 9),
    ),
    "mean, divisor": (nn.AvgPool2d(2, divisor_override=3), (1, 4, 12, 9)),
    "mean, one axis": (nn.AvgPool1d(3, 2, 1), (2, 3, 30)),
    "global": (nn.AdaptiveAvgPool2d(1), (2, 30, 7, 7)),
    "adaptive": (nn.AdaptiveAvgPool2d((2, 4)), (2, 3, 8, 8)),
    "adaptive, uneven": (nn.AdaptiveAvgPool2d((5, 3)), (2, 3, 8, 7)),
    "adaptive, one axis": (nn.AdaptiveAvgPool1d(6), (2, 3, 20)),
    "adaptive, one axis kept": (nn.AdaptiveAvgPool2d((None, 2)), (2, 3, 5, 6)),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), (1, 3, 5, 6)),
    "bilinear, corners": (
        nn.Upsample(size=(9, 4), mode="bilinear", align_corners=True),
        (1, 3, 5, 6),
    ),
    "bilinear, smaller": (nn.Upsample(size=(3, 4), mode="bilinear"), (1, 3, 8, 9)),
    "bilinear, factor": (nn.Upsample(scale_factor=1.3, mode="bilinear"), (1, 3, 8, 9)),
    "linear": (nn.Upsample(scale_factor=3, mode="linear"), (2, 3, 8)),
}


@pytest.mark.parametrize("name", NEAR)
def test_means_and_interpolation(name):
    module, shape = NEAR[name]
    check(module, shape, atol=3e-6)


class Block(nn.Module):
    """A residual block: bias, batch norm, addition and relu follow the convolutions."""

    def __init__(self, norm=True):
        super().__init__()
        make = nn.BatchNorm2d if norm else lambda n: nn.Identity()
        self.a, self.b = nn.Conv2d(12, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.short = nn.Conv2d(12, 16, 1, 2)
        self.norms = nn.ModuleList([make(16) for _ in range(2)])

    def forward(self, x):
        y = F.relu(self.norms[0](self.a(x)))
        return F.relu(self.norms[1](self.b(y)) + self.short(x))


def test_a_residual_block_is_three_kernels():
    program = check(Block(norm=False), (2, 12, 9, 14))
    text = [c.kernel for c in program_calls(program, (2, 12, 9, 14))]
    assert text == ["convolution"] * 3


def program_calls(program, *shapes):
    from ree.compiler.plan.planner import plan

    inputs = [np.zeros(s, np.float32) for s in shapes]
    instance = program.instance(program.bind_symbols(inputs))
    return plan(instance.graph, panel=32).calls


def test_a_residual_block_with_batch_norm():
    torch.manual_seed(1)
    block = Block()
    for n in block.norms:
        n.running_mean.normal_()
        n.running_var.uniform_(0.5, 2)
    check(block, (2, 12, 9, 14))


class Epilogues(nn.Module):
    """What follows reads a row, a column, a permuted and a broadcast tensor."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 9, 3, padding=1)
        self.row, self.column = nn.Parameter(torch.randn(7)), nn.Parameter(torch.randn(5, 1))
        self.each = nn.Parameter(torch.randn(9, 5, 7))

    def forward(self, x, y):
        z = self.conv(x) * self.row + self.column
        return F.silu(z + y.permute(0, 3, 1, 2)) * self.each


def test_epilogues_read_any_broadcast():
    check(Epilogues(), (2, 3, 5, 7), (2, 5, 7, 9))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                                  nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.Conv2d(8, 12, 1),
                                  nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())  # fmt: skip
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.body(x))


def test_open_batch_and_size():
    size = torch.export.Dim("size", min=8, max=64)
    batch = torch.export.Dim("batch", max=16)
    module = Net().eval()
    shapes = {"x": {0: batch, 2: size, 3: size}}
    program = ree.compile(module, (torch.randn(2, 3, 16, 16),), dynamic_shapes=shapes)
    for n, s in ((1, 8), (3, 19), (2, 40)):
        x = torch.randn(n, 3, s, s)
        got = np.asarray(program.run(x).outputs[0])
        np.testing.assert_allclose(got, module(x).detach().numpy(), atol=1e-5)


def test_the_interpreter_agrees():
    """A traced run, and the reference interpreter, give the bits of the fused program."""
    module = Net().eval()
    x = torch.randn(2, 3, 10, 12)
    program = ree.compile(module, (x,))
    captured = capture(module, (x,))
    want = np.asarray(program.run(x).outputs[0])
    bound = make_instance(captured.graph, {}).graph
    (got,) = interp.outputs(bound, [x.numpy()], captured.weights)
    assert got.tobytes() == want.tobytes()
    assert ree.verify(program, program.run(x, trace="ops").trace, [x]).same


def test_infinite_weights_reach_the_border():
    """A tap outside x is +0 times the weight: NaN for an infinite one, where the rule says so."""
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        conv.weight[0, 0, 0, 0] = float("inf")
    program = ree.compile(conv, (torch.ones(1, 1, 4, 4),))
    y = np.asarray(program.run(torch.ones(1, 1, 4, 4)).outputs[0])[0, 0]
    assert np.isnan(y[0]).all()
    assert np.isnan(y[:, 0]).all()
    assert np.isinf(y[1:, 1:]).all()


def test_the_order_of_taps_is_seen():
    """The same products in another order, by mirroring x and the weights: near, with other bits."""
    rng = np.random.default_rng(4)
    attrs = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    x, w = (rng.standard_normal(s, np.float32) for s in ((1, 6, 8, 9), (5, 6, 3, 3)))
    (y,) = opdef.apply("convolution", (x, w), attrs)
    mirrored = [np.ascontiguousarray(v[..., ::-1]) for v in (x, w)]
    (z,) = opdef.apply("convolution", mirrored, attrs)
    np.testing.assert_allclose(z[..., ::-1], y, atol=1e-5)
    assert (z[..., ::-1] != y).any()


def test_what_is_refused():
    with pytest.raises(UnsupportedError):
        ree.compile(Wrap(lambda x: F.max_pool2d(x.double(), 2)), (torch.randn(1, 1, 10, 10),))


@pytest.mark.parametrize("channels", [3, 20])
def test_a_convolution_is_never_negative_zero(channels):
    module = nn.Conv2d(2, channels, 3, bias=False).eval()
    nn.init.constant_(module.weight, 1e-30)
    x = torch.full((1, 2, 5, 20), -1e-30)  # products underflow to -0
    program = ree.compile(module, (x,))
    for isa in _core.isa_names():
        assert not np.signbit(np.asarray(program.run(x, isa=isa).outputs[0])).any()
