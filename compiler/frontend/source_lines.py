"""Where a user's source says something that no call of the graph stands for: a result, a submodule."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ree.compiler.frontend.origins import origin_of
from ree.compiler.frontend.watch import short

RETURNS = 3  # of a function, that are named


def returned_at(forward: Callable[..., Any]) -> str:
    """file:line of a function's first return statements; of the function if it has none; or nothing."""
    found = _parsed(forward)
    if found is None:
        return ""
    place, tree = found
    lines = [n.lineno for n in _own(tree.body[0]) if isinstance(n, ast.Return)]
    return ", ".join(place(n) for n in lines[:RETURNS] or [1])


def made_at(module: torch.nn.Module, path: str) -> str:
    """file:line at which the module's class, or that of a part, assigns the part of this name; or nothing."""
    owner, _, name = path.rpartition(".")
    found = _parsed(type(module.get_submodule(owner)).__init__)
    if found is not None:
        place, tree = found
        for n in ast.walk(tree):
            targets = n.targets if isinstance(n, ast.Assign) else ()
            if any(isinstance(t, ast.Attribute) and t.attr == name for t in targets):
                return place(n.lineno)  # type: ignore[attr-defined]
    return made_at(module, owner) if owner else ""


def used_at(node: torch.fx.Node) -> str:
    """file:line of the first call in the graph that reads a node and whose line is known; or nothing."""
    return next((line for n in (node, *node.users) if (line := origin_of(n).location)), "")


def _parsed(f: Callable[..., Any]) -> tuple[Callable[[int], str], ast.Module] | None:
    """A function's syntax tree, and what makes file:line of a line in it."""
    f = inspect.unwrap(f)
    try:
        lines, first = inspect.getsourcelines(f)
        tree = ast.parse(textwrap.dedent("".join(lines)))
        file = short(inspect.getsourcefile(f) or "")
    except (OSError, TypeError, SyntaxError):
        return None
    return lambda line: f"{file}:{first + line - 1}", tree


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function's body without those of functions in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
        ):
            yield child
            yield from _own(child)
