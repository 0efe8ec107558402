"""Models of transformers with their default settings: what they return beside tensors."""

import sys
from pathlib import Path

import pytest
import torch

import ree
from ree.errors import CaptureError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
pytest.importorskip("transformers")
from architectures import model_and_inputs

from ree.compiler.frontend.caches import tensors_of


@pytest.mark.parametrize("name", ["llama", "gemma2", "mamba", "t5"])
def test_a_cache_is_its_tensors(name):
    wrapped, inputs = model_and_inputs(name)
    program = ree.compile(wrapped.model, inputs)
    with torch.no_grad():
        want = tensors_of(wrapped.model(**inputs))
    have = program.run(**inputs).outputs
    assert len(have) == len(want) > 3
    for a, b in zip(have, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert not wrapped.model._forward_hooks


class Unknown:
    pass


class OtherCache(Unknown):
    pass


@pytest.mark.parametrize(("kind", "hint"), [(Unknown, "of them"), (OtherCache, "use_cache=False")])
def test_an_unknown_container_is_refused(kind, hint):
    class Model(torch.nn.Module):
        def forward(self, x):
            return x + 1, kind()

    with pytest.raises(CaptureError, match=kind.__name__) as e:
        ree.compile(Model(), (torch.ones(2),))
    assert e.value.hint.endswith(hint)


def test_a_model_of_which_only_one_output_is_returned():
    """Its encoder's features are read for their shape alone."""
    wrapped, inputs = model_and_inputs("whisper")

    class First(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = wrapped.model

        def forward(self, **inputs):
            return self.model(**inputs)[0]

    with torch.no_grad():
        want = First()(**inputs)
    have = ree.compile(First(), inputs)(**inputs)
    torch.testing.assert_close(have, want, rtol=0, atol=1e-5 * want.abs().max().item())
