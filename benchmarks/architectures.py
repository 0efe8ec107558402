"""Tiny random models of 57 transformers architectures with default settings: which compile, how far from eager.

    python benchmarks/architectures.py [NAME ...] [-o benchmarks/results/architectures.json]

The error is the greatest absolute difference over all outputs, divided by the greatest magnitude.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import torch

import ree
from ree.compiler.frontend.caches import tensors_of
from ree.errors import ReeError

# odd sizes, so that no boundary is met by luck
TEXT = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 72,
        "vocab_size": 101, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2}  # fmt: skip
GQA = {**TEXT, "num_key_value_heads": 2}
IMAGE = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 72,
         "image_size": 32, "patch_size": 8, "num_channels": 3}  # fmt: skip
MOE = {**GQA, "moe_intermediate_size": 40, "num_experts": 4, "num_experts_per_tok": 2}

CONFIGS: dict[str, dict[str, object]] = {
    "albert": {**TEXT, "embedding_size": 24},
    "bart": {"d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 72, "decoder_ffn_dim": 72,
             "vocab_size": 101, "max_position_embeddings": 64},
    "bert": TEXT,
    "bloom": {"hidden_size": 48, "n_layer": 2, "n_head": 4, "vocab_size": 101},
    "clip": {"text_config": {**TEXT, "projection_dim": 24}, "vision_config": {**IMAGE, "projection_dim": 24},
             "projection_dim": 24},
    "cohere": GQA,
    "convnext": {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 2, 1], "image_size": 32},
    "deberta-v2": {**TEXT, "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"],
                   "norm_rel_ebd": "layer_norm", "share_att_key": True, "type_vocab_size": 0},
    "deepseek_v3": {**GQA, "num_key_value_heads": 4, "moe_intermediate_size": 40, "n_routed_experts": 8,
                    "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "kv_lora_rank": 16,
                    "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12,
                    "first_k_dense_replace": 1, "n_shared_experts": 1},
    "deit": IMAGE,
    "dinov2": {**IMAGE, "mlp_ratio": 2},
    "distilbert": {"dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 72, "vocab_size": 101,
                   "max_position_embeddings": 64},
    "electra": {**TEXT, "embedding_size": 24},
    "ernie4_5": GQA,
    "falcon": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 101},
    "gemma": {**GQA, "head_dim": 12},
    "gemma2": {**GQA, "head_dim": 12, "sliding_window": 8},
    "gemma3_text": {**GQA, "head_dim": 12, "sliding_window": 8, "num_hidden_layers": 6},
    "glm4": {**GQA, "head_dim": 12},
    "glm4_moe": {**GQA, "head_dim": 12, "moe_intermediate_size": 40, "n_routed_experts": 8,
                 "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "gpt2": {"n_embd": 48, "n_layer": 2, "n_head": 4, "vocab_size": 101, "n_positions": 64},
    "gpt_neo": {"hidden_size": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 101,
                "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64, "window_size": 8},
    "gpt_neox": TEXT,
    "gpt_oss": {**GQA, "head_dim": 12, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    "gptj": {"n_embd": 48, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "vocab_size": 101, "n_positions": 64},
    "granite": GQA,
    "granitemoe": {**GQA, "num_local_experts": 4, "num_experts_per_tok": 2},
    "llama": GQA,
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 101, "state_size": 8},
    "mamba2": {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 101, "state_size": 8, "num_heads": 8,
               "head_dim": 8, "n_groups": 2, "chunk_size": 8, "expand": 2},
    "mistral": {**GQA, "sliding_window": 8, "head_dim": 12},
    "mixtral": {**GQA, "num_local_experts": 4, "num_experts_per_tok": 2},
    "mobilenet_v2": {"image_size": 32, "depth_multiplier": 0.35},
    "modernbert": {**TEXT, "global_attn_every_n_layers": 2, "local_attention": 8, "cls_token_id": 1,
                   "sep_token_id": 2},
    "mpnet": TEXT,
    "olmo2": GQA,
    "olmoe": MOE,
    "opt": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 72,
            "vocab_size": 101, "max_position_embeddings": 64, "word_embed_proj_dim": 48},
    "phi": GQA,
    "phi3": GQA,
    "phimoe": {**GQA, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": GQA,
    "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 40},
    "qwen3": {**GQA, "head_dim": 12},
    "qwen3_moe": {**MOE, "head_dim": 12},
    "resnet": {"embedding_size": 16, "hidden_sizes": [24, 32], "depths": [1, 2]},
    "roberta": TEXT,
    "siglip_vision_model": IMAGE,
    "smollm3": GQA,
    "stablelm": {**GQA, "partial_rotary_factor": 0.5},
    "starcoder2": GQA,
    "swin": {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4],
             "window_size": 4},
    "t5": {"d_model": 48, "d_kv": 12, "d_ff": 72, "num_layers": 2, "num_heads": 4, "vocab_size": 101},
    "vit": IMAGE,
    "wav2vec2": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 72,
                 "conv_dim": [16, 16], "conv_stride": [4, 2], "conv_kernel": [8, 3],
                 "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8,
                 "num_conv_pos_embedding_groups": 4, "vocab_size": 32},
    "whisper": {"d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
                "decoder_attention_heads": 4, "encoder_ffn_dim": 72, "decoder_ffn_dim": 72, "vocab_size": 101,
                "num_mel_bins": 20, "max_source_positions": 30, "max_target_positions": 32, "pad_token_id": 0,
                "decoder_start_token_id": 1, "bos_token_id": 1, "eos_token_id": 2,
                "suppress_tokens": [], "begin_suppress_tokens": []},
    "xlm-roberta": TEXT,
}  # fmt: skip


class Wrapped(torch.nn.Module):
    """The tensors of a model's output, those of its cache too, as a tuple."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, **inputs):
        return tensors_of(self.model(**inputs))


def model_and_inputs(name, **sizes):
    """A random model of the architecture, and inputs that fit."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **{**CONFIGS[name], **sizes})
    model = AutoModel.from_config(config).eval()
    for p in model.parameters():  # norms start at one and biases at zero, which would hide mistakes
        p.data += 0.02 * torch.randn_like(p)
    ids = torch.randint(3, 100, (2, 13))
    mask = torch.ones_like(ids)
    if name in (
        "albert",
        "bert",
        "distilbert",
        "electra",
        "mpnet",
        "roberta",
        "deberta-v2",
        "xlm-roberta",
    ):
        mask[1, 9:] = 0
    text = {"input_ids": ids, "attention_mask": mask}
    pixels = {"pixel_values": torch.randn(2, 3, 32, 32)}
    given = {
        "clip": {**text, **pixels},
        "bart": {**text, "decoder_input_ids": ids[:, :7]},
        "t5": {**text, "decoder_input_ids": ids[:, :7]},
        "wav2vec2": {"input_values": torch.randn(2, 160)},
        "whisper": {"input_features": torch.randn(2, 20, 60), "decoder_input_ids": ids[:, :7]},
    }
    images = (
        "convnext",
        "deit",
        "dinov2",
        "mobilenet_v2",
        "resnet",
        "siglip_vision_model",
        "swin",
        "vit",
    )
    return Wrapped(model).eval(), given.get(name, pixels if name in images else text)


def check(name):
    """What happened: error against eager, or why it does not compile."""
    start = time.time()
    module, inputs = model_and_inputs(name)
    with torch.no_grad():
        want = module(**inputs)
    try:
        program = ree.compile(module, inputs)
        have = program(**inputs)
    except ReeError as e:
        return {"ok": False, "why": str(e), "items": list(getattr(e, "items", ()))}
    have = have if isinstance(have, tuple) else (have,)
    error = 0.0
    for a, b in zip(have, want, strict=True):
        assert a.shape == b.shape, (name, a.shape, b.shape)
        assert a.dtype == b.dtype, (name, a.dtype, b.dtype)
        if b.is_floating_point():
            top = b.abs().max().item() or 1.0
            error = max(error, (a - b).abs().max().item() / top)
        else:
            assert torch.equal(a, b), name
    return {"ok": True, "error": error, "nodes": len(program.graph.nodes),
            "seconds": round(time.time() - start, 1)}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("-o", "--output")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    results = {}
    for name in args.names or CONFIGS:
        try:
            results[name] = check(name)
        except Exception as e:  # a model that cannot even be made must not hide the others
            results[name] = {"ok": False, "why": f"{type(e).__name__}: {str(e).splitlines()[0]}"}
        print(f"{name:20} {results[name]}", flush=True)
    good = sum(r["ok"] for r in results.values())
    print(f"{good} of {len(results)}", file=sys.stderr)
    if args.output:
        import transformers

        data = {"transformers": transformers.__version__, "torch": torch.__version__, "compiled": good,
                "models": results}  # fmt: skip
        Path(args.output).write_text(json.dumps(data, indent=1) + "\n")
    return 0 if good == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
