"""What a loss divides by that follows from the batch alone: numbers of targets, sums of masks and weights.

Mean losses over parts of a batch weigh as the loss of the whole only where these are equal.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from ree.compiler.frontend.origins import origin_of
from ree.compiler.frontend.watch import at
from ree.errors import InputError

_DIVISOR = {"aten.div.Tensor": 1, "aten.true_divide.Tensor": 1, "aten.reciprocal.default": 0}


class Divisors:
    """The numbers that an exported loss divides by, of any batch; `varying` names placeholders that training
    changes, and what depends on them is left out."""

    def __init__(self, program: torch.export.ExportedProgram, varying: Collection[str]) -> None:
        signature = program.graph_signature
        data = {**dict(program.state_dict), **dict(program.constants)}
        places = {
            **signature.inputs_to_parameters, **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }  # fmt: skip
        self._inputs = list(signature.user_inputs)
        self._fixed = {
            name: data[target].detach() for name, target in places.items() if name not in varying
        }
        known = {*self._inputs, *self._fixed}  # nodes that follow from batch and fixed tensors
        of_batch, counted = set(self._inputs), set[str]()
        divisors: list[torch.fx.Node] = []
        for node in program.graph.nodes:
            before = {n.name for n in node.all_input_nodes}
            if node.op == "call_function" and before <= known:
                known.add(node.name)
                of_batch |= {node.name} if before & of_batch else set()
            if node.name in of_batch and (_whole(node) or before & counted):
                counted.add(node.name)
            place = _DIVISOR.get(str(node.target))
            by = None if place is None else node.args[place]
            if isinstance(by, torch.fx.Node) and by.name in of_batch and _is_number(by):
                divisors.append(by)
        self._divisors = [(n.name, n.name in counted) for n in dict.fromkeys(divisors)]
        needed = {n for n, _ in self._divisors}
        self._nodes: list[torch.fx.Node] = []
        for node in reversed(program.graph.nodes):
            if node.name in needed and node.op == "call_function":
                needed |= {n.name for n in node.all_input_nodes}
                self._nodes.insert(0, node)

    def __bool__(self) -> bool:
        return bool(self._divisors)

    def differ(self, parts: Sequence[Sequence[torch.Tensor]]) -> bool:
        """Whether parts of a batch are divided by different numbers: counts, or sums of weights that integers
        choose. What a float tensor is scaled by counts where it is a whole number, as sums of masks are."""
        rows = [self._numbers(p) for p in parts]
        for (_, counted), values in zip(self._divisors, zip(*rows, strict=True), strict=True):
            if len(set(values)) > 1 and (counted or all(v == int(v) for v in values)):
                return True
        return False

    def _numbers(self, batch: Sequence[torch.Tensor]) -> list[float]:
        env: dict[str, Any] = {**self._fixed, **dict(zip(self._inputs, batch, strict=True))}
        with torch.no_grad():
            for node in self._nodes:
                args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda n: env[n.name])
                try:
                    env[node.name] = node.target(*args, **kwargs)
                except Exception as e:  # torch raises many types for values that do not fit
                    said = str(e).splitlines()[:1] or [type(e).__name__]
                    raise InputError(
                        "what the loss divides by cannot be computed"
                        f"{at(origin_of(node).location)}: {said[0][:200]}"
                    ) from e
        return [float(env[name]) for name, _ in self._divisors]


def _value(node: torch.fx.Node) -> Any:
    return node.meta.get("val")


def _is_number(node: torch.fx.Node) -> bool:
    v = _value(node)
    return isinstance(v, torch.Tensor) and v.numel() == 1


def _whole(node: torch.fx.Node) -> bool:
    """Whether a node is a tensor of integers or truth values."""
    v = _value(node)
    return isinstance(v, torch.Tensor) and not (v.is_floating_point() or v.is_complex())
