"""Numbers beside narrow types: torch takes some to the tensor's own type before it computes."""

from __future__ import annotations

import torch
from torch import fx
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND, elementwise_dtypes

from ree.compiler.frontend.importer import RefusedCall

NO_OPMATH = ELEMENTWISE_TYPE_PROMOTION_KIND.NO_OPMATH
HALVES = (torch.float16, torch.bfloat16)
NARROW = (torch.int32, torch.int16, torch.int8, torch.uint8)

# calls that take their operands to the type in which they meet; others compute with them as they are
COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}
REMAINDERS = {"fmod", "remainder"}
OF_HALVES = COMPARISONS | REMAINDERS | {
    "mul", "div", "floor_divide", "add", "sub", "rsub", "pow", "atan2", "hypot", "xlogy",
    "logaddexp", "logaddexp2", "addcmul", "addcdiv", "lerp",
}  # fmt: skip
# these stay float32 beside half precision where they are numbers or of rank 0
WIDE_OPERANDS = {("mul", 1), ("div", 1), ("floor_divide", 1), ("lerp", 2)}
OF_INTEGERS = COMPARISONS | REMAINDERS | {"floor_divide", "div", "maximum", "minimum"}
# these raise in torch for a number that the type cannot hold; a negative one wraps if the type has no sign
CHECKED = {"clamp", "clamp_min", "clamp_max", "where", "masked_fill", "pow", "fill"}
SPACES = ("linspace.", "logspace.")
MADE = {"scalar_tensor", "full", "full_like"}  # so do these, of their result's type


def meeting(node: fx.Node, name: str) -> torch.dtype | None:
    """The half or narrow integer type to which a call takes its operands, or None."""
    call = name.split(".")[0]
    if call in MADE:
        made = node.meta["val"].dtype
        return made if made in NARROW else None
    vals = [a.meta.get("val") if isinstance(a, fx.Node) else a for a in node.args]
    tensors = [t for t in vals if isinstance(t, torch.Tensor)]
    if call in OF_HALVES:
        operands = [*tensors, *(v for v in vals if isinstance(v, int | float))]
        _, met = elementwise_dtypes(*operands, type_promotion_kind=NO_OPMATH)
        if met in HALVES:
            return met
    dtypes = {t.dtype for t in tensors if t.dim()} or {t.dtype for t in tensors}
    numbers = [a for a in node.args if isinstance(a, float)]
    floating = numbers or any(t.dtype.is_floating_point for t in tensors)
    whole = dtypes - {torch.bool}
    if call == "div" and node.kwargs.get("rounding_mode") is None:
        return None  # true division is in float32
    if call in OF_INTEGERS | CHECKED and not floating and len(whole) == 1 and whole <= set(NARROW):
        return whole.pop()
    return None


def operands_asked(name: str, args: tuple[object, ...]) -> range:
    """Which arguments a call with dtype= takes to that type: of a space both ends, unless it is one number."""
    if name.startswith(SPACES):
        return range(0 if args[2] == 1 else 2)
    return range(min(1, len(args)))


def stays_wide(name: str, at: int, value: object) -> bool:
    """Whether operand `at` of a call on half precision is not rounded to it first."""
    call = name.split(".")[0]
    if isinstance(value, fx.Node):
        value = value.meta.get("val")
    number = isinstance(value, int | float) or (isinstance(value, torch.Tensor) and not value.dim())
    return number and (call, at) in WIDE_OPERANDS


def taken(number: int | float, dtype: torch.dtype, name: str) -> int | float:
    """A number as dtype holds it; Refused where torch raises."""
    if dtype in HALVES:
        return float(torch.tensor(number, dtype=dtype))
    if isinstance(number, float):
        return number
    i = torch.iinfo(dtype)
    least = i.min or -i.max
    if name.split(".")[0] in CHECKED | MADE and not least <= number <= i.max:
        raise RefusedCall(f"{number} cannot be converted to {dtype}")
    return int(torch.tensor(number, dtype=torch.int64).to(dtype))


__all__ = ["HALVES", "SPACES", "meeting", "operands_asked", "stays_wide", "taken"]
