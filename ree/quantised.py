"""Linear layers in 8-bit integers, as torch modules: W8A8, weights and activations by row.

The rule is that of compiler/passes/quantise.py; a compiled module follows it bit for bit.
"""

from __future__ import annotations

import torch

from ree.compiler.passes.quantise import quantise_rows
from ree.errors import InputError
from ree.kernels.ops.quantising import GREATEST, LEAST


def quantised_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """x times the transpose of weight * scale, x rounded to 8 bits by row.

    x: float32 [..., K]; weight: int8 [N, K]; scale, bias: float32 [N]. Returns float32 [..., N]. A row with an
    element that is not finite is NaN.
    """
    rows = x.reshape(-1, x.shape[-1])
    top = rows.abs().amax(-1, keepdim=True).clamp(min=LEAST)
    q = (rows * (GREATEST / top)).round().to(torch.int8)
    step = top / GREATEST  # ahead of the product, so that what follows is done on its results
    y = torch._int_mm(q, weight.t()).float() * step * scale
    y = y.reshape(*x.shape[:-1], weight.shape[0])
    return y if bias is None else y + bias


class QuantisedLinear(torch.nn.Module):  # type: ignore[misc]
    """A `torch.nn.Linear` whose weights are bytes with a scale a row.

    Buffers: weight int8 [N, K], scale float32 [N], bias float32 [N] or None.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, linear: torch.nn.Linear) -> None:
        """Of a trained layer; InputError for a weight that is not finite."""
        super().__init__()
        try:
            weight, scale = quantise_rows(linear.weight.detach().float().numpy())
        except ValueError as e:
            raise InputError(str(e)) from e
        self.register_buffer("weight", torch.from_numpy(weight))
        self.register_buffer("scale", torch.from_numpy(scale))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: float32 [..., K]; float32 [..., N]."""
        return quantised_linear(x, self.weight, self.scale, self.bias)


__all__ = ["QuantisedLinear", "quantised_linear"]
