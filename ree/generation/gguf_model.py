"""What a GGUF file says of a model, in the words of transformers: configuration, weights, tokenizer.

A key or tensor whose meaning is not known here is refused: left out, it would change the model in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ree.errors import ReeError
from ree.generation.gguf_file import GgufFile
from ree.generation.patterns import LLAMA3, QWEN2

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
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}


@dataclass(frozen=True)
class _Architecture:
    model_type: str
    block: Mapping[str, str]
    rotary_pairs: bool = (
        False  # q and k lie as (real, imaginary) pairs, as ggml's rotation reads them
    )


ARCHITECTURES = {
    "llama": _Architecture("llama", _BLOCK, rotary_pairs=True),
    "qwen2": _Architecture("qwen2", _BLOCK),
    "qwen3": _Architecture("qwen3", {**_BLOCK, **_HEAD_NORMS}),
}


class GgufModel:
    """A GGUF file as a model of transformers.

    `config` as config.json has it; `weights(take)` gives each tensor, float32, to `take(name, array)`.
    """

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.name = str(file.path)
        arch = self._get("general.architecture", str)
        if arch not in ARCHITECTURES:
            raise ReeError(
                f"{self.name}: architecture {arch} is not supported in GGUF",
                f"supported: {', '.join(ARCHITECTURES)}",
            )
        self.arch, self.prefix = ARCHITECTURES[arch], arch
        self.tokens: list[str] = self._get("tokenizer.ggml.tokens", list)
        self.config = self._config()

    def _get(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        value = self.file.metadata.get(key, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise ReeError(f"{self.name}: key {key} is missing or of another type")
        return value

    def _config(self) -> dict[str, Any]:
        own = self.prefix + "."
        config: dict[str, Any] = {
            "model_type": self.arch.model_type,
            "vocab_size": len(self.tokens),
        }
        for key, value in self.file.metadata.items():
            if key.startswith(_IGNORED):
                continue
            short = key.removeprefix(own)
            if short in _SIZES and key.startswith(own) and isinstance(value, int | float):
                config[_SIZES[short]] = value
            elif short not in _CHECKED or not key.startswith(own):
                raise ReeError(f"{self.name}: key {key} is not supported")
        width, heads = config.get("hidden_size"), config.get("num_attention_heads")
        if not isinstance(width, int) or not isinstance(heads, int) or heads < 1:
            raise ReeError(
                f"{self.name}: keys {own}embedding_length and {own}attention.head_count are needed"
            )
        head = config.setdefault("head_dim", width // heads)
        for key, want in zip(_CHECKED, (head, head, "none"), strict=True):
            if (have := self.file.metadata.get(own + key, want)) != want:
                raise ReeError(f"{self.name}: key {own}{key} is {have}, expected {want}")
        if config["vocab_size"] != len(self.tokens):
            raise ReeError(
                f"{self.name}: {len(self.tokens)} tokens, but a vocabulary of {config['vocab_size']}"
            )
        config["tie_word_embeddings"] = "output.weight" not in self.file.tensors
        return config

    def weights(self, take: Callable[[str, NDArray[np.float32]], None]) -> None:
        for name in self.file.tensors:
            m = re.fullmatch(r"(?:blk\.(\d{1,4})\.)?(\w+)\.(weight|bias)", name)
            stem = m and (_TENSORS if m[1] is None else self.arch.block).get(m[2])
            if not m or not stem:
                raise ReeError(f"{self.name}: tensor {name} is not known in {self.prefix}")
            value = self.file.array(name)
            if self.arch.rotary_pairs and m[2] in ("attn_q", "attn_k"):
                value = self._halves(name, value, m[2])
            layer = "" if m[1] is None else f"model.layers.{int(m[1])}."
            take(f"{layer}{stem}.{m[3]}", value)

    def _halves(self, name: str, value: NDArray[np.float32], which: str) -> NDArray[np.float32]:
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
        at: int = self._get(key, int)
        if not 0 <= at < len(self.tokens):
            raise ReeError(f"{self.name}: key {key} is {at}, there are {len(self.tokens)} tokens")
        return at

    def chat_template(self) -> str | None:
        key = "tokenizer.chat_template"
        return self._get(key, str) if key in self.file.metadata else None

    def tokenizer_json(self) -> bytes:
        """The vocabulary as tokenizer.json: byte-level BPE, cut beforehand as `tokenizer.ggml.pre` says."""
        model, cut = (
            self._get("tokenizer.ggml.model", str),
            self._get("tokenizer.ggml.pre", str, "default"),
        )
        if model != "gpt2" or cut not in _CUTS:
            raise ReeError(
                f"{self.name}: a tokenizer of model {model}, cut as {cut}, is not supported in GGUF",
                f"supported: gpt2, cut as {', '.join(_CUTS)}",
            )
        kinds = self._get("tokenizer.ggml.token_type", list)
        merges = self._get("tokenizer.ggml.merges", list)
        if len(kinds) != len(self.tokens):
            raise ReeError(f"{self.name}: {len(kinds)} token types for {len(self.tokens)} tokens")
        vocab = {t: i for i, t in enumerate(self.tokens)}
        if len(vocab) != len(self.tokens) or not all(isinstance(t, str) for t in self.tokens):
            raise ReeError(f"{self.name}: a token stands in the vocabulary twice")
        pairs = [m.split(" ") if isinstance(m, str) else [] for m in merges]
        if wrong := next((m for m, p in zip(merges, pairs, strict=True) if len(p) != 2), None):
            raise ReeError(f"{self.name}: merge {str(wrong)[:40]!r} is not of two tokens")
        added = [
            {
                "id": i,
                "content": t,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": kind == _CONTROL,
            }
            for i, (t, kind) in enumerate(zip(self.tokens, kinds, strict=True))
            if kind in (_CONTROL, _USER)
        ]
        whole = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            **_CUTS[cut],
            "post_processor": self._post_processor(),
            "decoder": _BYTES | {"use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": cut == "llama-bpe",
                "vocab": vocab,
                "merges": pairs,
            },
        }
        return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()

    def _post_processor(self) -> dict[str, Any]:
        bos = self.token_id("bos")
        if not self._get("tokenizer.ggml.add_bos_token", bool, False) or bos is None:
            return _BYTES | {"use_regex": True}
        text = self.tokens[bos]
        piece = {"SpecialToken": {"id": text, "type_id": 0}}
        return {
            "type": "TemplateProcessing",
            "single": [piece, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                piece,
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {text: {"id": text, "ids": [bos], "tokens": [text]}},
        }


_CONTROL, _USER = 3, 4
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def _split(pattern: str) -> dict[str, Any]:
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [cut, _BYTES | {"use_regex": False}]}


_CUTS: dict[str, dict[str, Any]] = {
    "gpt-2": {"normalizer": None, "pre_tokenizer": _BYTES | {"use_regex": True}},
    "smollm": {
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                _BYTES | {"use_regex": True},
            ],
        },
    },
    "llama-bpe": {"normalizer": None, "pre_tokenizer": _split(LLAMA3)},
    "qwen2": {"normalizer": {"type": "NFC"}, "pre_tokenizer": _split(QWEN2)},
}
