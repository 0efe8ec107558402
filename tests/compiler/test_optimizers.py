"""Optimizers and schedules against torch.optim, over several steps; and stale rates and skipped clips."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ree.compiler import interp
from ree.compiler.frontend.importer import Importer
from ree.compiler.training import optimizers
from ree.compiler.training.optimizers import SGD, Adam, AdamW, Constant, Cosine, Linear, Optimizer
from ree.errors import InputError
from ree.kernels import registry  # noqa: F401  (registers the operators)
from ree.kernels.types import DType, TensorType

SHAPES = {"a.weight": (3, 4), "b.bias": (5,), "c": ()}
F32 = DType.F32


def update_graph(optimizer):
    """One update as a graph: inputs are parameters, gradients, slots, step; outputs the new ones."""
    m = Importer()

    def inputs(shapes):
        return {n: m.builder.input(TensorType(F32, s)) for n, s in shapes.items()}

    parameters, grads = inputs(SHAPES), inputs(SHAPES)
    first = optimizer.slots(SHAPES)
    slots = inputs({n: x.shape for n, x in first.items()})
    step = m.builder.input(TensorType(DType.I64, ()))
    new, new_slots = optimizer.update(m, parameters, grads, slots, step)
    assert set(new_slots) == set(slots)
    return m.builder.finish((*new.values(), *(new_slots[n] for n in slots))), first


def ours(optimizer, start, gradients):
    """Parameters after each step."""
    g, first = update_graph(optimizer)
    p, slots, out = list(start), list(first.values()), []
    for t, grads in enumerate(gradients):
        values = interp.outputs(g, [*p, *grads, *slots, np.array(t)], ())
        p, slots = values[: len(p)], values[len(p) :]
        out.append(p)
    return out


def theirs(make, start, gradients, clip=None, scheduler=None):
    parameters = [torch.nn.Parameter(torch.from_numpy(x.astype(np.float64))) for x in start]
    optimizer = make(dict(zip(SHAPES, parameters, strict=True)))
    schedule = scheduler(optimizer) if scheduler else None
    out = []
    for grads in gradients:
        for p, g in zip(parameters, grads, strict=True):
            p.grad = torch.from_numpy(g.astype(np.float64))
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        if schedule:
            schedule.step()
        out.append([p.detach().numpy().copy() for p in parameters])
    return out


def problem(seed, steps=6, scale=1.0):
    rng = np.random.default_rng(seed)

    def draw():
        return [np.asarray(scale * rng.standard_normal(s), np.float32) for s in SHAPES.values()]

    return draw(), [draw() for _ in range(steps)]


def worst(a, b):
    """Largest difference of any step, relative to the tensor's largest element or 1."""
    return max(
        np.max(abs(x - y)) / max(1, np.max(abs(y)))
        for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )  # fmt: skip


CLIPS = st.none() | st.sampled_from([0.1, 1.0, 50.0])
RATES = st.sampled_from([1e-3, 0.02, 0.5])


@given(st.integers(0, 10**6), RATES, st.sampled_from([0, 0.5, 0.9]), st.sampled_from([0, 0.3]),
       st.booleans(), st.sampled_from([0, 0.1]), CLIPS)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_sgd(seed, lr, momentum, dampening, nesterov, decay, clip):
    nesterov = nesterov and momentum > 0 and dampening == 0
    start, gradients = problem(seed)
    how = {
        "momentum": momentum,
        "dampening": dampening,
        "nesterov": nesterov,
        "weight_decay": decay,
    }
    got = ours(SGD(lr, clip_norm=clip, **how), start, gradients)
    want = theirs(lambda p: torch.optim.SGD(p.values(), lr, **how), start, gradients, clip)
    assert worst(got, want) < 3e-6


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([1e-3, 0.05]),
       st.sampled_from([(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)]), st.sampled_from([1e-8, 1e-3]),
       st.sampled_from([0, 0.1]), CLIPS)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_adam(seed, decoupled, lr, betas, eps, decay, clip):
    start, gradients = problem(seed)
    how = {"betas": betas, "eps": eps, "weight_decay": decay}
    mine, other = (AdamW, torch.optim.AdamW) if decoupled else (Adam, torch.optim.Adam)
    got = ours(mine(lr, clip_norm=clip, **how), start, gradients)
    want = theirs(lambda p: other(p.values(), lr, **how), start, gradients, clip)
    # 1 - beta^t by a product in float32: relative error of the first corrections about 1e-5
    assert worst(got, want) < 3e-5


def test_adamw_over_many_steps():
    """Running products of beta stay near its powers."""
    start, gradients = problem(3, steps=400)
    got = ours(AdamW(0.01), start, gradients)
    want = theirs(lambda p: torch.optim.AdamW(p.values(), 0.01), start, gradients)
    assert worst(got, want) < 1e-4


def test_groups():
    start, gradients = problem(5)
    groups = [(r"bias|^c$", {"weight_decay": 0.0}), (r"^a\.", {"lr": 0.2, "weight_decay": 0.3})]
    got = ours(AdamW(0.01, weight_decay=0.1, groups=groups), start, gradients)

    def make(p):
        return torch.optim.AdamW([
            {"params": [p["b.bias"], p["c"]], "weight_decay": 0.0},
            {"params": [p["a.weight"]], "lr": 0.2, "weight_decay": 0.3}], lr=0.01)  # fmt: skip

    assert worst(got, theirs(make, start, gradients)) < 3e-5


def cosine(warmup, steps, final):
    def factor(t):
        rise = min((t + 1) / warmup, 1) if warmup else 1
        done = min(max((t - warmup) / (steps - warmup), 0), 1)
        return rise * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))

    return factor


def linear(warmup, steps, final):
    def factor(t):
        rise = min((t + 1) / warmup, 1) if warmup else 1
        return rise * (final + (1 - final) * (1 - min(max((t - warmup) / (steps - warmup), 0), 1)))

    return factor


SCHEDULES = {
    "warm-up": (Constant(4), lambda t: min((t + 1) / 4, 1)),
    "cosine": (Cosine(0, 9, 0.0), cosine(0, 9, 0.0)),
    "cosine with warm-up": (Cosine(3, 9, 0.1), cosine(3, 9, 0.1)),
    "linear": (Linear(2, 8, 0.25), linear(2, 8, 0.25)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    schedule, factor = SCHEDULES[name]
    start, gradients = problem(7, steps=12)
    got = ours(SGD(0.1, momentum=0.9, schedule=schedule), start, gradients)
    want = theirs(lambda p: torch.optim.SGD(p.values(), 0.1, momentum=0.9), start, gradients,
                  scheduler=lambda o: torch.optim.lr_scheduler.LambdaLR(o, factor))  # fmt: skip
    assert worst(got, want) < 3e-6


def test_the_cosine_is_torchs():
    start, gradients = problem(7, steps=9)
    got = ours(SGD(0.1, schedule=Cosine(0, 9, 0.0)), start, gradients)
    want = theirs(lambda p: torch.optim.SGD(p.values(), 0.1), start, gradients,
                  scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 9))  # fmt: skip
    assert worst(got, want) < 3e-6


# planted faults


def test_a_stale_learning_rate_is_caught(monkeypatch):
    """The rate of the step before."""
    original = Cosine.factor

    def stale(self, op, t):
        return original(self, op, op("maximum", op("sub", t, 1.0), 0.0))

    monkeypatch.setattr(Cosine, "factor", stale)
    with pytest.raises(AssertionError):
        test_schedules("cosine with warm-up")


def test_a_skipped_clip_is_caught(monkeypatch):
    start, gradients = problem(9, scale=10)
    want = theirs(lambda p: torch.optim.SGD(p.values(), 0.1), start, gradients, clip=1.0)
    assert worst(ours(SGD(0.1, clip_norm=1.0), start, gradients), want) < 3e-6
    monkeypatch.setattr(optimizers, "_norm", lambda op, grads: op("mul", 1.0, 0.0))
    assert worst(ours(SGD(0.1, clip_norm=1.0), start, gradients), want) > 1e-2


BAD = {
    "lr": lambda: SGD(-1), "momentum": lambda: SGD(1, momentum=-1), "nesterov": lambda: SGD(1, nesterov=True),
    r"betas\[1\]": lambda: Adam(1, betas=(0.9, 1.0)), "eps": lambda: Adam(1, eps=-1),
    "clip_norm": lambda: Adam(1, clip_norm=0), "weight_decay": lambda: AdamW(1, weight_decay=-1),
    "cannot change betas": lambda: AdamW(1, groups=[("x", {"betas": 1})]), "steps": lambda: Cosine(3, 3),
    "warmup": lambda: Constant(-1), "warmup.*whole number": lambda: Constant(1.5),
    "lr: expected 0 or more, got nan": lambda: SGD(math.nan), "lr.*got inf": lambda: SGD(math.inf),
    "lr.*got 0.1": lambda: SGD("0.1"), "lr.*got True": lambda: SGD(True), "lr.*got None": lambda: AdamW(None),
    "dampening": lambda: SGD(1, momentum=0.9, dampening=math.nan),
    "nesterov: expected True": lambda: SGD(1, nesterov=1),
    r"betas\[0\]": lambda: Adam(1, betas=("a", 0.9)),
    "betas: expected two": lambda: Adam(1, betas=0.9),
    "betas.*0.9999999999": lambda: Adam(1, betas=(0.9, 0.9999999999)),
    "schedule": lambda: SGD(1, schedule=3),
    "groups: expected a list": lambda: SGD(1, groups={"a": {"lr": 1}}),
    "group: expected .pattern": lambda: SGD(1, groups=["a"]),
    "group '.': not a regular": lambda: SGD(1, groups=[("(", {"lr": 1})]),
    "group: expected a regular": lambda: SGD(1, groups=[(1, {})]),
    "group 'a': expected settings": lambda: SGD(1, groups=[("a", 0.1)]),
    "group 'a': lr": lambda: SGD(1, groups=[("a", {"lr": -1})]),
    "final": lambda: Cosine(1, 3, math.nan),
    "steps: .*more than warmup, got 2": lambda: Cosine(3, 2),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments(message):
    with pytest.raises(InputError, match=message):
        BAD[message]()


def test_an_optimizer_without_a_rule_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        Optimizer(0.1)
