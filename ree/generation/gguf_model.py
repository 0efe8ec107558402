"""What a GGUF file says of a model, in the words of transformers: configuration, weights, tokenizer.

A key or tensor whose meaning is not known here is refused: left out, it would change the model in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ree.errors import ReeError
from ree.generation.gguf_file import GgufFile
from ree.generation.narrow import NarrowMatrix

# keys below the architecture's name -> names of the configuration
_SIZES = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
    "attention.key_length": "head_dim",
}
_CHECKED = ("attention.value_length", "rope.dimension_count", "rope.scaling.type")
_IGNORED = ("general.", "quantize.", "tokenizer.")
_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NORMS_OF_GEMMA = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_EXPERTS = {"ffn_gate_inp": "mlp.gate", "ffn_gate_exps": "mlp.experts.{}.gate_proj",
            "ffn_up_exps": "mlp.experts.{}.up_proj", "ffn_down_exps": "mlp.experts.{}.down_proj"}  # fmt: skip
_EXPERTS_OF_QWEN2 = _EXPERTS | {
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate", "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj", "ffn_down_shexp": "mlp.shared_expert.down_proj",
}  # fmt: skip
_EXPERTS_OF_MIXTRAL = {
    "ffn_gate_inp": "block_sparse_moe.gate", "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
    "ffn_up_exps": "block_sparse_moe.experts.{}.w3", "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
}  # fmt: skip
_SIZES_OF_GPT2 = {
    "block_count": "n_layer", "context_length": "n_positions", "embedding_length": "n_embd",
    "feed_forward_length": "n_inner", "attention.head_count": "n_head", "vocab_size": "vocab_size",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}  # fmt: skip
_WINDOW = {"attention.sliding_window": "sliding_window"}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}


@dataclass(frozen=True)
class _Architecture:
    model_type: str
    block: Mapping[str, str]
    rotary_pairs: bool = (
        False  # q and k lie as (real, imaginary) pairs, as ggml's rotation reads them
    )
    norms_plus_one: bool = False  # weights of norms are stored with the 1 that transformers adds
    sizes: Mapping[str, str] = field(default_factory=lambda: _SIZES)
    tensors: Mapping[str, str] = field(default_factory=lambda: _TENSORS)  # outside of layers
    layers: str = "model.layers"
    # of a layer: matrices that transformers keeps by columns
    transposed: frozenset[str] = frozenset()
    # layers of the model whose scores are scaled by the width over the heads, others' by a head's own
    largest: int | None = None


ARCHITECTURES = {
    "llama": _Architecture("llama", _BLOCK, rotary_pairs=True),
    "mixtral": _Architecture("mixtral", _BLOCK | _EXPERTS_OF_MIXTRAL, rotary_pairs=True, sizes={
        **_SIZES, "expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"}),
    "qwen2": _Architecture("qwen2", _BLOCK),
    "qwen2moe": _Architecture("qwen2_moe", _BLOCK | _EXPERTS_OF_QWEN2, sizes={
        **_SIZES, "expert_count": "num_experts", "expert_used_count": "num_experts_per_tok",
        "expert_feed_forward_length": "moe_intermediate_size",
        "expert_shared_feed_forward_length": "shared_expert_intermediate_size"}),
    "qwen3": _Architecture("qwen3", _BLOCK | _HEAD_NORMS),
    "gemma2": _Architecture("gemma2", _BLOCK | _NORMS_OF_GEMMA, norms_plus_one=True, largest=46, sizes={
        **_SIZES, **_WINDOW, "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping"}),
    "gemma3": _Architecture("gemma3_text", _BLOCK | _HEAD_NORMS | _NORMS_OF_GEMMA, norms_plus_one=True,
                            largest=62, sizes=_SIZES | _WINDOW),
    "phi3": _Architecture("phi3", _BLOCK | {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
                          sizes={
        **_SIZES, **_WINDOW, "rope.scaling.original_context_length": "original_max_position_embeddings"}),
    "gpt2": _Architecture(
        "gpt2", {"attn_norm": "ln_1", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj",
                 "ffn_norm": "ln_2", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        sizes=_SIZES_OF_GPT2, layers="transformer.h",
        tensors={"token_embd": "transformer.wte", "position_embd": "transformer.wpe",
                 "output_norm": "transformer.ln_f", "output": "lm_head"},
        transposed=frozenset({"attn_qkv", "attn_output", "ffn_up", "ffn_down"})),
}  # fmt: skip


class GgufModel:
    """A GGUF file as a model of transformers.

    `config` as config.json has it; `tokens` the vocabulary; `weights(take)` gives each tensor to
    `take(name, array, matrix)`: float32, and as the file keeps it or None.
    """

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.name = str(file.path)
        arch = self.get("general.architecture", str)
        kind = "mixtral" if arch == "llama" and "llama.expert_count" in file.metadata else arch
        if arch not in ARCHITECTURES or arch == "mixtral":
            raise ReeError(
                f"{self.name}: architecture {arch} is not supported in GGUF",
                f"supported: {', '.join(k for k in ARCHITECTURES if k != 'mixtral')}",
            )
        self.arch, self.prefix = ARCHITECTURES[kind], arch
        self.tokens: list[str] = self.get("tokenizer.ggml.tokens", list)
        self.config = self._config()

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """A value of the metadata; ReeError if it is of another type, or missing without a default."""
        value = self.file.metadata.get(key, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise ReeError(f"{self.name}: key {key} is missing or of another type")
        return value

    def _config(self) -> dict[str, Any]:
        own = self.prefix + "."
        config: dict[str, Any] = {
            "model_type": self.arch.model_type,
            "vocab_size": len(self.tokens),
            "pad_token_id": self.token_id("padding"),
        }
        for key, value in self.file.metadata.items():
            if key.startswith(_IGNORED):
                continue
            short, sizes = key.removeprefix(own), self.arch.sizes
            if short in sizes and key.startswith(own) and isinstance(value, int | float):
                config[sizes[short]] = value
            elif short not in _CHECKED or not key.startswith(own):
                raise ReeError(f"{self.name}: key {key} is not supported")
        sizes = self.arch.sizes
        width, heads = (config.get(sizes[k]) for k in ("embedding_length", "attention.head_count"))
        if not isinstance(width, int) or not isinstance(heads, int) or heads < 1:
            raise ReeError(
                f"{self.name}: keys {own}embedding_length and {own}attention.head_count are needed"
            )
        head = config.get("head_dim", width // heads)
        if "attention.key_length" in sizes:
            config["head_dim"] = head
        for key, want in zip(_CHECKED, (head, head, "none"), strict=True):
            if (have := self.file.metadata.get(own + key, want)) != want:
                raise ReeError(f"{self.name}: key {own}{key} is {have}, expected {want}")
        if config["vocab_size"] != len(self.tokens):
            raise ReeError(
                f"{self.name}: {len(self.tokens)} tokens, but a vocabulary of {config['vocab_size']}"
            )
        if self.arch.largest is not None:
            most = config.get("num_hidden_layers") == self.arch.largest
            config["query_pre_attn_scalar"] = width // heads if most else head
        if config.get("sliding_window") == 0:  # written where there is none
            config["sliding_window"] = None
        config["tie_word_embeddings"] = "output.weight" not in self.file.tensors
        return config

    def weights(
        self, take: Callable[[str, NDArray[np.float32], NarrowMatrix | None], None]
    ) -> None:
        for name in self.file.tensors:
            m = re.fullmatch(r"(?:blk\.(\d{1,4})\.)?(\w+)\.(weight|bias)", name)
            stem = m and (self.arch.tensors if m[1] is None else self.arch.block).get(m[2])
            if not m or not stem:
                raise ReeError(f"{self.name}: tensor {name} is not known in {self.prefix}")
            matrix = self.file.narrow(name)
            value = self.file.array(name)
            if self.arch.rotary_pairs and m[2] in ("attn_q", "attn_k"):
                value = self._halves(name, value, m[2])
                matrix = matrix and matrix.rows(partial(self._halves, name, which=m[2]))
            if self.arch.norms_plus_one and stem.endswith("norm"):
                value = value - np.float32(1)
            layer = "" if m[1] is None else f"{self.arch.layers}.{int(m[1])}."
            if m[3] == "weight" and m[1] is not None and m[2] in self.arch.transposed:
                value, matrix = np.ascontiguousarray(value.T), None
            if "{}" not in stem:
                row = m[2] == "ffn_gate_inp_shexp"  # kept without its length of 1
                take(
                    f"{layer}{stem}.{m[3]}",
                    value.reshape(1, -1) if row else value,
                    None if row else matrix,
                )
                continue
            if (count := self.config.get(self.arch.sizes["expert_count"])) != len(value):
                raise ReeError(
                    f"{self.name}: tensor {name} has {len(value)} experts, expected {count}"
                )
            for expert, part in enumerate(value):
                take(f"{layer}{stem.format(expert)}.{m[3]}", np.ascontiguousarray(part), None)

    def _halves(self, name: str, value: NDArray[Any], which: str) -> NDArray[Any]:
        """Rows of a head from pairs to halves, the order in which transformers rotates."""
        heads = self.config["num_attention_heads" if which == "attn_q" else "num_key_value_heads"]
        if not isinstance(heads, int) or heads < 1 or value.shape[0] % (2 * heads):
            raise ReeError(
                f"{self.name}: tensor {name} has {value.shape[0]} rows for {heads} heads"
            )
        pairs = value.reshape(heads, value.shape[0] // heads // 2, 2, *value.shape[1:])
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(value.shape)

    def token_id(self, role: str) -> int | None:
        """The id of a special token ("bos", "eos", "eot", "padding", ...), or None."""
        key = f"tokenizer.ggml.{role}_token_id"
        if key not in self.file.metadata:
            return None
        at: int = self.get(key, int)
        if not 0 <= at < len(self.tokens):
            raise ReeError(f"{self.name}: key {key} is {at}, there are {len(self.tokens)} tokens")
        return at

    def chat_template(self) -> str | None:
        key = "tokenizer.chat_template"
        return self.get(key, str) if key in self.file.metadata else None
