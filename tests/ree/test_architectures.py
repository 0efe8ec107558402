"""Whole models of many architectures: near eager, and one trace root however they run."""

import sys
from pathlib import Path

import pytest
import torch

import ree

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
pytest.importorskip("transformers")
from architectures import CONFIGS, model_and_inputs

# each for what the others do not have; benchmarks/architectures.py runs all of them
CHOSEN = ("bert", "bloom", "clip", "convnext", "deberta-v2", "deepseek_v3", "gemma2", "llama", "mamba2",
          "mixtral", "mobilenet_v2", "resnet", "swin", "t5", "wav2vec2", "whisper")  # fmt: skip


@pytest.mark.parametrize("name", CHOSEN)
def test_model(name):
    assert name in CONFIGS
    module, inputs = model_and_inputs(name)
    program = ree.compile(module, inputs)
    with torch.no_grad():
        want = module(**inputs)
    first = program.run(**inputs, trace="ops")
    for have, w in zip(first.outputs, want, strict=True):
        assert have.dtype == w.dtype
        scale = w.abs().max().item() if w.is_floating_point() else 0.0
        torch.testing.assert_close(have, w, rtol=0, atol=1e-5 * scale)
    other = program.run(**inputs, trace="ops", isa="portable", threads=1, fuse=False)
    assert other.trace.root == first.trace.root


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models(name, dtype):
    module, inputs = model_and_inputs(name)
    module = module.to(dtype)
    program = ree.compile(module, inputs)
    with torch.no_grad():
        want = module(**inputs)
    first = program.run(**inputs, trace="ops")
    limit = (
        0.04 if dtype is torch.bfloat16 else 0.005
    )  # torch rounds inside attention and norms too
    for have, w in zip(first.outputs, want, strict=True):
        assert have.dtype == w.dtype
        assert (have.float() - w.float()).abs().max() <= limit * w.float().abs().max()
    other = program.run(**inputs, trace="ops", isa="portable", threads=1, fuse=False)
    assert other.trace.root == first.trace.root


@pytest.mark.parametrize("name", ["bert", "llama", "vit", "resnet"])
def test_a_row_of_a_batch_is_the_row_alone(name):
    module, inputs = model_and_inputs(name)
    inputs.pop("attention_mask", None)
    whole = ree.compile(module, inputs)(**inputs)
    row = {k: v[1:2].contiguous() for k, v in inputs.items()}
    alone = ree.compile(module, row)(**row)
    for a, b in zip(whole if isinstance(whole, tuple) else (whole,),
                    alone if isinstance(alone, tuple) else (alone,), strict=True):  # fmt: skip
        assert torch.equal(a[1:2].view(torch.int32), b.view(torch.int32))


class Positional(torch.nn.Module):
    """A model that takes one or two tensors by position; torch.export opens no keyword arguments."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, first, second=None):
        return self.model(**dict(zip(self.names, (first, second), strict=False)))


@pytest.mark.parametrize("name", ["bert", "llama", "resnet"])
def test_bits_do_not_depend_on_what_is_open(name):
    """Nothing open, the batch, the batch and the length (or both sides of an image): equal bytes."""
    module, inputs = model_and_inputs(name)
    module, inputs = Positional(module, list(inputs)), tuple(inputs.values())
    runs = []
    for axes in ((), (0,), (0, 1) if name != "resnet" else (0, 2, 3)):
        shapes = tuple(dict.fromkeys(axes, torch.export.Dim.AUTO) for _ in inputs) if axes else None
        program = ree.compile(module, inputs, shapes)
        assert bool(program.graph.symbols) == bool(axes)
        runs.append(program.run(*inputs).outputs)
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            assert torch.equal(a.view(torch.int32), b.view(torch.int32))
