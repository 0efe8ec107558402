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
    "index_copy", "index_fill", "max_unpool2d", "max_unpool3d", "eye", "log_sigmoid_forward", "_prelu_kernel",
    "sinc", "xlogy", "logit", "logaddexp", "logaddexp2",
    "binary_cross_entropy", "std.correction", "std_mean.correction", "celu", "threshold", "lerp",
    "addcmul", "addcdiv",
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
    margin = torch.ops.aten.multilabel_margin_loss_forward.default
    return dict(table) | {
        linspace: _between_integers(table[linspace]),
        margin: _multilabel_margin_loss,
        torch.ops.aten.mse_loss.default: _mse_loss,
    }


def _mse_loss(x: torch.Tensor, y: torch.Tensor, reduction: int = 1) -> torch.Tensor:
    """In half precision the difference is rounded before it is squared."""
    d = x - y
    each = d * d
    return each if reduction == 0 else each.mean() if reduction == 1 else each.sum()


def _multilabel_margin_loss(
    x: torch.Tensor, target: torch.Tensor, reduction: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each label before the first -1 against each class that is none of them; torch's decomposition counts
    class 0 for every place from the first -1 on, and takes targets of any value."""
    shape, x, target = target.shape, torch.atleast_2d(x), torch.atleast_2d(target)
    classes = x.shape[1]
    target = torch.arange(-1, classes).index_select(0, target.reshape(-1) + 1).view(target.shape)
    at = torch.arange(classes)
    end = torch.where(target == -1, at, classes).amin(-1, keepdim=True)
    labels = torch.where(at < end, target, -1)  # [rows, labels]
    is_label = (labels.unsqueeze(-1) == at).any(1)
    scores = x.gather(1, labels.clamp(min=0)).unsqueeze(-1)
    each = (1 - scores + x.unsqueeze(1)).clamp(min=0)  # [rows, labels, classes]
    counts = (labels >= 0).unsqueeze(-1) & ~is_label.unsqueeze(1)
    loss = torch.where(counts, each, 0.0).sum((1, 2)) / classes
    loss = loss if reduction == 0 else loss.mean() if reduction == 1 else loss.sum()
    return loss if len(shape) > 1 or reduction else loss.view(()), is_label.to(x.dtype).view(shape)


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
