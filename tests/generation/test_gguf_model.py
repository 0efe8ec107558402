"""GGUF as the model that it was made of, by architecture; what it says beside is refused."""

import random
import time

import numpy as np
import pytest
import torch

from ree.errors import ReeError
from ree.generation.gguf_file import GgufFile
from ree.generation.gguf_model import GgufModel
from ree.generation.gguf_tokenizer import tokenizer_json
from ree.generation.source import check_sizes, load_source
from ree.generation.testing import gguf
from ree.generation.tokenizer import Tokenizer

from .test_source import logits, made

NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
NAMES_OF_GEMMA = NAMES | {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip


NAMES_OF_EXPERTS = NAMES | {
    "mlp.gate": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp", "mlp.experts.down": "ffn_down_exps",
    "mlp.experts.gate": "ffn_gate_exps", "mlp.experts.up": "ffn_up_exps",
}  # fmt: skip
NAMES_OF_PHI3 = NAMES | {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}
NAMES_OF_GPT2 = {
    "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm",
    "lm_head": "output", "ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
# model_type -> architecture in GGUF, names of tensors, keys of the configuration
OF_KIND = {
    "gemma2": ("gemma2", NAMES_OF_GEMMA, {"attention.sliding_window": "sliding_window",
                                          "attn_logit_softcapping": "attn_logit_softcapping",
                                          "final_logit_softcapping": "final_logit_softcapping"}),
    "gemma3_text": ("gemma3", NAMES_OF_GEMMA, {"attention.sliding_window": "sliding_window"}),
    "mixtral": ("llama", NAMES_OF_EXPERTS, {"expert_count": "num_local_experts",
                                            "expert_used_count": "num_experts_per_tok"}),
    "qwen2_moe": ("qwen2moe", NAMES_OF_EXPERTS, {
        "expert_count": "num_experts", "expert_used_count": "num_experts_per_tok",
        "expert_feed_forward_length": "moe_intermediate_size",
        "expert_shared_feed_forward_length": "shared_expert_intermediate_size"}),
    "phi3": ("phi3", NAMES_OF_PHI3, {
        "rope.scaling.original_context_length": "original_max_position_embeddings"}),
    "gpt2": ("gpt2", NAMES_OF_GPT2, {}),
}  # fmt: skip


def tensors_of(model, kind, names):
    """A model's tensors as llama.cpp's converter writes them: (name, value)."""
    config = model.config
    for name, value in model.state_dict().items():
        stem, _, suffix = (
            name.rpartition(".") if name.endswith(("weight", "bias")) else (name, "", "weight")
        )
        layer = ""
        if stem.startswith(("model.layers.", "transformer.h.")):
            _, _, n, stem = stem.split(".", 3)
            layer = f"blk.{n}."
        if kind == "llama" and stem in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = config.num_attention_heads if "q_proj" in stem else config.num_key_value_heads
            value = (
                value.reshape(heads, 2, -1, value.shape[-1]).transpose(1, 2).reshape(value.shape)
            )
        if kind in ("gemma2", "gemma3") and stem.endswith("norm"):
            value = value + 1
        if kind == "gpt2" and value.dim() == 2 and layer:  # a Conv1D
            value = value.T
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if stem == "mlp.shared_expert_gate":
            value = value[0]
        if stem == "mlp.experts.gate_up_proj":
            half = value.shape[1] // 2
            yield f"{layer}ffn_gate_exps.weight", value[:, :half]
            yield f"{layer}ffn_up_exps.weight", value[:, half:]
            continue
        stem = "mlp.experts.down" if stem == "mlp.experts.down_proj" else stem
        yield f"{layer}{names[stem]}.{suffix}", value


def converted(model, byte_level, **more):
    """(metadata, tensors) of a model in GGUF, as llama.cpp's converter writes it."""
    config = model.config
    kind, names, own = OF_KIND.get(config.model_type, (config.model_type, NAMES, {}))
    tensors = {
        name: (tuple(value.shape), 0, value.contiguous().numpy().tobytes())
        for name, value in tensors_of(model, kind, names)
    }
    vocab = byte_level["model"]["vocab"]
    tokens = [*sorted(vocab, key=vocab.get), "<s>", "</s>", "<tool>"]
    metadata = {
        "general.architecture": kind, "general.name": "tiny", "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 257 + [3, 3, 4], "tokenizer.ggml.merges": ["t h"],
        "tokenizer.ggml.bos_token_id": 257, "tokenizer.ggml.eos_token_id": 258,
        f"{kind}.block_count": config.num_hidden_layers, f"{kind}.context_length": 64,
        f"{kind}.embedding_length": 32, f"{kind}.attention.head_count": 4,
    }  # fmt: skip
    if kind == "gpt2":
        metadata |= {
            "gpt2.feed_forward_length": 128,
            "gpt2.attention.layer_norm_epsilon": float(np.float32(1e-5)),
        }
        return metadata | more, tensors
    rope = config.rope_parameters
    metadata |= {
        f"{kind}.feed_forward_length": 48, f"{kind}.attention.head_count_kv": 2,
        f"{kind}.attention.layer_norm_rms_epsilon": float(np.float32(config.rms_norm_eps)),
        f"{kind}.rope.freq_base": float(rope.get("full_attention", rope)["rope_theta"]),
        f"{kind}.attention.key_length": getattr(config, "head_dim", None) or 8,
        **{f"{kind}.{key}": getattr(config, name) for key, name in own.items()},
    }  # fmt: skip
    return metadata | more, tensors


@pytest.mark.parametrize(
    ("kind", "tied"),
    [("llama", True), ("llama", False), ("qwen2", False), ("qwen3", True), ("gemma3_text", True),
     ("gemma2", True), ("mixtral", False), ("qwen2_moe", False), ("phi3", False), ("gpt2", True),
     ("gpt2", False)],
)  # fmt: skip
def test_gguf_gives_the_logits_of_the_model_it_was_made_of(kind, tied, byte_level, tmp_path):
    own = (
        {"num_hidden_layers": 7}
        if kind == "gemma3_text"
        else {}
        if kind == "gpt2"
        else {"rope_theta": 5000.0}
    )
    model = made(kind, tie_word_embeddings=tied, **own)
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf(*converted(model, byte_level, **{"tokenizer.chat_template": "{{ 1 }}"})))
    source = load_source(path)
    # the epsilon is stored in float32, and the norms of Gemma are rounded when 1 is added
    assert torch.allclose(logits(source.module), logits(model), rtol=0, atol=1e-5)
    assert (source.context_length, source.chat_template, source.name) == (64, "{{ 1 }}", "tiny")
    assert (source.special.bos, source.special.stop, source.special.eos_token) == (
        257,
        (258,),
        "</s>",
    )


GGUF_WRONG = {
    "an architecture": ({"general.architecture": "mamba"}, "architecture mamba"),
    "a key of the architecture": (
        {"llama.rope.scaling.factor": 2.0},
        "llama.rope.scaling.factor is not supported",
    ),
    "a key of another": ({"qwen2.block_count": 2}, "qwen2.block_count is not supported"),
    "a rotation of part of a head": (
        {"llama.rope.dimension_count": 4},
        "rope.dimension_count is 4, expected 8",
    ),
    "another number of experts": (
        {"llama.expert_count": 3, "llama.expert_used_count": 2},
        "ffn_gate_exps.weight has 4 experts, expected 3",
    ),
    "no heads": ({"llama.attention.head_count": "x"}, "llama.attention.head_count"),
    "a tokenizer": ({"tokenizer.ggml.model": "t5"}, "a tokenizer of model t5"),
    "a tokenizer without scores": (
        {"tokenizer.ggml.model": "llama"},
        "tokenizer.ggml.scores is missing",
    ),
    "another number of scores": (
        {"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": [0.5]},
        "1 scores for 260 tokens",
    ),
    "a last token that is added": (
        {"tokenizer.ggml.add_eos_token": True},
        "add_eos_token is not supported",
    ),
    "a map of characters": (
        {"tokenizer.ggml.precompiled_charsmap": [1, 2]},
        "precompiled_charsmap",
    ),
    "a cut": ({"tokenizer.ggml.pre": "deepseek"}, "cut as deepseek"),
    "a token twice": ({"tokenizer.ggml.tokens": ["a"] * 260}, "twice"),
    "another number of tokens": ({"tokenizer.ggml.tokens": ["a", "b"]}, "token types for 2 tokens"),
    "tokens of numbers": ({"tokenizer.ggml.tokens": list(range(260))}, "token"),
    "a merge of three": ({"tokenizer.ggml.merges": ["a b c"]}, "merge"),
    "a stop token that there is not": ({"tokenizer.ggml.eos_token_id": 260}, "eos_token_id is 260"),
    "10^9 layers": ({"llama.block_count": 10**9}, "num_hidden_layers is"),
    "fewer layers": ({"llama.block_count": 1}, "is not of this model"),
    "more layers": ({"llama.block_count": 3}, "is missing"),
}


@pytest.mark.parametrize("what", GGUF_WRONG)
def test_a_gguf_that_says_something_else_is_one_line(what, byte_level, tmp_path):
    change, expected = GGUF_WRONG[what]
    path = tmp_path / "tiny.gguf"
    kind = "mixtral" if "experts" in what else "llama"
    path.write_bytes(gguf(*converted(made(kind), byte_level, **change)))
    with pytest.raises(ReeError, match=expected) as e:
        load_source(path)
    assert "\n" not in e.value.message


NUMBERS = (0, 1, 2, 8, 9, 255, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)


def mutated(rng, whole, most):
    """A file with some bits, numbers or stretches of its first bytes changed, left out, put in or moved."""
    raw = bytearray(whole)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, n = rng.randrange(most), rng.randrange(1, 40)
        kind, other = rng.randrange(6), rng.randrange(most)
        if kind == 0:
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            raw[at : at + 8] = rng.choice(NUMBERS).to_bytes(8, "little")
        elif kind == 2:
            raw[at : at + 4] = (rng.choice(NUMBERS) & 0xFFFFFFFF).to_bytes(4, "little")
        elif kind == 3:
            del raw[at : at + n]
        elif kind == 4:
            raw[at:at] = rng.randbytes(n)
        else:
            raw[at : at + n] = raw[other : other + n]
    return bytes(raw)


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "qwen2_moe"])
def test_any_change_of_a_file_gives_a_model_or_one_line_soon(kind, byte_level, tmp_path):
    """As far as what is heavy: the weights in float32, configuration and tokenizer."""
    scores = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.scores": [float(-i) for i in range(260)],
    }
    whole = gguf(*converted(made(kind), byte_level, **(scores if kind == "llama" else {})))
    rng, path, read, lines = random.Random(0), tmp_path / "m.gguf", 0, []
    for _ in range(1500):
        path.write_bytes(mutated(rng, whole, 9000))
        start = time.process_time()
        try:
            with GgufFile(path) as file:
                model = GgufModel(file)
                check_sizes(model.config, "m")
                model.weights(lambda *tensor: None)
                model.chat_template()
                Tokenizer(tokenizer_json(model)).encode("a th €")
            read += 1
        except ReeError as e:
            lines.append(e.message.replace(str(path), ""))
        assert time.process_time() - start < 5
    assert 50 < read < 1450
    assert len({line[:20] for line in lines}) > 20
    assert all("\n" not in line and len(line) < 1500 for line in lines)
