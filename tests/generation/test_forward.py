"""Forward programs of every family: transformers' logits, and the same bits however a text is cut."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ree.compiler.ir import Builder, Kind, Ref
from ree.errors import ArtifactError, CaptureError, InputError
from ree.generation.engine import Engine
from ree.generation.forward import compile_forward
from ree.generation.layers import _Repeat, layers_of
from ree.generation.layout import INPUTS
from ree.generation.programs import Forward
from ree.generation.source import FAMILIES
from ree.kernels.types import DType, TensorType

from .tiny import CONTEXT, model_of, module_of

LENGTH = 150  # beyond a chunk, and beyond the window of those that have one


def tokens(n=LENGTH, seed=0):
    return np.random.default_rng(seed).integers(0, 256, n).tolist()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_has_the_logits_of_transformers_and_one_set_of_bits(family):
    text = tokens()
    with torch.no_grad():
        want = module_of(family)(torch.tensor([text])).logits[0].numpy()
    engine = Engine(model_of(family).forward)
    got = np.array([engine.read(0, [t], i) for i, t in enumerate(text)])
    assert np.abs(got - want).max() <= 2e-5 * np.abs(want).max()
    for cut in (7, 128):
        other = Engine(engine.forward, 2, positions=300)
        for i in range(0, LENGTH, cut):
            logits = other.read(1, text[i : i + cut], i)
            assert logits.tobytes() == got[min(i + cut, LENGTH) - 1].tobytes()
        for a, b in zip(engine.caches, other.caches, strict=True):
            assert a[0, :LENGTH].tobytes() == b[1, :LENGTH].tobytes()
            assert not b[1, LENGTH:].any()


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
def test_a_window_that_the_model_does_not_know_has_no_effect(family):
    """Longer than the tokens that compilation compares."""
    module = module_of(
        family,
        sliding_window=40,
        **({"n_layer": 1} if family == "gpt2" else {"num_hidden_layers": 1}),
    )
    want = module(torch.tensor([tokens()])).logits[0].detach().numpy()
    engine = Engine(Forward(compile_forward(module, 512, {})))
    got = engine.read(0, tokens(), 0, first=0)
    assert np.abs(got - want).max() <= 2e-5 * np.abs(want).max()


@pytest.mark.parametrize(("isa", "threads"), [("portable", 1), ("avx2", 3)])
@pytest.mark.parametrize("cut", [1, 16, 127, 129, 300])
def test_cuts_threads_and_instruction_sets(cut, isa, threads):
    text, forward = tokens(300), model_of().forward
    engines = [Engine(forward), Engine(forward, 3, threads=threads, isa=isa)]
    for i in range(0, 300, cut):
        part = text[i : i + cut]
        a, b = (e.read(e.slots - 1, part, i) for e in engines)
        assert a.tobytes() == b.tobytes()
    whole = Engine(forward)
    assert whole.read(0, text, 0).tobytes() == a.tobytes()
    for e in engines:
        for x, y in zip(e.caches, whole.caches, strict=True):
            assert x[e.slots - 1, :300].tobytes() == y[0, :300].tobytes()


def test_slots_together_are_slots_alone():
    forward, n = model_of().forward, 5
    texts = [tokens(20 + 31 * i, i) for i in range(n)]
    alone = []
    for text in texts:
        e = Engine(forward)
        e.read(0, text[:-1], 0)
        alone.append(e.read(0, text[-1:], len(text) - 1))
    e = Engine(forward, 8)
    for slot, text in enumerate(texts):
        e.read(slot, text[:-1], 0)
    out = e.step([t[-1] for t in texts], [len(t) - 1 for t in texts], [True] * n)
    assert [x.tobytes() for x in out] == [x.tobytes() for x in alone]


def test_a_slot_that_is_not_live_keeps_its_text():
    forward, text = model_of().forward, tokens(40)
    e = Engine(forward, 2)
    e.read(0, text[:30], 0)
    e.read(1, text[:30], 0)
    e.step([7, text[30]], [30, 30], [False, True])
    a, b = (e.read(i, text[30 + i :], 30 + i) for i in range(2))
    assert a.tobytes() == b.tobytes()


def test_capacity_grows_and_ends():
    e = Engine(model_of().forward, most=CONTEXT)
    assert e.capacity == 128
    e.read(0, tokens(129), 0)
    assert e.capacity == 256
    with pytest.raises(InputError, match="at most 512 positions, got 513"):
        e.read(0, [1], CONTEXT)


def altered(change):
    """The model's program with another graph."""
    program = model_of().program
    return program.sibling(change(program.graph), program.names)


def logits_of_every_query(g):
    """Logits of [slots, queries, vocabulary], for which an engine has no memory."""
    b = Builder()
    b.symbols, b.inputs, b.weights = list(g.symbols), list(g.inputs), list(g.weights)
    place = {Ref(Kind.CONST, i): b.const(c) for i, c in enumerate(g.consts)}
    for n in g.nodes:
        b.add_again(n, place)
    q = g.inputs[0].shape[1]
    wide = b.add("expand", b.add("slice", place[g.outputs[-1]], dim=1, start=0, stop=1, step=1),
                 shape=(g.inputs[0].shape[0], q, 260))  # fmt: skip
    return b.finish((*(place.get(r, r) for r in g.outputs[:-1]), wide))


def caches_of_integers(g):
    n = len(INPUTS)
    whole = [TensorType(DType.I64, t.shape) for t in g.inputs[n + 1 :]]
    return replace(g, inputs=(*g.inputs[: n + 1], *whole))


@pytest.mark.parametrize("change", [logits_of_every_query, caches_of_integers])
def test_a_program_that_would_write_beyond_an_engines_memory_is_refused(change):
    with pytest.raises(ArtifactError, match="not a language model's"):
        Forward(altered(change))


def test_a_program_that_copies_its_caches_does_not_run():
    """What does not write a cache where it is would leave the engine's untouched."""

    def doubled(g):
        return replace(g, outputs=(g.outputs[1], g.outputs[0], *g.outputs[2:]))

    with pytest.raises(ArtifactError, match="in place"):
        Engine(Forward(altered(doubled))).read(0, [1], 0)


@pytest.mark.parametrize("slots", [0, 257])
def test_slots_that_no_program_takes(slots):
    with pytest.raises(InputError, match="slots: expected 1 to 256"):
        Engine(model_of().forward, slots)


def test_other_programs_are_refused():
    import ree

    class Other(torch.nn.Module):
        def forward(self, x):
            return x + 1

    with pytest.raises(ArtifactError, match="not a language model's"):
        Forward(ree.compile(Other(), (torch.zeros(2),)))


def deep(family="llama", n=4):
    model = module_of(family, num_hidden_layers=n)
    assert layers_of(model) is not None
    return model


def test_layers_that_are_alike_are_captured_once(monkeypatch):
    """The third layer written again is what capturing all of them gives, to the hash."""
    short = compile_forward(deep(), CONTEXT, {})
    monkeypatch.setattr("ree.generation.forward.layers_of", lambda model: None)
    whole = compile_forward(deep(), CONTEXT, {})
    assert short.program_hash == whole.program_hash
    assert short.names.weights == whole.names.weights
    assert short.weights_root == whole.weights_root


def test_layers_that_are_not_alike_are_all_captured():
    model = deep()
    model.model.layers[3].input_layernorm.variance_epsilon = 0.5
    assert layers_of(model) is None
    program = compile_forward(model, CONTEXT, {})
    epsilons = [n.attr_map["eps"] for n in program.graph.nodes if n.op == "rms_norm"]
    assert epsilons.count(0.5) == 1
    assert (
        layers_of(module_of("gemma2", num_hidden_layers=4)) is None
    )  # windows in every second layer


def test_layers_of_kinds_that_the_configuration_alone_tells_are_all_captured():
    model = deep("qwen3")
    model.config.layer_types = ["full_attention"] * 3 + ["sliding_attention"]
    assert layers_of(model) is None


def test_a_program_with_other_logits_is_not_made(monkeypatch):
    """A layer of which the weights stand in the place of another's is seen when logits are compared."""
    wrong = _Repeat._renamed
    monkeypatch.setattr(
        _Repeat, "_renamed", lambda self, name, i: wrong(self, name, 2 if i == 3 else i)
    )
    with pytest.raises(CaptureError, match="logits are not the model's"):
        compile_forward(deep(), CONTEXT, {})
