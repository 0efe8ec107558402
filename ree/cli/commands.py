"""What the commands of the command line do."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ree.cli import DIFFERS, OK
from ree.cli.checks import audit_command, conformance_command
from ree.cli.output import emit, say
from ree.errors import InputError, ReeError
from ree.explanation import explain
from ree.printable import printable

if TYPE_CHECKING:
    from ree.program import Program
    from ree.traces.diff import Difference

MAX_VALUES = 256  # MiB of values that an ops trace carries


@contextmanager
def progress(text: str) -> Iterator[None]:
    """A spinner on an interactive stderr; a line with the time for what took over two seconds."""
    from rich.console import Console

    console = Console(stderr=True)
    start = time.perf_counter()
    with console.status(printable(text)) if console.is_terminal else nullcontext():
        yield
    seconds = time.perf_counter() - start
    if seconds >= 2 or console.is_terminal:
        say(f"{text}: {seconds:.1f} s")


def compile_command(args: argparse.Namespace) -> int:
    from ree.files.user_file import load_model_file

    with progress("load model"):
        module, inputs, dynamic_shapes = load_model_file(Path(args.model))
    from ree.compilation import compile

    with progress("compile"):
        program = compile(module, inputs, dynamic_shapes)
    with progress("write"):
        program.save(args.output)
    data = describe(program)
    emit(args, data, [
        f"wrote {args.output}",
        f"program  {data['program']}",
        f"weights  {data['weights_root']} ({data['parameters']:,} parameters)",
        f"nodes    {data['nodes']} in {data['groups']} groups; "
        f"{data['flops'] / 1e9:.3f} Gflop, {data['bytes'] / 1e6:.1f} MB moved on the examples",
        "operators " + ", ".join(f"{k} {v}" for k, v in data["operators"].items()),
    ])  # fmt: skip
    return OK


def describe(program: Program) -> dict[str, Any]:
    """Facts about a program, on its examples' shapes."""
    from collections import Counter

    from ree.compiler.passes.canonical import bound_nodes
    from ree.compiler.plan.fusion import group
    from ree.kernels import opdef

    g = program.graph
    counts = Counter(n.op for n in g.nodes)
    data: dict[str, Any] = {
        "program": program.program_hash.hex(),
        "weights_root": program.weights_root.hex(),
        "contract": g.contract,
        "parameters": sum(w.size for w in program.weights),
        "nodes": len(g.nodes),
        "values": g.n_values,
        "operators": dict(counts.most_common()),
        "symbols": {s.name: [s.low, s.high] for s in g.symbols},
        "inputs": dict(zip(program.names.inputs, map(str, g.inputs), strict=True)),
        "states": dict(zip(program.names.states, map(str, g.states), strict=True)),
        "outputs": dict(zip(program.names.outputs, map(str, map(g.typer(), g.outputs)), strict=True)),
    }  # fmt: skip
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


def _load(path: str) -> Program:
    from ree.artifact import load

    return load(path)


def run_command(args: argparse.Namespace) -> int:
    from ree.cli.summary import describe_tensor, tensor_line
    from ree.given import named_inputs
    from ree.verification import replayed_tensors

    program = _load(args.artifact)
    inputs = named_inputs(program, args.inputs)
    level = (args.trace_level or "io") if args.trace else None
    limit = MAX_VALUES if args.max_values is None else args.max_values
    keep = level == "ops" and _values_fit(program, inputs, limit)
    start = time.perf_counter()
    with progress("run"):
        result = program.run_named(
            inputs, trace=level, threads=args.threads, device=args.device, keep_values=keep
        )
    seconds = time.perf_counter() - start
    outputs = dict(zip(program.names.outputs, result.outputs, strict=True))
    if args.output:
        from ree.files.atomic import atomic_file
        from ree.files.safetensors import write_tensors_to

        with atomic_file(args.output) as f:
            write_tensors_to(f, outputs)
    facts = {k: describe_tensor(v) for k, v in outputs.items()}
    data: dict[str, Any] = {"outputs": {k: f["type"] for k, f in facts.items()}, "values": facts,
                            "seconds": round(seconds, 4)}  # fmt: skip
    lines = [tensor_line(k, f) for k, f in facts.items()]
    if args.trace and result.trace is not None:
        tensors: dict[tuple[str, int], Any] = {}
        if keep or sum(v.nbytes for v in result.outputs) <= limit << 20:
            tensors = replayed_tensors(result)
        result.trace.save(args.trace, tensors)
        data["root"] = result.trace.root.hex()
        lines.append(f"root {data['root']}")
    emit(args, data, lines)
    return OK


def _values_fit(program: Program, inputs: dict[str, Any], limit: int) -> bool:
    """Whether all values of a run fit in `limit` MiB; says so if not."""
    missing = [n for n in program.names.inputs if n not in inputs]
    if missing:
        return False  # the run itself will say it
    arrays = [inputs[n] for n in program.names.inputs]
    types = program.instance(program.bind_symbols(arrays)).graph.value_types()
    size = sum(t.nbytes for t in types)
    if size > limit << 20:
        say(f"values not stored: {size >> 20} MiB is over --max-values {limit}")
    return size <= limit << 20


def verify_command(args: argparse.Namespace) -> int:
    from ree.training.directory import is_run
    from ree.verification import verify

    if is_run(args.artifact):
        if args.trace or args.inputs or args.device != "cpu":
            raise InputError("a run is verified on the CPU, without --trace and --inputs")
        return _of_run("verify_run_command", args)
    for option in ("steps", "sample", "seed", "script"):
        if getattr(args, option) is not None:
            raise InputError(f"--{option} is for a training run, and '{args.artifact}' is none")
    if not args.trace:
        raise InputError("expected --trace FILE, or a training run to verify")
    from ree.files.traces import read_trace_file

    file = read_trace_file(args.trace)
    program = _load(args.artifact)
    with progress("replay"):
        report = verify(
            program,
            file,
            args.inputs,
            threads=args.threads,
            device=args.device,
        )
    data = {
        "same": report.same,
        "level": file.trace.level,
        "root": file.trace.root.hex(),
        "replayed_root": report.replayed.root.hex(),
        "differences": [_as_json(d) for d in report.differences],
        "forged": list(report.forged),
    }
    if report.same:
        emit(args, data, [f"same: root {file.trace.root.hex()} ({file.trace.level})"])
        return OK
    lines = [f"differs: trace {file.trace.root.hex()}, replay {report.replayed.root.hex()}"]
    lines += [line for d in report.differences for line in explain(d, "trace", "replay")]
    lines += [forged_line(what) for what in report.forged]
    emit(args, data, lines)
    return DIFFERS


def forged_line(what: str) -> str:
    """What is said of a tensor that does not have its hash; its elements are shown nowhere."""
    return f"{what}: the tensor carried is not the one the trace commits to"


def diff_command(args: argparse.Namespace) -> int:
    from ree.files.traces import read_trace_file
    from ree.traces.diff import compare
    from ree.verification import committed

    if Path(args.left).is_dir() or Path(args.right).is_dir():
        return _of_run("diff_runs_command", args)
    if args.script:
        raise InputError("--script is for training runs")
    left, right = read_trace_file(args.left), read_trace_file(args.right)
    (a, forged_a), (b, forged_b) = (committed(x.trace, x.tensors) for x in (left, right))
    differences = compare(left.trace, right.trace, a, b)
    equal = left.trace.root == right.trace.root
    same = equal and not forged_a and not forged_b
    data = {"same": same, "left": left.trace.root.hex(), "right": right.trace.root.hex(),
            "differences": [_as_json(d) for d in differences],
            "forged": {"left": list(forged_a), "right": list(forged_b)}}  # fmt: skip
    if same:
        emit(args, data, [f"same: root {left.trace.root.hex()}"])
        return OK
    lines = [f"differ: {left.trace.root.hex()}, {right.trace.root.hex()}" if not equal
             else f"differ: in tensors carried; both have root {left.trace.root.hex()}"]  # fmt: skip
    lines += [forged_line(f"left {what}") for what in forged_a]
    lines += [forged_line(f"right {what}") for what in forged_b]
    if any(d.info or d.name for d in differences):
        say("note: names and source lines are the files' own words; nothing proves them")
    if left.trace.level != right.trace.level:
        lines.append(f"levels: {left.trace.level}, {right.trace.level}")
    emit(args, data, lines + [x for d in differences for x in explain(d, "left", "right")])
    return DIFFERS


def _as_json(d: Difference) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(d)


def inspect_command(args: argparse.Namespace) -> int:
    from ree.files.traces import read_trace_file
    from ree.training.directory import is_run

    path = Path(args.file)
    if is_run(path):
        from ree.cli.commands_train import inspect_run

        data = inspect_run(args.file)
    elif path.is_dir():
        data = describe(_load(args.file))
        data = {"kind": "artifact", **data}
    elif not path.exists():
        raise ReeError(f"no file '{path}'")
    else:
        from ree.verification import committed

        file = read_trace_file(args.file)
        t = file.trace
        data = {
            "kind": "trace",
            "level": t.level,
            "root": t.root.hex(),
            "io_root": t.io_root.hex(),
            "program": t.program.hex(),
            "instance": t.instance.hex(),
            "weights_root": t.weights_root.hex(),
            "numeric_id": t.numeric_id.hex(),
            "inputs": [h.hex() for h in t.inputs],
            "outputs": [h.hex() for h in t.outputs],
            "values": len(t.values),
            "tensors": len(file.tensors),
            "forged": list(committed(t, file.tensors)[1]),
        }
    lines = [f"{k:13} {v}" for k, v in data.items() if k != "metrics"]
    lines += [f"{k:13} {m['value']} at step {m['step']}, not verified"
              for k, m in data.get("metrics", {}).items()]  # fmt: skip
    emit(args, data, lines)
    return OK


def doctor_command(args: argparse.Namespace) -> int:
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from ree import _core
    from ree.runtime import settings

    versions = {}
    for name in ("ree-ml", "numpy", "llvmlite", "safetensors", "torch", "triton", "nanobind"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    data = {
        "isa": settings.isa(),
        "isa_available": list(_core.isa_names()),
        "float_mode_clean": bool(_core.float_mode_is_clean()),
        "threads": settings.threads(),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "gpus": _gpus(),
        "versions": versions,
    }
    emit(args, data, [f"{k:17} {v}" for k, v in data.items()])
    if not data["float_mode_clean"]:
        say(
            "note: this thread flushes subnormals (FTZ or DAZ is on); REE corrects it while it runs"
        )
    return OK


def _gpus() -> list[str]:
    """Names of the CUDA devices."""
    try:
        import torch
    except ImportError:
        return []
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _later(module: str, name: str, args: argparse.Namespace) -> int:
    """A command of another module, imported when it is called."""
    return int(getattr(import_module(f"ree.cli.{module}"), name)(args))


_of_run = partial(_later, "commands_train")
_DISPUTES = ("party", "dispute", "verdict")

COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "compile": compile_command,
    "run": run_command,
    "verify": verify_command,
    "diff": diff_command,
    "inspect": inspect_command,
    "doctor": doctor_command,
    "audit": audit_command,
    "conformance": conformance_command,
    "train": partial(_of_run, "train_command"),
    "export": partial(_of_run, "export_command"),
    "trace": partial(_of_run, "trace_command"),
    **{x: partial(_later, "commands_dispute", f"{x}_command") for x in _DISPUTES},
    "job": partial(_later, "commands_job", "job_command"),
    "demo": partial(_later, "commands_job", "demo_command"),
}
