"""The registry, complete: importing this module registers every operator of the contract."""

from __future__ import annotations

from ree.kernels import (  # noqa: F401
    attention_op,
    bitcasts,
    casts,
    contraction,
    convolution,
    gather,
    movement,
    norms,
    pointwise,
    pooling,
    random,
    reductions,
    scan,
    scatter,
    sorting,
)
from ree.kernels.opdef import Form, OpDef, get, names

__all__ = ["Form", "OpDef", "get", "names"]
