"""Drawing tokens from logits, in integers: the same token on every machine, in a compiled module or out of it.

    token = ree.sampling.sample(logits, temperature=0.7, top_p=0.9, seed=seed, position=position)

The order is vLLM's: temperature, min-p, top-k, top-p of what is left, draw; the rule is in docs/numerics.md.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ree.compiler.frontend.torch_types import torch_dtype
from ree.compiler.ir import Builder, Symbol
from ree.errors import InputError
from ree.kernels.ops.sampling import MOST_TOKENS, PARAMETERS
from ree.kernels.types import LARGEST, DType, TensorType, symbol
from ree.program import Names, Program

WORD = 2**63


def sample(
    logits: Tensor,
    *,
    temperature: Tensor | float = 1.0,
    top_p: Tensor | float = 1.0,
    min_p: Tensor | float = 0.0,
    top_k: Tensor | int = 0,
    seed: Tensor | int,
    position: Tensor | int,
    choice: Tensor | int = 0,
) -> Tensor:
    """One token, i64 [rows], for each row of logits [rows, vocabulary]; a parameter: tensor [rows] or number.

    logits have their biases, penalties and masks (-inf) already. temperature 0: the greatest. top_k 0, top_p 1,
    min_p 0: off. The draw depends on seed, position (of the token to be drawn) and choice (of several for one
    prompt) alone, not on the row's company. Nothing is refused: what parameters out of range mean is in the
    rule. InputError for shapes and types.
    """
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise InputError(f"logits: expected a tensor [rows, vocabulary], got {_said(logits)}")
    given = (temperature, top_p, min_p, top_k, seed, position, choice)
    columns = [_column(name, v, logits) for name, v in zip(PARAMETERS, given, strict=True)]
    token: Tensor = _sample(logits.float(), *columns)
    return token


def _column(name: str, v: Tensor | float, logits: Tensor) -> Tensor:
    """A parameter of each row, in the operator's type."""
    dtype = torch_dtype(PARAMETERS[name])
    kinds = (int, float) if dtype.is_floating_point else int
    if not isinstance(v, Tensor):
        whole = not dtype.is_floating_point
        if not isinstance(v, kinds) or isinstance(v, bool) or (whole and not -WORD <= v < WORD):
            what = "whole number of 64 bits" if whole else "number"
            raise InputError(f"{name}: expected a {what} or a tensor [rows], got {_said(v)}")
        return torch.full(logits.shape[:1], v, dtype=dtype, device=logits.device)
    if v.dim() != 1 or (v.dtype.is_floating_point and not dtype.is_floating_point):
        raise InputError(f"{name}: expected {dtype} [rows], got {_said(v)}")
    return v.to(dtype)


def _said(v: object) -> str:
    return f"{v.dtype} {list(v.shape)}" if isinstance(v, Tensor) else f"{v!r:.40}"


@lru_cache(maxsize=1)
def _program() -> Program:
    """The operator alone, for any rows and vocabulary."""
    b = Builder()
    b.symbols = [Symbol("rows", 0, LARGEST), Symbol("vocabulary", 1, MOST_TOKENS)]
    rows, vocabulary = symbol("rows"), symbol("vocabulary")
    sources = [b.input(TensorType(DType.F32, (rows, vocabulary)))]
    sources += [b.input(TensorType(t, (rows,))) for t in PARAMETERS.values()]
    token = b.add("sample", *sources)
    return Program(b.finish((token,)), Names(("logits", *PARAMETERS), ("token",), ()), ())


@torch.library.custom_op("ree::sample", mutates_args=())  # type: ignore[untyped-decorator]
def _sample(
    logits: Tensor, temperature: Tensor, top_p: Tensor, min_p: Tensor, top_k: Tensor, seed: Tensor,
    position: Tensor, choice: Tensor,
) -> Tensor:  # fmt: skip
    """Outside of a compiled module the operator is a program of its own, so that its bits are the same."""
    given = (logits, temperature, top_p, min_p, top_k, seed, position, choice)
    token: Any = _program().run(*(t.detach() for t in given)).outputs[0]
    return token


@_sample.register_fake  # type: ignore[untyped-decorator]
def _shape(logits: Tensor, *parameters: Tensor) -> Tensor:
    return logits.new_empty(logits.shape[:1], dtype=torch.int64)
