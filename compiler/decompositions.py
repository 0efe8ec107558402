"""How torch.export takes operators apart: its own decompositions, but for those whose numeric rule is ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# kept whole by run_decompositions: their numeric rule is ours
KEEP = (
    "scaled_dot_product_attention", "linear", "matmul", "layer_norm", "rms_norm", "gelu",
    "silu", "softmax.int", "log_softmax.int", "embedding", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "max_pool1d", "max_pool2d",
    "max_pool3d", "avg_pool1d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "pad",
    "pixel_shuffle", "softplus", "baddbmm", "hardtanh", "hardswish", "hardsigmoid", "group_norm",
    "logsumexp", "elu", "roll", "one_hot", "take_along_dim", "tril", "triu", "select_scatter", "index_add",
    "index_copy", "eye", "log_sigmoid_forward", "_prelu_kernel", "sinc", "xlogy", "logit",
    "binary_cross_entropy", "std.correction", "std_mean.correction", "celu",
    "linspace.Tensor_Tensor", "linspace.Tensor_Scalar", "linspace.Scalar_Tensor",
    "logspace.Tensor_Tensor", "logspace.Tensor_Scalar", "logspace.Scalar_Tensor",
)  # fmt: skip


def decompositions() -> dict[Any, Any]:
    table = torch.export.default_decompositions()
    for op in list(table):
        name = str(op).removeprefix("aten.")
        if name in KEEP or name.split(".")[0] in KEEP:
            del table[op]
    linspace = torch.ops.aten.linspace.default
    return dict(table) | {linspace: _between_integers(table[linspace])}


def _between_integers(linspace: Callable[..., Any]) -> Callable[..., Any]:
    """Integers without rounding: eager mode cuts both ends to integers and goes on in float64, the
    decomposition does neither."""

    def decomposition(start: Any, end: Any, steps: Any, *, dtype: Any = None, **how: Any) -> Any:
        if dtype is None or dtype.is_floating_point or steps < 2:
            return linspace(start, end, steps, dtype=dtype, **how)
        first, last = int(start), int(end)
        at = torch.arange(steps, dtype=torch.int64) * (last - first) + first * (steps - 1)
        return torch.div(at, steps - 1, rounding_mode="trunc").to(dtype)

    return decomposition
