"""Recurrent layers near torch with every flag, batch and time open: at each time the bits of the layer that is
compiled for it."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import ree
from ree import _core
from ree.compiler.frontend.aten import recurrent
from ree.compiler.instance import bind_all
from ree.compiler.passes.canonical import canonicalise
from ree.compiler.text import print_graph
from ree.compiler.training.step import capture_step
from ree.errors import CaptureError, InputError
from ree.kernels.types import TensorType
from ree.optim import SGD

Dim = torch.export.Dim
FLAGS = [
    (nn.LSTM, {}),
    (nn.LSTM, {"bidirectional": True, "num_layers": 2, "dropout": 0.5}),
    (nn.LSTM, {"proj_size": 3, "batch_first": True, "bias": False}),
    (nn.LSTM, {"proj_size": 3, "bidirectional": True}),
    (nn.GRU, {"bidirectional": True, "batch_first": True}),
    (nn.GRU, {"bias": False, "num_layers": 2}),
    (nn.RNN, {"nonlinearity": "relu", "num_layers": 2}),
    (nn.RNN, {"bidirectional": True, "bias": False}),
]
LONG = 64  # steps, of one layer of each kind
RUNS = list(zip(_core.isa_names(), (1, 2, 7), (True, True, False), strict=False))


class Recurrent(nn.Module):
    def __init__(self, kind, flags):
        super().__init__()
        self.layer = kind(6, 4, **flags)

    def forward(self, x, *states):
        h = None if not states else states if len(states) == 2 else states[0]
        y, last = self.layer(x, h)
        return (y, *last) if isinstance(last, tuple) else (y, last)


def made(kind, flags):
    torch.manual_seed(0)
    return Recurrent(kind, flags).eval()


def example(flags, time, batch, width=6):
    sizes = (batch, time, width) if flags.get("batch_first") else (time, batch, width)
    return torch.randn(sizes)


def states(kind, flags, batch):
    """Initial states as a layer takes them."""
    n = flags.get("num_layers", 1) * (2 if flags.get("bidirectional") else 1)
    h = torch.randn(n, batch, flags.get("proj_size") or 4)
    return (h, torch.randn(n, batch, 4)) if kind is nn.LSTM else (h,)


def axes(flags, **names):
    """The open axes of x, and of states."""
    time, batch = (1, 0) if flags.get("batch_first") else (0, 1)
    n, t = names.get("batch"), names.get("time")
    return {k: v for k, v in ((time, t), (batch, n)) if v is not None}


def raw(x):
    return x.detach().numpy().tobytes()


@pytest.mark.parametrize(("kind", "flags"), FLAGS)
def test_an_open_batch(kind, flags):
    module = made(kind, flags)
    shapes = (axes(flags, batch=Dim("n")),)
    program = ree.compile(module, (example(flags, 3, 3),), shapes)
    x = example(flags, 3, 5)
    first = program.run(x, trace="ops")
    for have, want in zip(first.outputs, module(x), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-6)
    other = program.run(x, trace="ops", isa="portable", threads=1, fuse=False)
    assert other.trace.root == first.trace.root


@pytest.mark.parametrize(("kind", "flags"), FLAGS)
def test_an_open_time(kind, flags):
    """Near torch, and the bytes of the layer compiled for that time, on every instruction set."""
    module = made(kind, flags)
    program = ree.compile(module, (example(flags, 5, 3),), (axes(flags, time=Dim("t")),))
    assert len(program.graph.nodes) < 30
    for time in (1, 2, 7, *[LONG] * ((kind, flags) in (FLAGS[0], FLAGS[4], FLAGS[6]))):
        x = example(flags, time, 3)
        fixed = ree.compile(module, (x,))
        want = fixed.run(x).outputs
        first = program.run(x, trace="ops")
        for have, bits, near in zip(first.outputs, want, module(x), strict=True):
            assert raw(have) == raw(bits)
            torch.testing.assert_close(have, near, rtol=1e-5, atol=1e-6)
        for isa, threads, fuse in RUNS:
            other = program.run(x, trace="ops", isa=isa, threads=threads, fuse=fuse)
            assert other.trace.root == first.trace.root
        assert program.run(x).outputs[0].equal(first.outputs[0])


@pytest.mark.parametrize(("kind", "flags"), [f for f in FLAGS if "bidirectional" not in f[1]])
def test_at_a_time_it_is_the_program_compiled_for_it(kind, flags):
    """Node by node, when both are in canonical form."""
    module = made(kind, flags)
    program = ree.compile(module, (example(flags, 5, 3),), (axes(flags, time=Dim("t")),))
    for time in (1, 21):
        fixed = ree.compile(module, (example(flags, time, 3),))
        bound = canonicalise(bind_all(program.graph, {"s0": time}))
        assert print_graph(bound) == print_graph(fixed.graph)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("kind", "flags"), [FLAGS[1], FLAGS[2], FLAGS[4], FLAGS[6]])
def test_half_precision_rounds_as_the_fixed_layer(kind, flags, dtype):
    module = made(kind, flags).to(dtype)
    x = example(flags, 5, 3).to(dtype)
    program = ree.compile(module, (x,), (axes(flags, time=Dim("t")),))
    x = example(flags, 9, 3).to(dtype)
    for have, want in zip(
        program.run(x).outputs, ree.compile(module, (x,)).run(x).outputs, strict=True
    ):
        assert raw(have.view(torch.int16)) == raw(want.view(torch.int16))


@pytest.mark.parametrize(("kind", "flags"), FLAGS)
def test_initial_states_and_an_open_batch_too(kind, flags):
    module = made(kind, flags)
    t, n = Dim("t"), Dim("n")
    given = states(kind, flags, 3)
    shapes = (axes(flags, time=t, batch=n), tuple({1: n} for _ in given))
    program = ree.compile(module, (example(flags, 5, 3), *given), shapes)
    x, given = example(flags, 8, 4), states(kind, flags, 4)
    whole = program.run(x, *given)
    for have, want in zip(whole.outputs, module(x, *given), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-6)
    batch = 0 if flags.get("batch_first") else 1
    row = program.run(x.narrow(batch, 2, 1), *(s[:, 2:3] for s in given))
    assert raw(row.outputs[0]) == raw(whole.outputs[0].narrow(batch, 2, 1).contiguous())
    assert raw(row.outputs[1]) == raw(whole.outputs[1][:, 2:3].contiguous())


def test_a_prefix_equals_the_whole():
    """Of a layer that only looks back."""
    program = ree.compile(made(nn.LSTM, {}), (torch.randn(5, 3, 6),), ({0: Dim("t")},))
    x = torch.randn(40, 3, 6)
    assert raw(program(x[:17])[0]) == raw(program(x)[0][:17])


class Speech(nn.Module):
    """A time that is an expression, a layer without a batch, a call of torch.gru itself."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(6, 6, 3, stride=2)
        self.lstm, self.gru = nn.LSTM(6, 4, bidirectional=True), nn.GRU(8, 5)

    def forward(self, x):
        y, _ = self.lstm(self.conv(x.T).T)
        h = torch.zeros(1, 1, 5)
        z, _ = torch.gru(
            y.unsqueeze(1), h, self.gru._flat_weights, True, 1, 0.0, False, False, False
        )
        return z.squeeze(1)[-1]


def test_a_time_that_is_an_expression():
    torch.manual_seed(0)
    module = Speech().eval()
    program = ree.compile(module, (torch.randn(11, 6),), ({0: Dim("t", min=5)},))
    for n in (5, 12, 33):
        x = torch.randn(n, 6)
        torch.testing.assert_close(program(x), module(x), rtol=1e-5, atol=1e-6)
        assert raw(program(x)) == raw(ree.compile(module, (x,))(x))


def test_no_row_and_no_step():
    program = ree.compile(made(nn.LSTM, {}), (torch.randn(5, 3, 6),), ({0: Dim("t"), 1: Dim("n")},))
    assert [tuple(y.shape) for y in program(torch.randn(4, 0, 6))] == [
        (4, 0, 4),
        (1, 0, 4),
        (1, 0, 4),
    ]
    with pytest.raises(InputError, match="lstm: expected a time of 1 step or more, got 0"):
        program(torch.randn(0, 3, 6))


def test_too_many_steps_are_refused_with_their_number():
    program = ree.compile(made(nn.RNN, {}), (torch.randn(5, 1, 6),), ({0: Dim("t")},))
    with pytest.raises(
        InputError,
        match=r"rnn of f32\[100000,1,4\] written out is 633,\d{3} nodes, at most 262,144",
    ):
        program(torch.randn(100000, 1, 6))


def test_steps_have_names():
    """Layer, direction and step stand beside every value; what they compute does not depend on it."""
    module = made(nn.LSTM, {"bidirectional": True, "num_layers": 2})
    program = ree.compile(module, (torch.randn(5, 2, 6),), ({0: Dim("t")},))
    x = torch.randn(7, 2, 6)
    infos = program.run(x, trace="ops").trace.sidecar.values
    named = [i.module for i in infos if ", step " in i.module]
    layers = [f"layer l{i}{r}" for i in (0, 1) for r in ("", "_reverse")]
    assert set(named) == {f"{k}, step {t}" for k in layers for t in range(7)}
    assert all(i.location for i in infos if ", step " in i.module)
    # the backward direction reads its last step first
    firsts = dict.fromkeys(m for m in named if m.startswith("layer l0_reverse"))
    steps = [int(m.rpartition(" ")[2]) for m in firsts]
    assert all(a > b for a, b in pairwise(steps))


def test_what_an_artifact_keeps(tmp_path):
    module = made(nn.GRU, {"num_layers": 2})
    x = torch.randn(6, 3, 6)
    program = ree.compile(module, (torch.randn(5, 3, 6),), ({0: Dim("t")},))
    program.save(tmp_path / "m.ree")
    loaded = ree.load(tmp_path / "m.ree")
    assert loaded.program_hash == program.program_hash
    made_, again = program.run(x, trace="ops"), loaded.run(x, trace="ops")
    assert again.trace.root == made_.trace.root
    assert ree.verify(loaded, made_.trace, (x,))


class Stream(nn.Module):
    """A layer that goes on where the last chunk ended."""

    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(6, 4)
        self.register_buffer("h", torch.zeros(1, 2, 4))

    def forward(self, x):
        y, h = self.layer(x, self.h)
        self.h.copy_(h)
        return y


def test_chunks_of_any_length_in_a_session():
    torch.manual_seed(0)
    module = Stream().eval()
    program = ree.compile(module, (torch.randn(5, 2, 6),), ({0: Dim("t")},), states=True)
    session, x = ree.Session(program), torch.randn(20, 2, 6)
    parts = [session.run(x[a:b]).outputs[0] for a, b in pairwise((0, 3, 4, 11, 20))]
    whole = ree.Session(program).run(x).outputs[0]
    assert raw(torch.cat(parts)) == raw(whole)
    torch.testing.assert_close(whole, module.layer(x)[0], rtol=1e-5, atol=1e-6)


def test_packed_sequences_are_refused():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.LSTM(6, 4)

        def forward(self, x, lengths):
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
            return nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0])[0]

    with pytest.raises(
        CaptureError, match=r"packed sequences are not compiled at test_recurrent.py:\d+"
    ) as e:
        ree.compile(Packed(), (torch.randn(3, 2, 6), torch.tensor([3, 2])))
    assert "padded tensors" in e.value.hint


def test_an_example_of_one_step_is_refused():
    with pytest.raises(CaptureError) as e:
        ree.compile(made(nn.GRU, {}), (torch.randn(1, 2, 6),), ({0: Dim("t")},))
    assert "give an example of 2 or more" in e.value.hint


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_dropout_between_layers_in_training(kind):
    """torch's decomposition leaves it out, whatever its probability."""
    module = made(kind, {"num_layers": 3, "dropout": 0.5, "bidirectional": True}).train()

    def loss(m, batch):
        return m(batch[0])[0].sum()

    step = capture_step(module, loss, SGD(0.1), (torch.randn(3, 2, 6),))
    assert sum(n.op == "uniform" for n in step.graph.nodes) == 2  # not after the last layer
    with pytest.warns(UserWarning, match="drops the same elements"):
        fixed = ree.compile(module, (torch.randn(4, 2, 6),))
    with pytest.warns(UserWarning, match="drops the same elements"):
        program = ree.compile(module, (torch.randn(3, 2, 6),), ({0: Dim("t")},))
    x = torch.randn(4, 2, 6)
    assert raw(fixed.run(x).outputs[0]) == raw(program.run(x).outputs[0])
    # without dropout the same layers, in one call or layer by layer
    module.layer.dropout = 0.0
    first = ree.compile(module, (x,)).run(x).outputs
    given = {
        "input": x, "hx": module_states(module, 2), "params": module.layer._flat_weights, "has_biases": True,
        "num_layers": 3, "dropout": 0.0, "train": True, "bidirectional": True, "batch_first": False,
    }  # fmt: skip
    func = {nn.LSTM: torch.lstm, nn.GRU: torch.gru, nn.RNN: torch.rnn_tanh}[kind]
    for have, want in zip(recurrent._layers(func, "", given, True), first, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-6)


def module_states(module, batch):
    h = torch.zeros(6, batch, 4)
    return (h, h) if isinstance(module.layer, nn.LSTM) else h


def test_every_shape_rule_of_a_sample_holds_at_a_size():
    """What the program says of results at open sizes is what they have."""
    program = ree.compile(made(nn.LSTM, FLAGS[1][1]), (torch.randn(5, 3, 6),), ({0: Dim("t")},))
    bound = bind_all(program.graph, {"s0": 9})
    types = list(map(bound.typer(), bound.outputs))
    assert types == [t.bind({"s0": 9}) for t in map(program.graph.typer(), program.graph.outputs)]
    assert isinstance(types[0], TensorType)
    assert np.prod(types[0].dims) == 9 * 3 * 8


def test_scripted_and_traced_submodules():
    layer, x = nn.Linear(6, 4), torch.randn(2, 6)
    traced = nn.Sequential(torch.jit.trace(layer, x), nn.ReLU())
    torch.testing.assert_close(ree.compile(traced, (x,))(x), traced(x))
    scripted = nn.Sequential(torch.jit.script(layer))
    with pytest.raises(CaptureError) as e:
        ree.compile(scripted, (x,))
    assert "submodule '0' is scripted" in e.value.hint
    with pytest.raises(CaptureError) as e:
        ree.compile(torch.jit.script(layer), (x,))
    assert "the model is scripted" in e.value.hint
