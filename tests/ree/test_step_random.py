"""Random numbers of training steps: Philox against published vectors, dropout, distributions."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ree.compiler import interp
from ree.kernels import opdef
from ree.kernels.ops.random import philox as block
from ree.kernels.scalar.emit_numpy import evaluate
from ree.kernels.scalar.language import U32, Function, param
from ree.optim import SGD
from ree.training.step import compile_step


def philox(counter, key):
    """The four words of a block, from four elements of the operator."""
    words = []
    low, high, site, step = counter
    element = (low | high << 32) * 4
    seed = np.array(key[0] | key[1] << 32, np.uint64).view(np.int64)
    for lane in range(4):
        at = np.array((element + lane) % 2**64, np.uint64).view(np.int64)
        (x,) = opdef.apply("uniform", (at, np.asarray(seed), np.array(step)), {"site": site})
        words.append(int(x * 2**24))
    return words


# Random123, kat_vectors: philox4x32, 10 rounds
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "words"), VECTORS)
def test_philox_gives_the_published_words(counter, key, words):
    args = [np.array([v], np.uint32) for v in (*counter, *key)]
    out = block([param(i, U32) for i in range(4)], [param(4 + i, U32) for i in range(2)])
    for expr, want in zip(out, words, strict=True):
        assert int(evaluate(Function("word", (U32,) * 6, expr), *args)[0]) == want
    if (
        counter[1] < 1 << 29
    ):  # element >> 2 keeps the sign of an i64: higher words cannot be asked for
        assert philox(counter, key) == [w >> 8 for w in words]


def drops(**how):
    class Drop(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return F.dropout(x, 0.3), F.dropout(x, 0.3)

    def loss(m, batch):
        a, b = m(batch[0])
        return (a * batch[1]).sum() + (b * batch[2]).sum() * 2 + m.w

    shape = (64, 50)
    zeros = torch.zeros(shape)
    step = compile_step(Drop(), loss, SGD(0.0), (torch.ones(shape), zeros, zeros), **how)
    return step, shape


def masks(step, shape, at, seed=None):
    """Both dropout masks of step `at`, read off the trace of the program's `where`s."""
    state = [np.array(x) for x in step.initial]
    state[step.names.states.index("step")] = np.array(at)
    if seed is not None:
        state[step.names.states.index("seed")] = np.array(seed)
    g = step.instance.graph
    ones, zeros = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    values = interp.run(g, [ones, zeros, zeros], step.weights, state)
    found = [values[n.first] for n in g.nodes if n.op == "where" and n.results[0].dims == shape]
    return found[:2]


def test_dropout_is_fixed_by_seed_step_and_site():
    step, shape = drops(seed=5)
    a, b = masks(step, shape, 0)
    again = masks(step, shape, 0)
    assert (a == again[0]).all()
    assert (b == again[1]).all()
    assert set(np.unique(a)) == {np.float32(0), np.float32(1 / 0.7)}
    for other in (b, masks(step, shape, 1)[0], masks(step, shape, 0, seed=6)[0]):
        assert 0.3 < (a != other).mean() < 0.54  # independent masks differ in 2 * 0.3 * 0.7 = 0.42
    assert abs(np.mean([masks(step, shape, t)[0].mean() for t in range(20)]) - 1) < 0.01
    assert drops(seed=9)[0].program_hash == step.program_hash  # the seed is state, not program


def test_no_dropout_in_evaluation():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).eval()
    step = compile_step(model, lambda m, b: m(b[0]).sum(), SGD(0.1), (torch.randn(2, 4),))
    assert "uniform" not in [n.op for n in step.graph.nodes]


def test_random_numbers_have_their_distributions():
    class Draws(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            n = torch.randn_like(x)
            u, k = torch.rand_like(x), torch.randint(2, 7, x.shape)
            return torch.stack([n.mean(), n.square().mean(), u.mean(), u.amin(), u.amax(),
                                k.float().mean(), k.float().amin(), k.float().amax()])  # fmt: skip

    x = torch.zeros(300, 300)
    step = compile_step(
        Draws(), lambda m, b: (m(b[0]) * b[1]).sum() + m.w, SGD(0.0), (x, torch.ones(8))
    )
    runner = step.runner()
    stats = [float(runner.run((x, row))) for row in torch.eye(8)]
    assert stats[0] == pytest.approx(0, abs=0.02)
    assert stats[1] == pytest.approx(1, abs=0.03)
    assert stats[2] == pytest.approx(0.5, abs=0.01)
    assert 0 <= stats[3] < 1e-3
    assert 0.999 < stats[4] < 1
    assert stats[5] == pytest.approx(4, abs=0.05)
    assert stats[6:] == [2, 6]


class Drawn(nn.Module):
    """Puts which places were drawn, of each row of weights and each draw, in its parameter's gradient."""

    def __init__(self, rows, draws, size, replacement):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(rows, draws, size))
        self.replacement = replacement

    def forward(self, weights):
        _, draws, size = self.w.shape
        places = torch.multinomial(weights, draws, self.replacement)
        return (self.w * (places[..., None] == torch.arange(size))).sum()


def drawn(weights, rows, draws, replacement):
    """Places [rows, draws], drawn from the same weights in every row."""
    batch = (torch.tensor(weights).expand(rows, -1).contiguous(),)
    model = Drawn(rows, draws, len(weights), replacement)
    step = compile_step(model, lambda m, b: m(b[0]), SGD(1.0), batch)
    runner = step.runner()
    runner.run(batch)
    hits = -np.asarray(runner.state[step.names.states.index("parameter.w")])
    assert (hits.sum(2) == 1).all()  # one place for each draw
    return hits.argmax(2)


WEIGHTS = [3.0, 0.0, 1.0, 4.0, 0.0]


def test_multinomial_with_replacement_follows_its_weights():
    places = drawn(WEIGHTS, 500, 8, True)
    share = np.bincount(places.reshape(-1), minlength=5) / places.size
    assert share == pytest.approx([3 / 8, 0, 1 / 8, 4 / 8, 0], abs=0.03)
    assert share[1] == share[4] == 0


def test_multinomial_without_replacement_draws_in_turn():
    places = drawn(WEIGHTS, 2000, 4, False)
    assert all(len(set(row)) == 4 for row in places.tolist())
    first = np.bincount(places[:, 0], minlength=5) / 2000
    assert first == pytest.approx([3 / 8, 0, 1 / 8, 4 / 8, 0], abs=0.045)
    second = places[places[:, 0] == 3, 1]  # what is left after place 3
    share = np.bincount(second, minlength=5) / len(second)
    assert share == pytest.approx([3 / 4, 0, 1 / 4, 0, 0], abs=0.06)
    assert set(places[:, 3]) <= {1, 4}  # without weight, so last
