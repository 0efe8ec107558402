"""`ree audit`: the machine code of a program, on CPUs and for GPUs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ree.cli.exit_codes import DIFFERS, OK
from ree.cli.grammar import Parser, add_json
from ree.cli.output import print_result, progress, stderr_line
from ree.errors import InputError

if TYPE_CHECKING:
    from ree.compiler.audit.report import KernelReport
    from ree.kernels.gpu.launch import Launch
    from ree.program import Program

HELP = "check a program's machine code: 0 clean, 1 a forbidden instruction, 2 error"
CPU = "cpu"
DEFAULT_TARGETS = "cpu,sm_80,sm_90,sm_120"


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("artifact", metavar="ART.ree")
    parser.add_argument("--target", default=DEFAULT_TARGETS, metavar="LIST",
                        help=f"of cpu, sm_80, sm_90, sm_120, gfx942 (default {DEFAULT_TARGETS}); "
                        "no GPU is needed")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from ree.artifact import load
    from ree.compiler.audit.gpu_target import TARGETS

    targets = args.target.split(",")
    for t in targets:
        if t != CPU and t not in TARGETS:
            raise InputError(f"target: expected some of cpu, {', '.join(TARGETS)}, got '{t[:20]}'")
    program = load(args.artifact)
    reports: list[KernelReport] = []
    with progress(f"audit for {args.target}"):
        if CPU in targets:
            reports += cpu_reports(program)
        reports += gpu_reports(args.artifact, [t for t in targets if t != CPU])
    bad = [r for r in reports if not r.ok]
    data = {
        "ok": not bad,
        "kernels": [
            {"kernel": r.kernel, "target": r.target, "operators": list(r.operators),
             "floats": dict(r.floats), "registers": r.registers, "spills": r.spills,
             "shared": r.shared, "findings": [vars(f) for f in r.findings]}
            for r in reports
        ],
    }  # fmt: skip
    lines = []
    for r in reports:
        floats = " ".join(f"{k}:{v}" for k, v in r.floats.items() if not k.startswith("sass"))
        use = f" {r.registers} registers, {r.shared} B shared" if r.registers else ""
        lines.append(f"{'ok  ' if r.ok else 'FAIL'} {r.target} {r.kernel}{use}  {floats}")
        for f in r.findings[:20]:
            lines.append(f"     {f.instruction}  {f.where}  {f.reason}")
        if r.findings and r.operators:
            lines.append(f"     computes {', '.join(r.operators)}")
    lines.append(f"{len(reports) - len(bad)} of {len(reports)} kernels pass")
    if any(t.startswith("gfx") for t in targets):
        stderr_line("note: kernels for AMD were compiled and read, never run")
    print_result(args, data, lines)
    return OK if not bad else DIFFERS


def gpu_reports(artifact: str, targets: Sequence[str]) -> list[KernelReport]:
    """Audit of every GPU kernel of an artifact on its examples' shapes; a process for each target."""
    import multiprocessing
    import os
    from concurrent.futures import ProcessPoolExecutor

    if not targets:
        return []
    from ree.runtime.gpu_device import check_triton

    check_triton()
    workers = min(len(targets), len(os.sched_getaffinity(0)))
    context = multiprocessing.get_context(
        "spawn"
    )  # compilers hold threads, which a fork would lose
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return [
            r for part in pool.map(_gpu_target, [artifact] * len(targets), targets) for r in part
        ]


def _gpu_target(artifact: str, name: str) -> list[KernelReport]:
    from dataclasses import replace

    from ree.artifact import load
    from ree.compiler.audit import gpu

    out = []
    for x, operators in kernels_of(load(artifact)):
        (report,) = gpu.audit([x], name)
        out.append(replace(report, operators=operators))
    return out


def kernels_of(program: Program) -> list[tuple[Launch, tuple[str, ...]]]:
    """Distinct GPU launches of a program on its examples' shapes: as run, and as run with a trace of
    every value; with the operators and source lines each is for."""
    from ree.compiler.audit.gpu import distinct
    from ree.compiler.plan.planner import plan
    from ree.kernels.gpu.launch import PANEL
    from ree.runtime.gpu_executable import schedule_calls

    graph = example_graph(program)
    found: dict[int, tuple[Launch, tuple[str, ...]]] = {}
    everything: list[Launch] = []
    for traced in (False, True):
        recipe = plan(graph, panel=PANEL, hash_values=traced)
        for call, made in zip(recipe.calls, schedule_calls(recipe), strict=True):
            for x in made.launches:
                everything.append(x)
                found.setdefault(id(x), (x, call.origins))
    return [found[id(x)] for x in distinct(everything)]


def example_graph(program: Program) -> Any:
    """The program's graph bound to its examples' shapes."""
    if program.graph.inputs and not program.examples:
        raise InputError("the artifact holds no examples, so shapes are unknown")
    arrays = [program.examples[n] for n in program.names.inputs]
    return program.instance(program.bind_symbols(arrays)).graph


def cpu_reports(program: Program) -> list[KernelReport]:
    """Audit of the machine code a program runs on CPUs: its tile functions, and the core."""
    from ree import _core
    from ree.compiler.audit.cpu import audit_core, audit_tiles
    from ree.compiler.plan.planner import plan

    graph = example_graph(program)
    reports: list[KernelReport] = []
    for isa in _core.isa_names():
        recipe = plan(graph, panel=_core.panel(isa), byte_group=_core.byte_group(isa))
        reports += audit_tiles(recipe.tiles, isa)
    return [*reports, *audit_core()]
