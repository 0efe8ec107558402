"""Facts about tensors and programs, in a line or as JSON."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ree.files.safetensors import array_type
from ree.kernels.opdef import Array
from ree.kernels.types import DType

if TYPE_CHECKING:
    from ree.program import Program

FIRST = 4  # elements shown


def describe_tensor(x: Array) -> dict[str, Any]:
    """Type, smallest, largest and mean of the finite elements, how many are not finite, the first few."""
    t = array_type(x)
    values = (x.astype(np.uint32) << 16).view(np.float32) if t.dtype is DType.BF16 else x
    wide = values.astype(np.float64 if values.dtype.kind == "f" else np.int64).reshape(-1)
    finite = wide[np.isfinite(wide)]
    out: dict[str, Any] = {"type": str(t)}
    if finite.size:
        out |= {
            "min": finite.min().item(),
            "max": finite.max().item(),
            "mean": float(finite.mean()),
        }
    if finite.size < wide.size:
        out["not_finite"] = wide.size - finite.size
    first = values.reshape(-1)[:FIRST].tolist()
    return out | {"first": [v if math.isfinite(v) else str(v) for v in first]}


def tensor_line(name: str, facts: dict[str, Any]) -> str:
    """The same for a person to read."""
    parts = [f"{k} {facts[k]:.6g}" for k in ("min", "max", "mean") if k in facts]
    if "not_finite" in facts:
        parts.append(f"{facts['not_finite']} not finite")
    first = ", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in facts["first"])
    return "  ".join([f"{name}: {facts['type']}", *parts, f"[{first}]"])


def forged_line(what: str) -> str:
    """What is said of a tensor that does not have its hash; its elements are shown nowhere."""
    return f"{what}: the tensor carried is not the one the trace commits to"


def describe_program(program: Program) -> dict[str, Any]:
    """Facts about a program, on its examples' shapes."""
    from ree.compiler.passes.canonical import bound_nodes
    from ree.compiler.passes.quantise import quantised_layers
    from ree.compiler.plan.fusion import group
    from ree.generation.narrow import parameters
    from ree.kernels import opdef

    g = program.graph
    counts = Counter(n.op for n in g.nodes)
    data: dict[str, Any] = {
        "program": program.program_hash.hex(),
        "weights_root": program.weights_root.hex(),
        "contract": g.contract,
        "parameters": parameters(program),
        "nodes": len(g.nodes),
        "values": g.n_values,
        "operators": dict(counts.most_common()),
        "symbols": {s.name: [s.low, s.high] for s in g.symbols},
        "inputs": dict(zip(program.names.inputs, map(str, g.inputs), strict=True)),
        "states": dict(zip(program.names.states, map(str, g.states), strict=True)),
        "outputs": dict(zip(program.names.outputs, map(str, map(g.typer(), g.outputs)), strict=True)),
    }  # fmt: skip
    in_bytes, others = quantised_layers(g)
    if in_bytes:
        data["precision"] = (
            f"8-bit integers in {in_bytes} of {in_bytes + others} linear layers: not the results of float32"
        )
    if program.examples or not g.inputs:
        arrays = [program.examples[n] for n in program.names.inputs]
        instance = program.instance(program.bind_symbols(arrays))
        costs = [opdef.get(b.op).cost(b) for b in bound_nodes(instance.graph)
                 if opdef.get(b.op).form is not opdef.Form.MOVEMENT]  # fmt: skip
        data["instance"] = instance.digest.hex()
        data["groups"] = len(group(instance.graph))
        data["flops"] = sum(c.flops for c in costs)
        data["bytes"] = sum(c.bytes for c in costs)
    return data
