"""The registry, complete: importing this module registers every operator and macro of the contract."""

from __future__ import annotations

from ree.kernels.opdef import Form, OpDef, get, names
from ree.kernels.ops import (  # noqa: F401
    attention,
    bitcasts,
    casts,
    contraction,
    contraction_i8,
    convolution,
    gather,
    movement,
    norms,
    pointwise,
    pooling,
    quantising,
    random,
    recurrent,
    reductions,
    sampling,
    scan,
    scatter,
    sort,
)

__all__ = ["Form", "OpDef", "get", "names"]
