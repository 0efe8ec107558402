"""What to do about a model that torch.export refuses."""

from __future__ import annotations

import re

import torch
from torch import nn


def hint(e: BaseException, module: nn.Module) -> str:
    """One line for the error that the export of a module ended in."""
    text = f"{type(e).__name__} {e}"
    for name, part in module.named_modules():
        if isinstance(
            part, torch.jit.ScriptModule if part is module else torch.jit.RecursiveScriptModule
        ):
            what = f"submodule '{name}'" if name else "the model"
            return f"{what} is scripted, which torch.export does not take: use what it was made of"
    if re.search(r"data.dependent|GuardOnDataDependent|DataDependent", text, re.I):
        return "control flow that depends on tensor values cannot be compiled; use torch.where"
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
