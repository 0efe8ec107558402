"""Training steps: the same bits however they run; losses that are not numbers; accumulation."""

import itertools
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ree import _core
from ree.compiler import interp
from ree.compiler.training.optimizers import Optimizer
from ree.errors import CaptureError, InputError
from ree.optim import SGD, Adam, AdamW, Cosine
from ree.training.step import NonFiniteLoss, Step, compile_step

ISAS = _core.isa_names()


class Tiny(nn.Module):
    """Tied embedding, norm, causal attention with dropout on its weights, MLP with dropout."""

    def __init__(self, width=16, heads=2, words=13, p=0.1):
        super().__init__()
        self.table = nn.Embedding(words, width)
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.heads, self.p = heads, p
        self.scale = nn.Parameter(torch.ones(width), requires_grad=False)

    def forward(self, ids):
        x = self.table(ids)
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.p)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, d)) * self.scale
        x = x + F.dropout(self.down(F.gelu(self.up(x))), self.p)
        return x @ self.table.weight.T


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 9, 5)

    def forward(self, x):
        return self.head(F.max_pool2d(F.relu(self.norm(self.conv(x))), 2).flatten(1))


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch[0]).flatten(0, -2), batch[1].flatten())


def tokens(t, b=2, n=9, words=13):
    g = torch.Generator().manual_seed(t)
    ids = torch.randint(0, words, (b, n + 1), generator=g)
    return ids[:, :-1], ids[:, 1:]


def images(t, b=6):
    g = torch.Generator().manual_seed(t)
    return torch.randn(b, 1, 6, 6, generator=g), torch.randint(0, 5, (b,), generator=g)


def tiny(**how):
    torch.manual_seed(0)
    optimizer = AdamW(
        1e-2,
        clip_norm=0.5,
        schedule=Cosine(2, 9),
        groups=[(r"^parameter\.norm", {"weight_decay": 0.0})],
    )
    return compile_step(Tiny(), cross_entropy, optimizer, tokens(0), seed=7, **how)


def net(**how):
    torch.manual_seed(0)
    return compile_step(
        Net(), cross_entropy, SGD(0.1, momentum=0.9, nesterov=True), images(0), **how
    )


MODELS = {"tiny": (tiny, tokens), "net": (net, images)}


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    make, batch = MODELS[request.param]
    return make(), batch


def after(step, batch, steps=3, **how):
    """(state bytes, losses) after some steps."""
    runner = step.runner(**how)
    losses = [runner.run(batch(t)) for t in range(steps)]
    return [x.tobytes() for x in runner.state], losses


def test_the_same_bits_however_it_runs(case):
    step, batch = case
    state, losses = [np.array(x) for x in step.initial], []
    bound = step.instance.graph
    for t in range(3):
        out = interp.outputs(bound, [x.numpy() for x in batch(t)], step.weights, state)
        state, loss = out[:-1], out[-1]
        losses.append(np.float32(loss))
    want = [x.tobytes() for x in state]
    for isa, threads, fuse in itertools.product(ISAS, (1, 2), (True, False)):
        got, found = after(step, batch, threads=threads, isa=isa, fuse=fuse)
        assert found == losses, (isa, threads, fuse)
        wrong = [n for n, a, b in zip(step.names.states, got, want, strict=True) if a != b]
        assert not wrong, (isa, threads, fuse)


def test_every_operators_trace_has_one_root_and_changes_nothing(case):
    step, batch = case
    roots = set()
    for isa, threads in itertools.product(ISAS, (1, 2)):
        runner = step.runner(threads=threads, isa=isa)
        runner.run(batch(0))
        before = [x.tobytes() for x in runner.state]
        trace = runner.trace(batch(1))
        assert [x.tobytes() for x in runner.state] == before
        runner.run(batch(1))
        assert trace.root == runner_root(step, before, runner, trace)
        roots.add(trace.root)
    assert len(roots) == 1


def runner_root(step, before, runner, trace):
    """The root, after checking that the trace's outputs are the states that the step then gave."""
    from ree.runtime.hashing import hash_array

    assert list(trace.outputs[: len(before)]) == [hash_array(x) for x in runner.state]
    return trace.root


def test_as_a_function_it_has_the_same_operators_and_bits(case):
    step, batch = case
    f = step.as_function()
    assert [n.op for n in f.graph.nodes] == [n.op for n in step.graph.nodes]
    outputs = f.run(*step.initial, *(x.numpy() for x in batch(0))).outputs
    want, (loss,) = after(step, batch, steps=1)
    assert [np.asarray(x).tobytes() for x in outputs[:-1]] == want
    assert np.asarray(outputs[-1]).tobytes() == loss.tobytes()


def test_it_learns(case):
    step, batch = case
    runner = step.runner()
    losses = [runner.run(batch(0)) for _ in range(25)]
    assert losses[-1] < 0.8 * losses[0]


def test_updates_are_in_place(case):
    """All optimizer slots and parameters but a few are overwritten: no second copy of the state."""
    step, _ = case
    runner = step.runner()
    kept = sum(x.nbytes for i, x in enumerate(runner.state) if i in runner.session.in_place)
    assert kept > 0.6 * runner.state_bytes


def test_groups_match_the_names_of_the_states():
    def change(pattern):
        optimizer = SGD(0.5, groups=[(pattern, {"lr": 0.0})])
        step = compile_step(
            nn.Linear(3, 2), lambda m, b: m(b[0]).sum(), optimizer, (torch.ones(4, 3),)
        )
        runner = step.runner()
        runner.run((torch.ones(4, 3),))
        return [
            n
            for n, a, b in zip(step.names.states, runner.state, step.initial, strict=True)
            if (a != b).any()
        ]

    assert change(r"^parameter\.weight$") == ["parameter.bias", "step"]
    assert change("bias") == ["parameter.weight", "step"]
    for pattern in ("^weight", "wieght"):
        with pytest.raises(InputError, match=f"{re.escape(pattern)}.* matches no parameter") as e:
            change(pattern)
        assert "parameter.weight" in e.value.hint


def test_a_saved_step_is_the_same_step(case, tmp_path):
    step, batch = case
    step.save(tmp_path / "step.ree")
    again = Step.load(tmp_path / "step.ree")
    assert again.program_hash == step.program_hash
    assert again.names == step.names
    assert again.weights_root == step.weights_root
    runner, other = step.runner(), again.runner()
    runner.run(batch(0))
    other.load(runner.state)
    runner.run(batch(1))
    other.run(batch(1))
    assert step.state_root(runner.state) == step.state_root(other.state)


def test_capturing_twice_gives_one_program():
    assert tiny().program_hash == tiny().program_hash
    assert net().program_hash == net().program_hash


# losses that are not numbers


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.bn = nn.Parameter(torch.ones(3)), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.bn(x) * self.w


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_keeps_the_state(bad):
    step = compile_step(Scaled(), lambda m, b: m(b[0]).square().sum() + b[1], Adam(0.1, clip_norm=1.0),
                        (torch.randn(4, 3), torch.tensor(0.0)))  # fmt: skip
    for fuse in (True, False):
        runner = step.runner(fuse=fuse)
        runner.run((torch.randn(4, 3), torch.tensor(0.0)))
        before = [x.tobytes() for x in runner.state]
        with pytest.raises(NonFiniteLoss, match="the loss is"):
            runner.run((torch.randn(4, 3), torch.tensor(bad)))
        assert [x.tobytes() for x in runner.state] == before
        runner.run((torch.randn(4, 3), torch.tensor(0.0)))
        assert np.isfinite(runner.state[step.names.states.index("parameter.w")]).all()


# accumulation


def test_accumulation_is_the_mean_of_the_parts():
    class Gradients(Optimizer):
        def slots(self, shapes):
            return {}

        def _one(self, op, name, p, g, slots, new_slots, lr, common):
            return g

    def loss(model, batch):
        return F.mse_loss(model(batch[0]), batch[1])

    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
    x, y = torch.randn(12, 5), torch.randn(12, 2)
    got = {}
    for k in (1, 4):
        step = compile_step(model, loss, Gradients(), (x, y), accumulate=k)
        runner = step.runner()
        got[k] = runner.run((x, y)), dict(zip(step.names.states, runner.state, strict=True))
    model.zero_grad()
    for part in range(4):
        rows = slice(3 * part, 3 * part + 3)
        (loss(model, (x[rows], y[rows])) / 4).backward()
    for name, p in model.named_parameters():
        for k in (1, 4):  # different programs, near each other
            np.testing.assert_allclose(got[k][1][f"parameter.{name}"], p.grad, rtol=1e-5, atol=1e-7)
    assert got[1][0] == pytest.approx(got[4][0], rel=1e-6)
    with pytest.raises(CaptureError, match="cannot be cut into 5"):
        compile_step(model, loss, Gradients(), (x, y), accumulate=5)


def test_accumulated_batch_norm_sees_the_parts_in_order():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    x = torch.randn(8, 3)
    step = compile_step(model, lambda m, b: m(b[0]).square().mean(), SGD(0.0), (x,), accumulate=2)
    runner = step.runner()
    runner.run((x,))
    model(x[:4])
    model(x[4:])
    state = dict(zip(step.names.states, runner.state, strict=True))
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(
            state[f"buffer.1.{name}"], getattr(model[1], name), rtol=1e-5, atol=1e-7
        )
    assert state["buffer.1.num_batches_tracked"] == 2
