"""Numbers beside narrow types: torch takes some to the tensor's own type before it computes."""

from __future__ import annotations

import torch
from torch import fx

from ree.compiler.importer import Refused

HALVES = (torch.float16, torch.bfloat16)
NARROW = (torch.int32, torch.int16, torch.int8, torch.uint8)

# calls that take a number to the type in which their operands meet; others compute with it as it is
COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}
OF_HALVES = COMPARISONS | {"fmod", "remainder"}
OF_INTEGERS = OF_HALVES | {"floor_divide", "div", "maximum", "minimum"}
# these raise in torch for a number that the type cannot hold; a negative one wraps if the type has no sign
CHECKED = {"clamp", "clamp_min", "clamp_max", "where", "masked_fill", "pow", "fill"}
MADE = {"scalar_tensor", "full", "full_like"}  # so do these, of their result's type


def meeting(node: fx.Node, name: str) -> torch.dtype | None:
    """The half or narrow integer type to which a call takes its numbers, or None."""
    call = name.split(".")[0]
    if call in MADE:
        made = node.meta["val"].dtype
        return made if made in NARROW else None
    vals = [a.meta.get("val") for a in node.args if isinstance(a, fx.Node)]
    tensors = [t for t in vals if isinstance(t, torch.Tensor)]
    dtypes = {t.dtype for t in tensors if t.dim()} or {t.dtype for t in tensors}
    if call in OF_HALVES:
        floats = {d for d in dtypes if d.is_floating_point}
        if len(floats) == 1 and floats <= set(HALVES):
            return floats.pop()
    numbers = [a for a in node.args if isinstance(a, float)]
    floating = numbers or any(t.dtype.is_floating_point for t in tensors)
    whole = dtypes - {torch.bool}
    if call == "div" and node.kwargs.get("rounding_mode") is None:
        return None  # true division is in float32
    if call in OF_INTEGERS | CHECKED and not floating and len(whole) == 1 and whole <= set(NARROW):
        return whole.pop()
    return None


def taken(number: int | float, dtype: torch.dtype, name: str) -> int | float:
    """A number as dtype holds it; Refused where torch raises."""
    if dtype in HALVES:
        return float(torch.tensor(number, dtype=dtype))
    if isinstance(number, float):
        return number
    i = torch.iinfo(dtype)
    least = i.min or -i.max
    if name.split(".")[0] in CHECKED | MADE and not least <= number <= i.max:
        raise Refused(f"{number} cannot be converted to {dtype}")
    return int(torch.tensor(number, dtype=torch.int64).to(dtype))


__all__ = ["meeting", "taken"]
