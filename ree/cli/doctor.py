"""`ree doctor`: this machine, as REE sees it."""

from __future__ import annotations

import argparse

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser, add_json
from ree.cli.output import print_result, stderr_line

HELP = "describe this machine: instruction set, float mode, threads, versions"


def add_arguments(parser: Parser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> int:
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
    print_result(args, data, [f"{k:17} {v}" for k, v in data.items()])
    if not data["float_mode_clean"]:
        stderr_line(
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
