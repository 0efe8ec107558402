"""A causal language model as one program: tokens at positions and caches of keys and values in, logits out."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, Cache

from ree.compilation import compile
from ree.errors import UnsupportedError
from ree.generation.layout import CACHES, INPUTS, cache_names
from ree.program import Names, Program

ATTENTION = "ree"
# model types that take a mask for each kind of layer
BY_LAYER = frozenset({"gemma2", "gemma3_text", "qwen2", "qwen2_moe", "qwen3"})
# the axes that stay open, with the greatest size of each
SLOTS, QUERIES, CAPACITY = 256, 4096, 1 << 20


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **ignored: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of heads that share keys, without copies of the keys; written out where scores are capped."""
    if softcap is None:
        y = torch.nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        return y.transpose(1, 2).contiguous(), None
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, 1) for x in (key, value))
    scores = torch.matmul(query, key.transpose(2, 3)) * (scaling or query.shape[-1] ** -0.5)
    scores = torch.tanh(scores / softcap) * softcap
    weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), -1)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attention)


class _Tensors(Cache):  # type: ignore[misc]
    """The caches of one call: each new key and value is written at its position, zero from `limit` on."""

    def __init__(
        self, tensors: tuple[torch.Tensor, ...], positions: torch.Tensor, limit: torch.Tensor
    ) -> None:
        self.layers: list[Any] = []
        self.tensors = list(tensors)
        self._rows = torch.arange(positions.shape[0])[:, None]
        self._positions = positions
        self._kept = (positions < limit[:, None])[:, :, None, None]

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        key, value = (
            self._write(CACHES * layer_idx + i, x) for i, x in enumerate((key_states, value_states))
        )
        return key, value

    def _write(self, i: int, new: torch.Tensor) -> torch.Tensor:
        """New entries [slots, heads, queries, width] in cache i, as attention reads it."""
        new = torch.where(self._kept, new.transpose(1, 2), 0.0)
        self.tensors[i] = self.tensors[i].index_put((self._rows, self._positions), new)
        return self.tensors[i].transpose(1, 2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


class CausalForward(torch.nn.Module):  # type: ignore[misc]
    """forward(tokens, positions, rows, limit, *caches) -> (*new caches, logits).

    tokens, positions: i64 [slots, queries]; rows: i64 [slots, r], the queries whose logits are wanted;
    limit: i64 [slots], position from which on zeros are written; caches: f32 [slots, capacity, key heads,
    width], keys and values of each layer. Query i of a slot sees the positions up to its own, `window` of
    them where a layer has one. logits: f32 [slots, r, vocabulary].
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        model.set_attn_implementation(ATTENTION)
        self.model = model
        self._rows: torch.Tensor | None = None
        head = model.get_output_embeddings()
        self._hook = head.register_forward_pre_hook(lambda m, args: (self._chosen(args[0]),))

    def _chosen(self, hidden: torch.Tensor) -> torch.Tensor:
        assert self._rows is not None
        return hidden[torch.arange(hidden.shape[0])[:, None], self._rows]

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        rows: torch.Tensor,
        limit: torch.Tensor,
        *caches: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        cache, config = _Tensors(caches, positions, limit), self.model.config
        key = torch.arange(caches[0].shape[1])[None, None, None, :]
        at = positions[:, None, :, None]
        seen = key <= at
        masks = {"full_attention": seen}
        window = getattr(config, "sliding_window", None)
        if window is not None:
            masks["sliding_attention"] = seen & (key > at - window)
        self._rows = rows
        out = self.model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=_mask_of(config, masks),
            past_key_values=cache,
            use_cache=True,
        )
        self._rows = None
        return (*cache.tensors, out.logits)

    def cache_shapes(self) -> list[tuple[int, int]]:
        """(heads, width) of every cache, as a call of the model fills it."""
        found = _Recorded()
        seen = torch.ones(1, 1, 1, 1, dtype=torch.bool)
        token = torch.zeros(1, 1, dtype=torch.int64)
        self._rows = token
        masks = {"full_attention": seen, "sliding_attention": seen}
        with torch.no_grad():
            self.model(input_ids=token, position_ids=token, attention_mask=_mask_of(self.model.config, masks),
                       past_key_values=found, use_cache=True)  # fmt: skip
        return found.shapes


def _mask_of(config: Any, masks: dict[str, torch.Tensor]) -> Any:
    """What the model takes as its mask: one, or one for each kind of its layers."""
    if config.model_type in BY_LAYER:
        return masks
    return masks.get("sliding_attention", masks["full_attention"])


def compile_forward(model: Any, context: int, files: dict[str, bytes]) -> Program:
    """The program of a transformers causal language model in evaluation mode, for contexts of up to `context`
    positions; `files` travel with it. Raises CaptureError, UnsupportedError."""
    module = CausalForward(model)
    shapes = module.cache_shapes()
    layers = len(shapes) // CACHES
    slots, queries, capacity, rows = (
        3,
        5,
        24,
        2,
    )  # different sizes, so that no two axes are taken for one
    caches = [torch.zeros(slots, capacity, *heads_and_width) for heads_and_width in shapes]
    positions = torch.arange(queries).expand(slots, queries).contiguous()
    example = (torch.zeros(slots, queries, dtype=torch.int64), positions,
               torch.zeros(slots, rows, dtype=torch.int64), torch.full((slots,), capacity),
               *caches)  # fmt: skip
    b, q, r = (
        torch.export.Dim(n, max=m) for n, m in (("b", SLOTS), ("q", QUERIES), ("r", QUERIES))
    )
    c = torch.export.Dim("c", max=CAPACITY)
    dynamic = {"tokens": {0: b, 1: q}, "positions": {0: b, 1: q}, "rows": {0: b, 1: r}, "limit": {0: b},
               "caches": tuple({0: b, 1: c} for _ in caches)}  # fmt: skip
    captured = compile(module, example, dynamic_shapes=dynamic)
    named = cache_names(layers)
    names = Names(
        (*INPUTS, *named), (*(f"new.{n}" for n in named), "logits"), captured.names.weights
    )
    return Program(captured.graph, names, captured.weights, files=files)


class _Recorded(Cache):  # type: ignore[misc]
    """What a model keeps of a token, by layer."""

    def __init__(self) -> None:
        self.layers: list[Any] = []
        self.shapes: list[tuple[int, int]] = []

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if layer_idx != len(self.shapes) // CACHES:
            raise UnsupportedError(f"layer {layer_idx} keeps its keys and values out of order", ())
        self.shapes += [(int(x.shape[1]), int(x.shape[3])) for x in (key_states, value_states)]
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0
