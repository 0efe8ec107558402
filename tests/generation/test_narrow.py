"""Models whose weights stay as their files keep them: the same bits as with the weights widened first."""

import json
from functools import cache

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quantize
from safetensors.torch import load_file, save_file

from ree.cli.summary import describe_program
from ree.compiler.plan.stored import stored_matrices
from ree.errors import InputError
from ree.generation.claim import Text, claim_step
from ree.generation.engine import Engine
from ree.generation.forward import compile_forward
from ree.generation.gguf_blocks import PARTS
from ree.generation.gguf_file import TYPES, GgufFile
from ree.generation.model import compile_model
from ree.generation.narrow import NarrowMatrix, narrowed, parameters
from ree.generation.programs import Forward
from ree.generation.request import Sampling
from ree.generation.testing import gguf
from ree.kernels.types import DType

from .test_gguf import block
from .test_gguf_model import converted
from .test_source import made
from .tiny import CONTEXT, module_of

TOKENS = np.random.default_rng(0).integers(0, 250, 150).tolist()


@pytest.mark.parametrize(
    "kind", [k for k, (name, _, _) in TYPES.items() if name in (*PARTS, "F16", "BF16")]
)
def test_every_type_is_what_it_widens_to(kind, tmp_path):
    for _ in range(20):
        dims, raw = block(kind, rows=7, blocks=3)
        (tmp_path / "m.gguf").write_bytes(gguf({}, {"a": (dims, kind, raw)}))
        with GgufFile(tmp_path / "m.gguf") as file:
            m, want = file.narrow("a"), file.array("a")
        assert m.widened().tobytes() == want.tobytes()
        assert sum(x.nbytes for _, x in m.parts.values()) <= want.nbytes * 5 // 8


def said(program, isa=None):
    """All logits and caches of a text that is read in pieces."""
    engine, out = Engine(Forward(program), positions=256), []
    at = 0
    for n in (1, 100, 1, 5, 43):
        out.append(engine.read(0, TOKENS[at : at + n], at, first=0).tobytes())
        at += n
    return out


def same_bits(program, wide):
    assert program.program_hash != wide.program_hash
    assert stored_matrices(program.graph)
    assert sum(w.nbytes for w in program.weights) < 0.8 * sum(w.nbytes for w in wide.weights)
    assert said(program) == said(wide)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("llama", "float16"),
        ("gemma3_text", "bfloat16"),
        ("qwen2_moe", "bfloat16"),
        ("gpt2", "bfloat16"),
    ],
)
def test_a_directory_of_half_precision(kind, dtype, byte_level, tmp_path):
    import torch

    model = made(kind, **({"n_positions": 256} if kind == "gpt2" else {}))
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_level))
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {k: v.to(getattr(torch, dtype)) for k, v in weights.items()}, tmp_path / "model.safetensors"
    )
    program, wide = compile_model(tmp_path), compile_model(tmp_path, "f32")
    if kind == "gpt2":  # whose matrices lie the other way round
        assert said(program) == said(wide)
    else:
        same_bits(program, wide)


@pytest.mark.parametrize(("label", "tied"), [("Q8_0", True), ("Q4_1", False)])
def test_a_gguf_file_in_blocks(label, tied, byte_level, tmp_path):
    kind = next(k for k, (name, _, _) in TYPES.items() if name == label)
    metadata, tensors = converted(made("llama", tie_word_embeddings=tied), byte_level)
    for name, (dims, _, raw) in tensors.items():
        if len(dims) == 2 and not dims[1] % 32:  # mlp.down_proj stays as it is
            x = np.frombuffer(raw, np.float32).reshape(dims)
            tensors[name] = (dims, kind, quantize(x, GGMLQuantizationType(kind)).tobytes())
    (tmp_path / "m.gguf").write_bytes(gguf(metadata, tensors))
    same_bits(compile_model(tmp_path / "m.gguf"), compile_model(tmp_path / "m.gguf", "f32"))


def in_blocks(x, offset=False):
    """A matrix rounded to blocks of 16."""
    rows = x.reshape(len(x), -1, 16)
    scale = np.maximum(np.abs(rows).max(-1, keepdims=True) / 127, 1e-9).astype(np.float32)
    q = np.rint(rows / scale).astype(np.int8)
    return NarrowMatrix(q, DType.I8, scale, scale * np.float32(0.3) if offset else None)


@cache
def programs(offset=False):
    """A tiny model whose matrices are in blocks: narrow, and widened."""
    import torch

    module, matrices = module_of("llama", tie_word_embeddings=True), {}
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.dim() == 2:
                matrices[f"model.{name}"] = m = in_blocks(p.numpy(), offset)
                p.copy_(torch.from_numpy(m.widened()))
    wide = compile_forward(module, CONTEXT, {})
    tied = {n: m for n in wide.names.weights for k, m in matrices.items()
            if n == k or (n == "model.lm_head.weight" and k == "model.model.embed_tokens.weight")}  # fmt: skip
    return narrowed(wide, tied), wide


@pytest.mark.parametrize("offset", [False, True])
def test_a_table_and_a_head_that_are_one(offset):
    program, wide = programs(offset)
    assert parameters(program) == parameters(wide) == sum(w.size for w in wide.weights)
    assert describe_program(program)["parameters"] == parameters(program)
    assert not any(w.ndim == 2 for w in program.weights)
    same_bits(program, wide)


def test_a_matrix_of_another_value_is_left_as_it_is():
    _, wide = programs()
    name = next(n for n in wide.names.weights if "q_proj" in n)
    other = in_blocks(wide.weights[wide.names.weights.index(name)] * np.float32(2))
    assert narrowed(wide, {name: other}) is wide


def test_a_claim_of_a_narrow_model_is_decidable():
    from ree.settlement.decidable import obstacles

    forward = Forward(programs(True)[0])
    step = claim_step(forward, Text((1,) * 300, 5, Sampling(seed=0), (), None))
    assert obstacles(step.instance.graph) == []


def test_other_words_for_how_weights_are_kept_are_refused(tmp_path):
    with pytest.raises(InputError, match="weights: expected stored or f32, got 'q9'"):
        compile_model(tmp_path, "q9")
