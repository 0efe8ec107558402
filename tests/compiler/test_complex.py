"""Complex numbers as pairs, and Fourier transforms: near torch, the same on every instruction set."""

import mpmath
import numpy as np
import pytest
import torch
from torch import nn

import ree
from ree.compiler import interp
from ree.compiler.frontend.aten import fourier
from ree.compiler.frontend.aten.pairs import Pair, magnitude
from ree.compiler.frontend.importer import Importer
from ree.compiler.gradients.engine import backward
from ree.errors import CaptureError, UnsupportedError
from ree.kernels.types import DType, TensorType
from ree.optim import SGD
from ree.training.step import compile_step


class Of(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, *inputs):
        return self.f(*inputs)


def check(f, *inputs, limit=2e-6):
    want = f(*inputs)
    program = ree.compile(Of(f), inputs)
    first = program.run(*inputs, trace="ops")
    have = first.outputs[0]
    assert have.dtype == want.dtype
    assert have.shape == want.shape
    torch.testing.assert_close(have, want, rtol=0, atol=limit * want.abs().max().item())
    other = program.run(*inputs, trace="ops", isa="portable", threads=1, fuse=False)
    assert other.trace.root == first.trace.root
    return program


def pair(x, y):
    return torch.view_as_complex(torch.stack((x, y), -1))


OPERATIONS = {
    "add": lambda z, w: z + w,
    "sub": lambda z, w: z.sub(w, alpha=2),
    "mul": lambda z, w: z * w,
    "div": lambda z, w: z / w,
    "scaled": lambda z, w: 2.5 * z + 1j * w - w.real,
    "conj": lambda z, w: z.conj() * w,
    "square": lambda z, w: z**2 + w.pow(3),
    "exp": lambda z, w: torch.exp(z),
    "sum": lambda z, w: (z - 0.5).sum(1),
    "mean": lambda z, w: z.mean((0, 2)),
    "product": lambda z, w: z @ w.mH,
    "moved": lambda z, w: torch.cat((z.transpose(1, 2), w.transpose(1, 2)), 1).flatten(1),
    "where": lambda z, w: torch.where(z.real > 0, z, w.imag),
    "written": lambda z, w: z.index_put((torch.tensor([1]),), w[:1]),
    "zeros": lambda z, w: torch.zeros_like(z) + z.new_zeros(()) + w,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_arithmetic(name):
    torch.manual_seed(0)
    parts = torch.randn(4, 2, 5, 6)
    f = OPERATIONS[name]
    check(lambda *p: torch.view_as_real(f(pair(*p[:2]), pair(*p[2:])).resolve_conj()), *parts)


def test_magnitude_at_the_ends():
    x = torch.tensor([0.0, 3e38, 1e-40, 3.0, float("inf"), float("nan")])
    y = torch.tensor([0.0, 1e38, 1e-40, 4.0, 1.0, 1.0])
    have = ree.compile(Of(lambda x, y: pair(x, y).abs()), (x, y))(x, y)
    torch.testing.assert_close(have, torch.hypot(x, y), rtol=1e-6, atol=0, equal_nan=True)


def test_angle_and_logarithm():
    parts = [torch.tensor([0.0, -0.0, 1.0, -1.0, -3.0, 1e-30, 2e38, -2e38]),
             torch.tensor([1.0, -2.0, 0.0, -0.0, 4.0, -1e-30, 1e38, 2e38])]  # fmt: skip
    check(lambda x, y: torch.angle(pair(x, y)), *parts)
    check(lambda x, y: torch.view_as_real(torch.log(pair(x, y))), *parts)


def test_the_angle_of_a_real_number():
    x = torch.tensor([0.0, -0.0, 1.0, -2.0, torch.inf, -torch.inf, torch.nan])
    torch.testing.assert_close(
        ree.compile(Of(torch.angle), (x,))(x), torch.angle(x), equal_nan=True
    )
    n = torch.tensor([-3, 0, 4])
    torch.testing.assert_close(ree.compile(Of(torch.angle), (n,))(n), torch.angle(n))


def test_the_gradient_of_a_magnitude_is_zero_at_zero():
    m = Importer()
    x, y = (m.builder.input(TensorType(DType.F32, (3,))) for _ in range(2))
    found = backward(m, m.reduce("sum", magnitude(m, Pair(x, y)), (), False), [x, y])
    at = [np.array([0.0, 3.0, -1.0], np.float32), np.array([0.0, 4.0, 0.0], np.float32)]
    have = interp.outputs(m.builder.finish(tuple(found)), at, ())
    z = torch.complex(*map(torch.from_numpy, at)).requires_grad_()
    z.abs().sum().backward()
    np.testing.assert_allclose(have[0], z.grad.real.numpy(), rtol=1e-6)
    np.testing.assert_allclose(have[1], z.grad.imag.numpy(), rtol=1e-6)


def test_rotary_phases():
    def rotate(x):
        angles = torch.outer(torch.arange(8).float(), 10.0 ** -torch.arange(3).float())
        phases = torch.polar(torch.ones_like(angles), angles)
        return torch.view_as_real(torch.view_as_complex(x.reshape(2, 8, 3, 2)) * phases).flatten(2)

    check(rotate, torch.randn(2, 8, 6))


def test_a_complex_buffer():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("phases", pair(torch.randn(8, 3), torch.randn(8, 3)))

        def forward(self, x):
            return torch.view_as_real(torch.view_as_complex(x) * self.phases)

    module, x = Model(), torch.randn(2, 8, 3, 2)
    torch.testing.assert_close(ree.compile(module, (x,))(x), module(x))


@pytest.mark.parametrize("n", [1, 2, 3, 8, 12, 63, 64, 67, 96, 400, 1021, 67 * 71, 3 * 2048])
def test_transforms(n):
    torch.manual_seed(n)
    x = torch.randn(3, n)
    check(lambda x: torch.view_as_real(torch.fft.fft(x)), x)
    check(lambda x: torch.view_as_real(torch.fft.rfft(x, norm="ortho")), x)
    check(lambda x: torch.view_as_real(torch.fft.ifft(pair(x, x.flip(-1)))), x)
    check(lambda x: torch.fft.irfft(torch.fft.rfft(x), n=n), x)


def test_transforms_of_several_axes():
    x = torch.randn(2, 8, 6)
    check(lambda x: torch.view_as_real(torch.fft.fftn(x)), x)
    check(lambda x: torch.view_as_real(torch.fft.ifft2(x, norm="forward", s=(9, 5))), x)
    check(lambda x: torch.fft.irfftn(torch.fft.rfftn(x, norm="ortho"), s=x.shape, norm="ortho"), x)
    check(lambda x: torch.fft.fftshift(torch.fft.fft(x), dim=1).abs() * torch.fft.fftfreq(6), x)


@pytest.mark.parametrize("window", ["hann_window", "hamming_window", "blackman_window"])
def test_short_time_transforms(window):
    w = getattr(torch, window)(40)

    def spectrum(x):
        return torch.stft(x, 40, 16, window=w, return_complex=True)

    x = torch.randn(2, 320)
    check(lambda x: torch.view_as_real(spectrum(x)), x)
    check(lambda x: torch.istft(spectrum(x), 40, 16, window=w), x)


def test_a_row_of_a_batch_is_the_row_alone():
    x = torch.randn(3, 400)
    f = Of(lambda x: torch.view_as_real(torch.fft.rfft(x)))
    whole, alone = ree.compile(f, (x,))(x), ree.compile(f, (x[1:2],))(x[1:2])
    assert torch.equal(whole[1:2].view(torch.int32), alone.view(torch.int32))


@pytest.mark.parametrize("n", [1, 2, 8, 12, 67, 400])
def test_roots_of_unity_are_exact(n):
    with mpmath.workdps(60):
        want = [
            [float(f(2 * mpmath.pi * k / n)) for f in (mpmath.cos, mpmath.sin)] for k in range(n)
        ]
    want = np.array(want)
    want[abs(want) < 1e-50] = 0.0  # what mpmath's pi leaves of a zero
    assert np.array_equal(fourier.roots(n), want)


def test_the_border_is_real():
    z = pair(torch.ones(3), torch.ones(3))
    with pytest.raises(UnsupportedError) as e:
        ree.compile(Of(lambda z: z.real), (z,))
    assert "view_as_real" in e.value.hint
    with pytest.raises(CaptureError, match=r"made at test_complex\.py:\d+") as e:
        ree.compile(Of(lambda x: pair(x, x) * 2), (torch.ones(3),))
    assert "view_as_real" in e.value.hint
    with pytest.raises(UnsupportedError) as e:
        ree.compile(Of(lambda x: pair(x, x).tanh().real), (torch.ones(3),))
    assert "complex" in e.value.items[0]
    with pytest.raises(UnsupportedError) as e:
        ree.compile(Of(lambda x: torch.fft.fft(x).real), (torch.ones(1031),))
    assert "1031" in e.value.items[0]


class Turned(nn.Module):
    def __init__(self, trained):
        super().__init__()
        self.linear = nn.Linear(6, 6)
        phases = pair(torch.randn(3), torch.randn(3))
        self.register_buffer("phases", phases)
        if trained:
            del self.phases
            self.phases = nn.Parameter(phases)

    def forward(self, x):
        z = torch.view_as_complex(self.linear(x).reshape(-1, 3, 2)) * self.phases
        return torch.fft.irfft(z, n=5)


def squares(model, batch):
    return model(batch[0]).square().sum()


def test_training_with_a_complex_buffer():
    torch.manual_seed(0)
    module, x = Turned(False), torch.randn(4, 6)
    step = compile_step(module, squares, SGD(0.1), (x,))
    runner = step.runner()
    runner.run((x,))
    squares(module, (x,)).backward()
    state = dict(zip(step.names.states, runner.state, strict=True))
    want = module.linear.weight.detach() - 0.1 * module.linear.weight.grad
    torch.testing.assert_close(torch.tensor(state["parameter.linear.weight"]), want)


def test_a_complex_parameter_is_not_trained():
    with pytest.raises(UnsupportedError, match="complex"):
        compile_step(Turned(True), squares, SGD(0.1), (torch.ones(4, 6),))
