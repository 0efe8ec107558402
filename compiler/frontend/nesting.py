"""The structure of a module's arguments and result, from what torch.export says of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils._pytree import TreeSpec, tree_flatten

from ree.compiler.frontend.source_lines import returned_at
from ree.compiler.frontend.structure import (
    CONSTANTS,
    MAX_DEPTH,
    NONE,
    TENSOR,
    Parameter,
    Part,
    Structure,
    is_same,
)
from ree.compiler.frontend.watch import at
from ree.errors import CaptureError


def structure_of(program: torch.export.ExportedProgram, forward: Any) -> Structure:
    """How tensors and constants nest in the arguments of `forward` and in what it returns.

    CaptureError for what cannot be kept: numbers that depend on sizes, keys that are no text or number.
    """
    signature, spec = program.graph_signature, program.call_spec
    inputs = [s.arg for s in signature.input_specs if s.kind is InputKind.USER_INPUT]
    outputs = [s.arg for s in signature.output_specs if s.kind is OutputKind.USER_OUTPUT]
    tree = spec.out_spec
    returned = returned_at(forward)
    result = _part(tree, _leaves(outputs, "output", returned), 0, returned)
    args, kwargs = spec.in_spec.children()
    leaves = _leaves(inputs, "input")
    placed = [p for p in _signature(forward) if p.kind is not p.KEYWORD_ONLY]
    defaults = {p.name: p.default for p in _signature(forward)}
    found = []
    taken: set[str] = set()
    for i, (name, child) in enumerate(
        [*enumerate(args.children()), *zip(kwargs.context or (), kwargs.children(), strict=True)]
    ):
        if isinstance(name, int):
            p = placed[min(name, len(placed) - 1)] if placed else None
            name = p.name if p and p.kind is not p.VAR_POSITIONAL else f"argument{i}"
        part = _part(child, leaves, 0)
        constant = part.kind == "constant" and name in defaults
        same = constant and is_same(defaults[name], part.value)
        found.append(Parameter(name, part, same))
        taken.add(name)
    omitted = [Parameter(n, Part("constant", value=d), True) for n, d in defaults.items()
               if n not in taken and type(d) in CONSTANTS]  # fmt: skip
    return Structure(tuple(found), result, tuple(omitted), tree)


def examples_of(args: Sequence[Any], kwargs: dict[str, Any], spec: TreeSpec) -> list[torch.Tensor]:
    """The tensors among the example inputs, in the order of the program's inputs."""
    order = spec.children()[1].context or ()
    leaves, _ = tree_flatten((tuple(args), {k: kwargs[k] for k in order}))
    return [x for x in leaves if isinstance(x, torch.Tensor)]


def _signature(forward: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):
        return []


def _leaves(arguments: Sequence[Any], what: str, line: str = "") -> Iterator[Part]:
    for i, a in enumerate(arguments):
        if isinstance(a, ConstantArgument):
            if not isinstance(a.value, CONSTANTS):
                raise CaptureError(f"{what} {i} is a {type(a.value).__name__}{at(line)}",
                                   "expected a tensor, a number, a text, True, False or None")  # fmt: skip
            yield Part("constant", value=a.value)
        elif type(a).__name__ == "TensorArgument":
            yield TENSOR
        else:
            raise CaptureError(f"{what} {i} is a number that depends on a size{at(line)}",
                               "return a tensor: torch.tensor(...) of it, or x.shape outside")  # fmt: skip


def _part(spec: TreeSpec, leaves: Iterator[Part], depth: int, line: str = "") -> Part:
    if depth > MAX_DEPTH:
        raise CaptureError(f"inputs or outputs are nested over {MAX_DEPTH} deep{at(line)}")
    if spec.is_leaf():
        return next(leaves)
    parts = [_part(c, leaves, depth + 1, line) for c in spec.children()]
    kind, context = spec.type, spec.context
    if kind in (tuple, list):
        return Part(kind.__name__, tuple(parts))
    if not isinstance(kind, type):  # torch's mark of a namedtuple
        kind = context
    name = f"{kind.__module__}.{kind.__qualname__}"
    assert isinstance(kind, type)
    if issubclass(kind, tuple):
        keys: Any = getattr(kind, "_fields", None) or getattr(kind, "__match_args__", ())
        return Part("namedtuple", tuple(parts), tuple(keys), name)
    if _is_pair(
        context
    ):  # a default factory and keys, or names of fields with values and of None ones
        first, second = context
        context = [*first, *second] if isinstance(first, list) else second
        parts += [NONE] * (len(context) - len(parts))
    named = isinstance(context, list | tuple) and len(context) == len(parts)
    keys = context if named else range(len(parts))
    if issubclass(kind, dict) and not hasattr(kind, "__dataclass_fields__"):
        for k in keys:
            if type(k) not in (str, int):
                raise CaptureError(
                    f"a dict has the key {k!r:.80}{at(line)}", "expected text or whole numbers"
                )
        return Part("dict", tuple(parts), tuple(keys))
    return Part("object", tuple(parts), tuple(map(str, keys)), name)


def _is_pair(context: Any) -> bool:
    return isinstance(context, list) and len(context) == 2 and isinstance(context[1], list)
