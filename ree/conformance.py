"""Conformance: every operator's samples, and a real model's graph, against committed digests.

The golden file holds what the references gave. A device conforms when all its digests are equal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ree.compiler.ir import Builder, Graph, Kind, Ref
from ree.float_mode import clean_floats
from ree.kernels import opdef, registry  # noqa: F401
from ree.kernels.opdef import Array, Sample
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program

DATA = Path(__file__).parent / "data"
GOLDEN = DATA / "golden.json"
MODEL = "minilm"  # all-MiniLM-L6-v2's own graph; weights by `made_weights`
MODEL_SHAPE = (3, 150)  # sentences, tokens: more than one segment of keys


@dataclass(frozen=True)
class Case:
    """A sample of an operator as a program, with the reference's results."""

    op: str
    sample: Sample
    program: Program
    expected: tuple[Array, ...]


def graph_of(op: str, sample: Sample) -> Graph:
    """The program that applies op to its inputs and returns all results."""
    b = Builder()
    sources = tuple(b.input(TensorType(DType.of(x.dtype), x.shape)) for x in sample.inputs)
    node = b.add_node(op, sources, sample.attrs)
    return b.finish(tuple(Ref(Kind.VALUE, node.first + i) for i in range(len(node.results))))


def program_of(g: Graph) -> Program:
    """A program of a graph without weights; inputs are in0, in1, ..."""
    names = Names(
        tuple(f"in{i}" for i in range(len(g.inputs))),
        tuple(f"out{i}" for i in range(len(g.outputs))),
        (),
    )
    return Program(g, names, ())


def cases(op: str) -> Iterator[Case]:
    """All samples of an operator."""
    for sample in opdef.get(op).samples():
        yield Case(op, sample, program_of(graph_of(op, sample)),
                   opdef.apply(op, sample.inputs, sample.attrs))  # fmt: skip


def digest(results: Iterable[tuple[Array, ...]]) -> str:
    """SHA-256 over results, each with its dtype and shape."""
    h = hashlib.sha256()
    for arrays in results:
        for x in arrays:
            h.update(f"{x.dtype.str}{list(x.shape)}".encode())
            h.update(x.tobytes())
    return h.hexdigest()


@clean_floats
def reference_digest(op: str) -> str:
    """Digest of the reference over all samples of an operator."""
    return digest(opdef.apply(op, s.inputs, s.attrs) for s in opdef.get(op).samples())


def made_weights(g: Graph) -> list[Array]:
    """Weights for a graph from integers alone, so that they are the same everywhere: element i of
    weight w is a hash of (w, i), uniform in [-1/16, 1/16); vectors are moved to around 1/2. Integer
    weights are zeros, which are valid as indices."""
    out: list[Array] = []
    for w, t in enumerate(g.weights):
        if t.dtype is not DType.F32:
            out.append(np.zeros(t.dims, t.dtype.numpy))
            continue
        x = np.arange(t.numel, dtype=np.uint32) + np.uint32((w + 1) * 0x9E3779B9 & 0xFFFFFFFF)
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
        x ^= x >> np.uint32(16)
        u = (x >> np.uint32(8)).astype(np.float32) * np.float32(2**-24) - np.float32(0.5)
        u = u * np.float32(0.125) + np.float32(0.5 if t.rank == 1 else 0)
        out.append(u.reshape(t.dims))
    return out


def model_program() -> Program:
    """The conformance model: MiniLM's graph with made weights and made inputs as its examples."""
    from ree.compiler.text import parse_graph

    g = parse_graph((DATA / f"{MODEL}.graph.txt").read_text())
    names = Names(
        ("input_ids", "attention_mask"),
        tuple(f"out{i}" for i in range(len(g.outputs))),
        tuple(f"w{i}" for i in range(len(g.weights))),
    )
    batch, tokens = MODEL_SHAPE
    ids = (np.arange(batch * tokens, dtype=np.int64) * 7919 % 30000).reshape(batch, tokens)
    mask = (np.arange(tokens) < np.array([[tokens], [131], [7]])).astype(np.int64)
    examples = {"input_ids": ids, "attention_mask": mask}
    return Program(g, names, made_weights(g), examples)


def run_suite(
    device: str = "cpu", step: Callable[[str], None] = lambda name: None
) -> dict[str, Any]:
    """Run everything on `device` and compare with the golden file; a report for JSON.

    step is called with the name of each part before it runs. `same` says whether all digests are
    equal; of an operator that differs, `first` names its first differing sample.
    """
    golden = json.loads(GOLDEN.read_text())
    operators: dict[str, Any] = {}
    for op in opdef.names():
        step(op)
        operators[op] = run_operator(op, device, golden["operators"].get(op))
    step(MODEL)
    program = model_program()
    inputs = [program.examples[n] for n in program.names.inputs]
    trace = program.run(*inputs, device=device, trace="ops").trace
    assert trace is not None  # a level was given
    expected = golden["models"][MODEL]
    models = {MODEL: {"root": trace.root.hex(), "expected": expected,
                      "same": trace.root.hex() == expected}}  # fmt: skip
    parts = [*operators.values(), *models.values()]
    return {
        "contract": golden["contract"],
        "same": all(p["same"] for p in parts),
        "device": describe_device(device),
        "operators": operators,
        "models": models,
    }


@clean_floats
def run_operator(op: str, device: str, expected: str | None) -> dict[str, Any]:
    """One operator's samples on a device: their digest, whether it is the expected one, how many they are, and
    the first that differs. ReeError for what the device refuses."""
    results, samples = [], 0
    for sample in opdef.get(op).samples():
        program = program_of(graph_of(op, sample))
        results.append(program.run(*sample.inputs, device=device).outputs)
        samples += 1
    found = digest(results)
    report: dict[str, Any] = {"digest": found, "same": found == expected, "samples": samples}
    if found != expected:
        report["expected"] = expected
        for sample, got in zip(opdef.get(op).samples(), results, strict=True):
            want = opdef.apply(op, sample.inputs, sample.attrs)
            if digest([got]) != digest([want]):
                report["first"] = sample.name
                break
    return report


def describe_device(device: str) -> dict[str, Any]:
    """Name, driver and versions, for a report."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from ree.runtime import settings

    versions = {}
    for name in ("ree-ml", "torch", "triton", "numpy", "llvmlite"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    facts: dict[str, Any] = {"device": device, "versions": versions, "machine": platform.machine(),
                             "python": platform.python_version()}  # fmt: skip
    if device == "cpu":
        facts["isa"] = settings.isa()
        facts["threads"] = settings.threads()
    elif device.startswith("cuda"):
        from ree.runtime.gpu_device import describe_gpu, find_device

        facts |= describe_gpu(find_device(device))
    return facts
