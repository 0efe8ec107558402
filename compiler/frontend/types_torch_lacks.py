"""Calls on types for which torch has no kernel: eager mode raises, though a program could compute them.

A program is what the user wrote; where that is an error it is one here, when the model is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple

import torch

from ree.compiler.frontend.origins import origin_of
from ree.errors import UnsupportedError

BOOL = frozenset({torch.bool})
HALVES = frozenset({torch.float16, torch.bfloat16})
INTEGERS = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})
WHOLE = INTEGERS | BOOL


class Lack(NamedTuple):
    """Types that operands of a call must not have: the one in which they meet, or `each`; `word`: only if it is
    among the arguments."""

    types: frozenset[torch.dtype]
    operands: tuple[int, ...] = (0,)
    each: bool = False
    word: str = ""


_SHORT = WHOLE - {torch.int64}  # of indices that must be int64
_NO_BYTES = INTEGERS - {torch.uint8}
LACKS = {
    "logaddexp": Lack(WHOLE, (0, 1)), "logaddexp2": Lack(WHOLE, (0, 1)), "smooth_l1_loss": Lack(WHOLE, (0, 1)),
    "huber_loss": Lack(WHOLE, (0, 1), each=True), "sub": Lack(BOOL, (0, 1), each=True),
    "rsub": Lack(BOOL, (0, 1), each=True), "cdist": Lack(HALVES), "pdist": Lack(HALVES),
    "_cdist_forward": Lack(HALVES), "_pdist_forward": Lack(HALVES), "glu": Lack(WHOLE), "prelu": Lack(WHOLE),
    "hardshrink": Lack(WHOLE), "frac": Lack(WHOLE), "im2col": Lack(WHOLE), "max_unpool2d": Lack(WHOLE),
    "max_unpool3d": Lack(WHOLE), "max_pool2d_with_indices_backward": Lack(WHOLE), "nll_loss": Lack(WHOLE),
    "nll_loss_nd": Lack(WHOLE), "nll_loss2d": Lack(WHOLE), "nll_loss_forward": Lack(WHOLE),
    "nll_loss2d_forward": Lack(WHOLE), "cross_entropy_loss": Lack(frozenset({torch.int32, torch.int16}), (1,)),
    "one_hot": Lack(_SHORT), "put": Lack(_SHORT, (1,)), "upsample_nearest1d": Lack(_NO_BYTES),
    "upsample_nearest2d": Lack(_NO_BYTES), "upsample_nearest3d": Lack(_NO_BYTES),
    "pad": Lack(BOOL, word="reflect"), "scatter_reduce": Lack(BOOL, word="mean"),
    **dict.fromkeys(
        ("topk", "round", "trunc", "fix", "floor", "ceil", "bucketize", "searchsorted", "trace", "dot", "vdot",
         "inner", "mv", "argmax", "argmin", "median", "nanmedian", "kthvalue"), Lack(BOOL)),
}  # fmt: skip
# operands that must have one type, for these calls promote none
_PAIRS = "matmul mm bmm mv dot vdot inner binary_cross_entropy grid_sampler grid_sampler_2d grid_sampler_3d"
_TRIPLES = """linear addmm addmv addbmm baddbmm bilinear convolution conv1d conv2d conv3d conv_transpose1d
    conv_transpose2d conv_transpose3d"""
ALIKE = {
    **dict.fromkeys(_PAIRS.split(), (0, 1)), **dict.fromkeys(_TRIPLES.split(), (0, 1, 2)),
    "index_add": (0, 3), "index_copy": (0, 3), "index_put": (0, 2),
}  # fmt: skip
# norms of half precision take parameters in float32 too
NORMS = {"layer_norm": (0, 2, 3), "group_norm": (0, 2, 3)}


def _problem(name: str, node: torch.fx.Node) -> str:
    """What eager mode refuses about a call, or nothing."""

    def types(operands: tuple[int, ...]) -> list[torch.dtype]:
        given = (node.args[i] for i in operands if i < len(node.args))
        vals = (a.meta.get("val") for a in given if isinstance(a, torch.fx.Node))
        return [v.dtype for v in vals if isinstance(v, torch.Tensor)]

    lack = LACKS.get(name)
    if lack is not None and (not lack.word or lack.word in node.args):
        found = types(lack.operands)
        met = found if lack.each else [reduce(torch.promote_types, found)] if found else []
        if refused := [t for t in met if t in lack.types]:
            return f"of {refused[0]}, for which torch has no kernel"
    alike = types(ALIKE.get(name, ()))
    of_norm = types(NORMS.get(name, ()))
    if of_norm[:1] and of_norm[0] in HALVES:
        of_norm = [of_norm[0], *(t for t in of_norm[1:] if t is not torch.float32)]
    if mixed := next((t for t in (alike, of_norm) if len(set(t)) > 1), None):
        return f"of {' and '.join(map(str, dict.fromkeys(mixed)))}: torch expects one type"
    return ""


def _autocast(part: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The regions under autocast that a graph calls, and all within them."""
    for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
        if node.target is torch.ops.higher_order.wrap_with_autocast:
            bodies = (a for a in node.args if isinstance(a, torch.fx.Node) and a.op == "get_attr")
            for body in bodies:
                yield from part.get_submodule(str(body.target)).modules()


def refuse_lacking(module: torch.fx.GraphModule) -> None:
    """UnsupportedError for calls that eager mode refuses by the types of their operands."""
    problems = []
    cast = {id(m) for part in module.modules() for m in _autocast(part)}
    for part in module.modules():
        if id(part) in cast:
            continue  # there, calls convert their operands before they look at them
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            op = node.target
            if not isinstance(op, torch._ops.OpOverload) or op.namespace != "aten":
                continue
            name = op._schema.name.removeprefix("aten::").rstrip("_")
            if what := _problem(name, node):
                problems.append(f"{name} at {origin_of(node).location or 'unknown line'}: {what}")
    if problems:
        raise UnsupportedError(
            f"{len(problems)} operator call(s) are not supported as used", tuple(problems),
            "convert what it is called with: x.float()",
        )  # fmt: skip
