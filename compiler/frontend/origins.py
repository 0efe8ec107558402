"""Where in the user's code a call of a captured graph comes from."""

from __future__ import annotations

import re

import torch

from ree.compiler.frontend.watch import short
from ree.compiler.ir import Origin

# a line of code follows, if the source can be read
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (.+)(?:\n(?!\s*File ")\s*(.*))?')


def origin_of(node: torch.fx.Node) -> Origin:
    """The origin of a node, by what torch.export noted of it."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    location = code = ""
    if frames:
        path, line, _, code = frames[-1]
        location = f"{short(path)}:{line}"
    stack = node.meta.get("nn_module_stack") or {}
    module = next(reversed(stack.values()))[0] if stack else ""
    return Origin(node.name, str(node.target), location, code.strip()[:200], str(module))
