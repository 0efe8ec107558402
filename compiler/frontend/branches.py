"""torch.cond: both branches are computed, and the predicate selects each result.

Branches have no effects, so the one not taken cannot be seen, whatever its values: a selection reads one side.
Nor is it heard: its indices are 0 (Importer.taken), so that none is out of range and no integer divided
by 0. Loops of other kinds have no form here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ree.compiler.frontend.aten.pairs import Pair
from ree.compiler.frontend.importer import Importer, RefusedCall
from ree.compiler.frontend.origins import origin_of
from ree.compiler.ir import Ref
from ree.errors import UnsupportedError
from ree.kernels.ops.casts import WIDE
from ree.kernels.types import DType

LOOPS = frozenset({"while_loop", "scan", "map_impl", "associative_scan"})


def is_branch(node: torch.fx.Node) -> bool:
    return node.op == "call_function" and node.target is torch.ops.higher_order.cond


def refuse_branches(module: torch.fx.GraphModule) -> None:
    """UnsupportedError for a torch.cond in what is to be differentiated."""
    for part in module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            if is_branch(node):
                line = origin_of(node).location or "unknown line"
                problem = f"torch.cond in training at {line}: gradients of both branches would mix"
                raise UnsupportedError(problem, (problem,), "torch.where selects values")


def import_branches(
    imp: Importer, node: torch.fx.Node, run: Callable[[torch.fx.GraphModule], tuple[Any, ...]]
) -> tuple[Any, ...]:
    """The results of a cond node; `run` imports a branch, whose placeholders are in imp.env."""
    predicate, *branches, operands = node.args
    assert isinstance(operands, list | tuple)
    given = [imp.env[a.name] if isinstance(a, torch.fx.Node) else a for a in operands]
    choice = imp.env[predicate.name] if isinstance(predicate, torch.fx.Node) else predicate
    if not isinstance(choice, Ref):
        raise RefusedCall("torch.cond on a size: expected a tensor as its predicate")
    choice = imp.view(imp.cast(choice, DType.BOOL), ())
    outside, around, results = imp.env, imp.taken, []
    for branch, taken in zip(branches, (choice, imp.add("logical_not", choice)), strict=True):
        assert isinstance(branch, torch.fx.Node)
        graph = outside[branch.name]
        inner = [n.name for n in graph.graph.nodes if n.op == "placeholder"]
        imp.env = dict(zip(inner, given, strict=True))
        imp.taken = taken if around is None else imp.add("logical_and", around, taken)
        try:
            results.append(run(graph))
        finally:
            imp.env, imp.taken = outside, around
    return tuple(_select(imp, choice, a, b) for a, b in zip(*results, strict=True))


def _select(imp: Importer, choice: Ref, a: Any, b: Any) -> Any:
    if isinstance(a, Pair):
        return Pair(*(_select(imp, choice, p, q) for p, q in zip(a, b, strict=True)))
    if not (isinstance(a, Ref) and isinstance(b, Ref)):
        raise RefusedCall("a branch returns something that is not a tensor")
    dtype = imp.type(a).dtype
    wide = WIDE.get(dtype, dtype)
    return imp.cast(imp.add("where", choice, imp.cast(a, wide), imp.cast(b, wide)), dtype)
