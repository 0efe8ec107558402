"""What to do about a model that torch.export refuses."""

from __future__ import annotations

import os
import re
import traceback

import torch
from torch import nn

from ree.compiler.frontend.watch import is_users

TRANSFORMS = os.path.join(os.path.dirname(torch.__file__), "_functorch", "eager_transforms")
# what torch says -> what to do
TRACED = {
    "found a fake tensor in the exported": "a value is computed where torch.export does not see it, in another "
    "thread or by torch.func.linearize: compute it in the forward pass itself",
    "classes.quantized.": "a layer that torch.ao quantised keeps its weights where no graph shows them: "
    "compile the float model, then ree quantise, or use ree.quantised.QuantisedLinear",
    "does not require grad and does not have a grad_fn": "parameters have no gradients in inference: "
    "ree.train takes them, or write the derivative out",
}


def _in_transform(e: BaseException) -> bool:
    """Whether torch failed in a transform of torch.func, or in a graph that holds a call of one."""
    inside, path = False, ""
    for frame, _ in traceback.walk_tb(e.__traceback__):
        path = frame.f_code.co_filename
        graphs = [v for v in frame.f_locals.values() if isinstance(v, torch.fx.GraphModule)]
        calls = (n.target for g in graphs for n in g.graph.nodes)
        inside = (
            inside or path.startswith(TRANSFORMS)
            or any(str(getattr(f, "__module__", "")).startswith("torch._functorch") for f in calls)
        )  # fmt: skip
    return inside and not is_users(path)


def hint(e: BaseException, module: nn.Module) -> str:
    """One line for the error that the export of a module ended in."""
    text = f"{type(e).__name__} {e}"
    for name, part in module.named_modules():
        if isinstance(
            part, torch.jit.ScriptModule if part is module else torch.jit.RecursiveScriptModule
        ):
            what = f"submodule '{name}'" if name else "the model"
            return f"{what} is scripted, which torch.export does not take: use what it was made of"
    for known, what in TRACED.items():
        if known in text:
            return what
    if re.search(r"data.dependent|GuardOnDataDependent|DataDependent", text, re.I):
        return "control flow that depends on tensor values cannot be compiled; use torch.where"
    if _in_transform(e):
        return "transforms of torch.func take gradients out of the graph's sight: write the derivative out"
    unknown = re.search(r"Found <class '([^']*)'> in (\w+)", text)
    if unknown:
        cache = "cache" in unknown[1].rpartition(".")[2].lower()
        known = "return tensors, or tuples, lists and dicts of them"
        return f"{known}; without a cache: use_cache=False" if cache else known
    if re.search(r"specialized it to be a constant \([01]\)", text):
        return "an axis whose example is 0 or 1 long is fixed: give an example of 2 or more"
    if re.search(r"dynamic[ _](shape|dim)|Constraints violated|marked .* as dynamic", text, re.I):
        return "check dynamic_shapes against the example inputs"
    if "compiled_fn" in text:  # what torch.export makes of a change that another name sees, too
        places: dict[object, str] = {}
        for name, t in module.named_buffers(remove_duplicate=False):
            other = places.setdefault(t.untyped_storage().data_ptr(), name)
            if other != name:
                return f"buffers '{other}' and '{name}' are the same memory: what changes must have one name"
    return "the model must run with torch.export.export(model, example_inputs, strict=False)"
