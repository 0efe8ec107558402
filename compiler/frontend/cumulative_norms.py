"""Batch norms with momentum=None, whose running statistics weigh batch t by 1/t."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType

import torch
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def cumulative_norms(model: torch.nn.Module) -> Iterator[None]:
    """While this lasts, the count of batches, which torch reads as a Python number, stays a tensor."""
    norms = [
        m for m in model.modules()
        if isinstance(m, _BatchNorm) and type(m).forward is _BatchNorm.forward
        and "forward" not in vars(m)  # that the user gave to this one module
        and m.momentum is None and m.training and m.num_batches_tracked is not None
    ]  # fmt: skip
    for m in norms:
        m.forward = MethodType(_forward, m)
    try:
        yield
    finally:
        for m in norms:
            del m.forward


def _forward(self: _BatchNorm, x: torch.Tensor) -> torch.Tensor:
    self._check_input_dim(x)
    self.num_batches_tracked.add_(1)
    share = 1.0 / self.num_batches_tracked.to(torch.float32)
    axes = [i for i in range(x.dim()) if i != 1]
    variance, mean = torch.var_mean(x.detach().to(torch.float32), axes)
    for old, new in ((self.running_mean, mean), (self.running_var, variance)):
        old.copy_((old * (1.0 - share) + new * share).to(old.dtype))
    y: torch.Tensor = F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
    return y
