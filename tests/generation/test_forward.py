"""Forward programs of every family: transformers' logits, and the same bits however a text is cut."""

import numpy as np
import pytest
import torch

from ree.errors import ArtifactError, CaptureError, InputError
from ree.generation.engine import Engine
from ree.generation.forward import compile_forward
from ree.generation.layers import _Repeat, layers_of
from ree.generation.programs import Forward
from ree.generation.source import FAMILIES

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


def test_other_programs_are_refused():
    import ree

    class Other(torch.nn.Module):
        def forward(self, x):
            return x + 1

    with pytest.raises(ArtifactError, match="not a language model's"):
        Forward(ree.compile(Other(), (torch.zeros(2),)))


def deep(family="llama", n=5):
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
    model.model.layers[4].input_layernorm.variance_epsilon = 0.5
    assert layers_of(model) is None
    program = compile_forward(model, CONTEXT, {})
    epsilons = [n.attr_map["eps"] for n in program.graph.nodes if n.op == "rms_norm"]
    assert epsilons.count(0.5) == 1
    assert (
        layers_of(module_of("gemma2", num_hidden_layers=5)) is None
    )  # windows in every second layer


def test_a_program_with_other_logits_is_not_made(monkeypatch):
    """A layer of which the weights stand in the place of another's is seen when logits are compared."""
    wrong = _Repeat._renamed
    monkeypatch.setattr(
        _Repeat, "_renamed", lambda self, name, i: wrong(self, name, 3 if i == 4 else i)
    )
    with pytest.raises(CaptureError, match="logits are not the model's"):
        compile_forward(deep(), CONTEXT, {})
