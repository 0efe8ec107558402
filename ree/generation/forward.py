"""A causal language model as one program: tokens at positions and caches of keys and values in, logits out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, Cache

from ree.compilation import compile
from ree.compiler.ir import Graph
from ree.errors import CaptureError, UnsupportedError
from ree.generation.layers import NotAlike, layers_of, only_first, repeated
from ree.generation.layout import CACHES, INPUTS, cache_names
from ree.generation.programs import Forward
from ree.generation.source import BY_LAYER, FULL, SLIDING, WINDOWED
from ree.kernels.opdef import Array
from ree.program import Names, Program

ATTENTION = "ree"
CHECKED = 9  # tokens whose logits are compared with the model's
TOLERANCE = 1e-3  # of the greatest
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
        self._attention = model.config._attn_implementation
        model.set_attn_implementation(ATTENTION)
        self.model = model
        self._rows: list[torch.Tensor] = []  # of the call under way, for the hook
        head = model.get_output_embeddings()
        self._hook = head.register_forward_pre_hook(lambda m, args: (self._chosen(args[0]),))

    def detach(self) -> None:
        """Leave the model as it was."""
        self._hook.remove()
        self.model.set_attn_implementation(self._attention)

    def _chosen(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden[torch.arange(hidden.shape[0])[:, None], self._rows[-1]]

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
        masks = {FULL: seen}
        window = getattr(config, "sliding_window", None)
        if window is not None:
            masks[SLIDING] = seen & (key > at - window)
        # in a list: an attribute that a call sets anew has the model captured twice, to see whether it matters
        self._rows.append(rows)
        out = self.model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=_mask_of(config, masks),
            past_key_values=cache,
            use_cache=True,
        )
        self._rows.pop()
        return (*cache.tensors, out.logits)

    def cache_shapes(self) -> list[tuple[int, int]]:
        """(heads, width) of every cache, as a call of the model fills it."""
        found = _Recorded()
        seen = torch.ones(1, 1, 1, 1, dtype=torch.bool)
        token = torch.zeros(1, 1, dtype=torch.int64)
        self._rows.append(token)
        masks = {FULL: seen, SLIDING: seen}
        with torch.no_grad():
            self.model(input_ids=token, position_ids=token, attention_mask=_mask_of(self.model.config, masks),
                       past_key_values=found, use_cache=True)  # fmt: skip
        self._rows.pop()
        return found.shapes


def _mask_of(config: Any, masks: dict[str, torch.Tensor]) -> Any:
    """What the model takes as its mask: one, or one for each kind of its layers."""
    if config.model_type in BY_LAYER:
        return masks
    whole = masks[FULL]
    return masks.get(SLIDING, whole) if config.model_type in WINDOWED else whole


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


def compile_forward(model: Any, context: int, files: dict[str, bytes]) -> Program:
    """The program of a transformers causal language model in evaluation mode, for contexts of up to `context`
    positions; `files` travel with it.

    Raises CaptureError, UnsupportedError, and CaptureError where its logits are not the model's.
    """
    found = layers_of(model)
    program = None
    if found is not None:
        name, layers = found
        with only_first(model, name):
            captured = _captured(model)
        by_name = dict(zip(captured.names.weights, captured.weights, strict=True))
        with suppress(NotAlike):
            tensors = {f"model.{n}": t for n, t in tensors_of(model).items()}
            graph, weights = repeated(
                captured.graph, by_name, tensors, f"model.{name}", len(layers)
            )
            program = _named(graph, weights, files)
    if program is None:
        captured = _captured(model)
        weights = dict(zip(captured.names.weights, captured.weights, strict=True))
        program = _named(captured.graph, weights, files)
    _compare(program, model)
    return program


def _named(graph: Graph, weights: Mapping[str, Array], files: dict[str, bytes]) -> Program:
    caches = cache_names((len(graph.inputs) - len(INPUTS)) // CACHES)
    outputs = (*(f"new.{n}" for n in caches), "logits")
    names = Names((*INPUTS, *caches), outputs, tuple(weights))
    return Program(graph, names, list(weights.values()), files=files)


def _captured(model: Any) -> Program:
    module = CausalForward(model)
    # sizes that differ, so that no two axes are taken for one
    slots, queries, capacity, rows = 3, 5, 24, 2
    caches = [torch.zeros(slots, capacity, *shape) for shape in module.cache_shapes()]
    positions = torch.arange(queries).expand(slots, queries).contiguous()
    example = (torch.zeros(slots, queries, dtype=torch.int64), positions,
               torch.zeros(slots, rows, dtype=torch.int64), torch.full((slots,), capacity),
               *caches)  # fmt: skip
    b, q, r, c = (torch.export.Dim(n, max=m) for n, m in (("b", SLOTS), ("q", QUERIES), ("r", QUERIES),
                                                          ("c", CAPACITY)))  # fmt: skip
    dynamic = {"tokens": {0: b, 1: q}, "positions": {0: b, 1: q}, "rows": {0: b, 1: r}, "limit": {0: b},
               "caches": tuple({0: b, 1: c} for _ in caches)}  # fmt: skip
    try:
        return compile(module, example, dynamic_shapes=dynamic)
    finally:
        module.detach()


def tensors_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A module's parameters and buffers by name."""
    return dict(module.named_parameters(remove_duplicate=False)) | dict(
        module.named_buffers(remove_duplicate=False)
    )


def _compare(program: Program, model: Any) -> None:
    """CaptureError unless the program gives the model's logits on some tokens, but for rounding."""
    n, forward = CHECKED, Forward(program)
    tokens = np.random.default_rng(0).integers(0, forward.vocabulary, (1, n))
    at = np.arange(n, dtype=np.int64)[None]
    caches = [np.zeros((1, n, *shape), np.float32) for shape in forward.cache_shapes]
    got = program.run(tokens, at, at, np.array([n]), *caches).outputs[-1]
    with torch.no_grad():
        want = model(torch.from_numpy(tokens), use_cache=False).logits.numpy()
    if not np.abs(got - want).max() <= TOLERANCE * np.abs(want).max():
        raise CaptureError(
            f"the program's logits are not the model's: they differ by {np.abs(got - want).max():.3g}"
        )
