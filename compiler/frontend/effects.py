"""Calls without a result: checks of values, prints. A pass over a graph would drop them without a word."""

from __future__ import annotations

import torch

from ree.compiler.frontend.origins import origin_of
from ree.errors import UnsupportedError

# what torch.export itself asserts of shapes and types; their conditions are in the program's types
CHECKS = frozenset({"_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size",
                    "sym_constrain_range"})  # fmt: skip


def refuse_effects(module: torch.fx.GraphModule) -> None:
    """UnsupportedError for operators that return nothing, which act on the world or stop the run."""
    problems = []
    for part in module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            op = node.target
            if not isinstance(op, torch._ops.OpOverload) or op._schema.returns:
                continue
            name = op._schema.name.removeprefix("aten::")
            if name not in CHECKS and op.namespace != "profiler":
                problems.append(
                    f"{name} at {origin_of(node).location or 'unknown line'}: it has no result, and a "
                    "program does nothing else than compute results"
                )
    if problems:
        raise UnsupportedError(
            f"{len(problems)} operator call(s) are not supported as used", tuple(problems),
            "return what is to be checked, and check it outside",
        )  # fmt: skip
