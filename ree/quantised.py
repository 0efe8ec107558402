"""Linear layers in 8-bit integers, as torch modules: W8A8, weights and activations by row.

The rule is that of compiler/passes/quantise.py; a compiled module follows it bit for bit.
"""

from __future__ import annotations

import numpy as np
import torch

from ree.compiler.passes.quantise import quantise_weight
from ree.errors import InputError
from ree.kernels.ops.quantising import GREATEST, LEAST


def quantised_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    sums: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """x times the transpose of weight * scale, x rounded to 8 bits by row.

    x: float32 [..., K]; weight: int8 [N, K]; scale, bias: float32 [N]; sums: float32 [N], of the weight's rows.
    Returns float32 [..., N]. A row with an element that is not finite is NaN.
    """
    rows = x.reshape(-1, x.shape[-1])
    high, low = (end(-1, keepdim=True) * 0.5 for end in (rows.amax, rows.amin))
    middle, top = high + low, (high - low).clamp(min=LEAST)
    q = ((rows - middle) * (GREATEST / top)).round().clamp(-GREATEST, GREATEST).to(torch.int8)
    step = top / GREATEST  # ahead of the product, so that what follows is done on its results
    y = torch.addcmul(torch._int_mm(q, weight.t()).float() * step, sums, middle) * scale
    y = y.reshape(*x.shape[:-1], weight.shape[0])
    return y if bias is None else y + bias


class QuantisedLinear(torch.nn.Module):  # type: ignore[misc]
    """A `torch.nn.Linear` whose weights are bytes with a scale a row.

    Buffers: weight int8 [N, K]; scale, sums float32 [N]; bias float32 [N] or None.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    sums: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, linear: torch.nn.Linear) -> None:
        """Of a trained layer; InputError for a weight that is not finite."""
        super().__init__()
        weight = linear.weight.detach().float().numpy()
        if not np.isfinite(weight).all():
            raise InputError("a weight that is not finite")
        for name, x in zip(("weight", "scale", "sums"), quantise_weight(weight), strict=True):
            self.register_buffer(name, torch.from_numpy(x))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: float32 [..., K]; float32 [..., N]."""
        return quantised_linear(x, self.weight, self.scale, self.sums, self.bias)


__all__ = ["QuantisedLinear", "quantised_linear"]
