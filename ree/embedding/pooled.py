"""The module that is compiled: a transformer's states of tokens, made one vector for each text."""

from __future__ import annotations

from typing import Any

import torch

LEAST = 1e-12  # a length that is divided by, at least, as in torch.nn.functional.normalize


class Pooled(torch.nn.Module):  # type: ignore[misc]
    """forward(tokens i64 [b,t], lengths i64 [b]) -> f32 [b,d]: the mean of the states of the first `lengths`
    tokens, or with mean false the state of the first; with unit, scaled to length 1."""

    def __init__(self, transformer: Any, mean: bool, unit: bool) -> None:
        super().__init__()
        self.transformer, self.mean, self.unit = transformer, mean, unit
        padding = transformer.config.pad_token_id
        self.padding = -1 if padding is None else int(padding)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        kept = torch.arange(tokens.shape[1])[None] < lengths[:, None]
        states = self.transformer(input_ids=tokens, attention_mask=kept.long()).last_hidden_state
        if self.mean:
            # +0 where a token is none: what is added behind a text changes no sum
            sums = torch.where(kept[:, :, None], states, 0.0).sum(1)
            vector = sums / lengths[:, None].to(states.dtype)
        else:
            vector = states[:, 0]
        if not self.unit:
            return vector
        length = torch.sqrt((vector * vector).sum(-1, keepdim=True))
        return vector / length.clamp(min=LEAST)
