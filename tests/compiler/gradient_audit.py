"""What in torch can change a gradient or a state, and what a training step does with it.

A row: (what, "honoured" or "refused", its loss or module). A loss takes (model, x); the model is `Net`.
"""

import itertools
import random
import warnings

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .gradient_audit_models import Centred, Net, Normed, Reverse, Scaled, Tied, Unread, WithStill


@torch.no_grad()
def decorated(m, x):
    return m(x)


@torch.inference_mode()
def inferred(m, x):
    return m(x)


def inferred_inside(m, x):
    with torch.inference_mode():
        t = m(x)
    return (m(x) - t * 2).square().mean()


def no_grad(m, x):
    with torch.no_grad():
        t = m(x) * 2
    return (m(x) - t).square().mean()


def set_grad(m, x):
    torch.set_grad_enabled(False)
    t = m(x)
    torch.set_grad_enabled(True)
    return (m(x) - t * 2).square().mean()


def nested(m, x):
    with torch.no_grad():
        t = m(x)
        with torch.enable_grad():
            u = m(x)
        v = m(x)
    return (t * 2 + u * 3 + v).square().mean()


def in_checkpoint(m, x):
    def part(x):
        with torch.no_grad():
            t = m.a(x)
        return m.b(m.a(x) * t)

    return checkpoint(part, x, use_reentrant=False).square().mean()


def written_without_grad(m, x):
    z = torch.zeros(x.shape[0], 3)
    with torch.no_grad():
        z.copy_(m(x))
        z[0] = m(x)[1]
    return (m(x) * z).sum()


def views_without_grad(m, x):
    with torch.no_grad():
        top, _ = m(x).max(1)
        w = m.b.weight[0]
    return ((m(x) - top[:, None]) * w[:3]).sum()


def hooked(m, x):
    y = m(x)
    y.register_hook(lambda g: g * 3)
    return y.sum()


def node_hooked(m, x):
    y = m(x)
    y.grad_fn.register_hook(lambda *g: None)
    return y.sum()


def packed(m, x):
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t * 2, lambda t: t):
        return m(x).square().sum()


def unseen_in_place(m, x):
    y = m(x) * 1
    with torch.no_grad():
        y.mul_(2)
    return y.sum()


def of_data(m, x):
    y = m(x)
    return (y * y.data).sum()


def data_in_place(m, x):
    y = m(x) * 1
    y.data.mul_(2)
    return y.sum()


def running(m, x):
    with torch.no_grad():
        m.mean.mul_(0.9).add_(m(x).mean(0), alpha=0.1)
    return (m(x) - m.mean).square().mean()


def assigned(m, x):
    m.mean = m.mean * 0.9 + 0.1 * m(x).detach().mean(0)
    return (m(x) - m.mean).square().mean()


def assigned_below(m, x):
    setattr(m.inner, "mean", m.inner.mean + 1)  # noqa: B010
    return (m(x) - m.inner.mean).square().mean()


def swapped(m, x):
    m.mean, m.inner.mean = m.inner.mean + 1, m.mean * 1
    return (m(x) - m.mean + m.inner.mean).square().mean()


def ema(m, x):
    with torch.no_grad():
        for p, q in zip(m.teacher.parameters(), m.b.parameters(), strict=True):
            p.mul_(0.5).add_(q, alpha=0.5)
    return (m(x) - m.teacher(x)).square().mean()


def clipped(m, x):
    with torch.no_grad():
        m.b.weight.clamp_(-0.1, 0.1)
    return m(x).sum()


@torch.library.custom_op("gradient_audit::thrice", mutates_args=())
def thrice(x: torch.Tensor) -> torch.Tensor:
    return x * 3


thrice.register_fake(torch.empty_like)
thrice.register_autograd(lambda ctx, g: g * 5)
LIBRARY = torch.library.Library("gradient_audit", "FRAGMENT")
LIBRARY.define("twice(Tensor x) -> Tensor")
LIBRARY.impl("twice", lambda x: x.detach() * 2 + x, "CompositeImplicitAutograd")


def cond(m, x):
    def of_a(x):
        with torch.no_grad():
            t = m.a(x)
        return m.b(t * x)

    return torch.cond(x.sum() > 0, of_a, lambda x: m(x), (x,)).sum()


def mapped_and_stopped(m, x):
    def row(r):
        with torch.no_grad():
            t = m(r)
        return m(r) * t + m(r).detach() * r[:3]

    return torch.vmap(row)(x).sum()


def mapped_in_place(m, x):
    def row(r):
        y = m(r) * 1
        with torch.no_grad():
            y.mul_(2)
        return y

    return torch.vmap(row)(x).sum()


def statistics_read(m, x):
    y = m(x)
    return (y * m.norm.running_var + x[:, :3] * m.norm.running_mean).square().sum()


def frozen_inside(m, x):
    m.a.requires_grad_(False)
    return m(x).sum()


def _set(m, x, do):
    do(m)
    return m(x).sum()


ITERATOR = itertools.count()
_BOX = {"n": 0}


def counted_globally(m, x):
    _BOX["n"] += 1
    return m(x).sum() * _BOX["n"]


def counted_by_iterator(m, x):
    return m(x).sum() * (1 + next(ITERATOR))


def checkpointed(reentrant):
    def loss(m, x):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return checkpoint(
                m, x.requires_grad_() if reentrant else x, use_reentrant=reentrant
            ).sum()

    return loss


def penalty(m, x):
    y = m(x).sum()
    (g,) = torch.autograd.grad(y, m.b.weight, create_graph=True)
    return y + g.square().sum()


def autocast(m, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = m(x)
    return y.float().square().mean()


def with_hook(register):
    def make():
        m = Net()
        register(m)
        return m

    return make


def parametrized(f):
    def make():
        m = Net()
        f(m.a)
        return m.train()

    return make


P, H, R = nn.utils.parametrizations, "honoured", "refused"
square = lambda m, x: m(x).square().mean()  # noqa: E731
stopped_square = lambda m, x: (m(x) * torch.no_grad()(m)(x)).mean()  # noqa: E731
AUDIT = [
    ("no_grad", H, no_grad, Net),
    ("no_grad as a decorator", H, lambda m, x: (m(x) - 2 * decorated(m, x)).square().mean(), Net),
    ("inference_mode as a context", H, inferred_inside, Net),
    ("inference_mode as a decorator", H, lambda m, x: (m(x) - 2 * inferred(m, x)).square().mean(), Net),
    ("set_grad_enabled", H, set_grad, Net),
    ("enable_grad inside no_grad", H, nested, Net),
    ("no_grad inside checkpoint", H, in_checkpoint, Net),
    ("writing under no_grad", H, written_without_grad, Net),
    ("views and maxima under no_grad", H, views_without_grad, Net),
    ("a function of torch that is called under no_grad", H,
     lambda m, x: (m(x) * torch.no_grad()(F.linear)(x, m.b.weight)).sum(), Net),
    ("detach", H, lambda m, x: (m(x) * m(x).detach()).sum(), Net),
    (".data read", H, of_data, Net),
    ("detach_", R, lambda m, x: (m(x) * m(x).detach_()).sum(), Net),
    ("a value exchanged for another's gradient: x + (y - x).detach()", H,
     lambda m, x: (m(x) + (m(x).round() - m(x)).detach()).square().sum(), Net),
    ("x[...]", H, lambda m, x: (m.b.weight[...] * m(x).sum() + m(x)[...].sum()).sum(), Net),
    ("parameters without requires_grad", H, lambda m, x: (m(x) * m.teacher(x)).sum(), Net),
    ("requires_grad_ in the forward pass", R, frozen_inside, Net),
    ("retain_grad", H, lambda m, x: (lambda y: (y.retain_grad(), y.square().sum())[1])(m(x)), Net),
    ("checkpoint, not reentrant", H, checkpointed(False), Net),
    ("checkpoint, reentrant", R, checkpointed(True), Net),
    ("autograd.Function", R, lambda m, x: Reverse.apply(m(x)).mean(), Net),
    ("autograd.Function with setup_context, once_differentiable", R,
     lambda m, x: Scaled.apply(m(x)).mean(), Net),
    ("autograd.Function under vmap", R, lambda m, x: torch.vmap(Scaled.apply)(m(x)).mean(), Net),
    ("autograd.Function under no_grad", H,
     lambda m, x: (m(x) * torch.no_grad()(Reverse.apply)(m(x))).sum(), Net),
    ("Tensor.register_hook", R, hooked, Net),
    ("Node.register_hook", R, node_hooked, Net),
    ("register_hook of a parameter", R, square,
     with_hook(lambda m: m.a.weight.register_hook(lambda g: g * 2))),
    ("register_post_accumulate_grad_hook", R, square,
     with_hook(lambda m: m.a.weight.register_post_accumulate_grad_hook(lambda p: None))),
    ("register_full_backward_hook", R, square,
     with_hook(lambda m: m.a.register_full_backward_hook(lambda m, i, o: None))),
    ("register_full_backward_pre_hook", R, square,
     with_hook(lambda m: m.a.register_full_backward_pre_hook(lambda m, o: None))),
    ("register_forward_hook", H, square, with_hook(lambda m: m.a.register_forward_hook(lambda m, i, o: o * 2))),
    ("saved_tensors_hooks", R, packed, Net),
    ("autograd.grad in the loss", R, penalty, Net),
    ("a value changed in place, unseen", R, unseen_in_place, Net),
    (".data changed in place", R, data_in_place, Net),
    (".data assigned", R, lambda m, x: _set(m, x, lambda m: setattr(m.mean, "data", m.mean + 1)), Net),
    ("a buffer changed in place", H, running, Net),
    ("a buffer assigned anew", H, assigned, Net),
    ("a buffer of a submodule assigned by setattr", H, assigned_below, Net),
    ("buffers that change places", H, swapped, Net),
    ("batch norm", H, square, Normed),
    ("running statistics read after batch norm", H, statistics_read, Normed),
    ("a buffer changed inside checkpoint", R, checkpointed(False), Normed),
    ("a buffer assigned inside checkpoint", R,
     lambda m, x: checkpoint(assigned, m, x, use_reentrant=False), Net),
    ("a frozen parameter changed in place", H, ema, Net),
    ("a trained parameter changed in place", R, clipped, Net),
    ("a parameter assigned anew", R,
     lambda m, x: _set(m, x, lambda m: setattr(m.b, "bias", nn.Parameter(m.b.bias * 2))), Net),
    ("a plain tensor changed in place", R, lambda m, x: _set(m, x, lambda m: m.plain.add_(1)), Net),
    ("a plain tensor assigned anew and read later", R,
     lambda m, x: (lambda y: (setattr(m, "plain", y.detach()), y.sum())[1])(m(x) + m.plain), Net),
    ("a tensor in a dict assigned anew", R,
     lambda m, x: _set(m, x, lambda m: m.box.update(t=m.box["t"] + 1)), Net),
    ("an attribute that counts", R, lambda m, x: _set(m, x, lambda m: setattr(m, "calls", m.calls + 1)), Net),
    ("an attribute that settles", H, lambda m, x: _set(m, x, lambda m: setattr(m, "calls", 7)), Net),
    ("a list that grows", R, lambda m, x: _set(m, x, lambda m: m.seen.append(1)), Net),
    ("a global that counts", R, counted_globally, Net),
    ("an iterator", R, counted_by_iterator, Net),
    ("Python's random numbers", R, lambda m, x: m(x).sum() * random.random(), Net),
    ("train() in the forward pass", R, lambda m, x: _set(m, x, lambda m: m.a.eval()), Net),
    ("an input changed in place", R, lambda m, x: m(x.add_(1)).sum(), Net),
    ("a buffer that is only written", H, square, Unread),
    ("tied weights", H, square, Tied),
    ("vmap", H, lambda m, x: torch.vmap(m)(x).square().mean(), Net),
    ("no_grad and detach under vmap", H, mapped_and_stopped, Net),
    ("a value changed in place under vmap, unseen", R, mapped_in_place, Net),
    ("a decorator of a class that runs it under no_grad", H, square, WithStill),
    ("torch.func.grad in the loss", R,
     lambda m, x: m(x).sum() + torch.func.grad(lambda z: m(z).square().sum())(x).sum(), Net),
    ("torch.cond, no_grad inside", R, cond, Net),
    ("torch.library operator made of torch's", H, lambda m, x: torch.ops.gradient_audit.twice(m(x)).sum(), Net),
    ("torch.library.custom_op with register_autograd", R, lambda m, x: thrice(m(x)).sum(), Net),
    ("torch.library.custom_op under no_grad", R,
     lambda m, x: (m(x) * torch.no_grad()(thrice)(m(x))).sum(), Net),
    ("autocast", H, autocast, Net),
    ("weight_norm", H, square, parametrized(P.weight_norm)),
    ("spectral_norm", H, square, parametrized(P.spectral_norm)),
    ("a parametrization with no_grad, detach and a buffer", H, square,
     parametrized(lambda m: nn.utils.parametrize.register_parametrization(m, "weight", Centred()))),
    ("weight_norm under no_grad", H, stopped_square, parametrized(P.weight_norm)),
    ("spectral_norm under no_grad", H, stopped_square, parametrized(P.spectral_norm)),
    ("weight_norm, the older", H, square, parametrized(nn.utils.weight_norm)),
    ("spectral_norm, the older", H, square, parametrized(nn.utils.spectral_norm)),
]  # fmt: skip
