"""The modules that gradient_audit.py trains."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)
        self.teacher = nn.Linear(4, 3).requires_grad_(False)
        self.register_buffer("mean", torch.zeros(3))
        self.plain = torch.zeros(3)
        self.calls, self.seen, self.box = 0, [], {"t": torch.zeros(3)}
        self.inner = nn.Module()
        self.inner.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -g


class Scaled(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * 5


def without_gradients(cls):
    forward = cls.forward

    def without(self, x):
        with torch.no_grad():
            return forward(self, x)

    cls.forward = without
    return cls


@without_gradients
class Still(nn.Linear):
    pass


class WithStill(Net):
    def __init__(self):
        super().__init__()
        self.still = Still(4, 3)
        self.still.weight.requires_grad_(False)
        self.still.bias.requires_grad_(False)

    def forward(self, x):
        return super().forward(x) * self.still(x)


class Tied(Net):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(4, 3)
        self.other.weight = self.b.weight

    def forward(self, x):
        return super().forward(x) * self.other(x)


class Unread(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(3))

    def forward(self, x):
        y = super().forward(x)
        self.last.copy_(y.detach().mean(0))
        return y


class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, w):
        with torch.no_grad():
            self.seen.mul_(0.5).add_(w.mean(0))
            centre = w.mean()
        return (w - centre) / (w.detach().norm() + 1)


class Normed(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(super().forward(x))
