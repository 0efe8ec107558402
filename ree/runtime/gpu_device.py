"""GPU devices: finding one, what Triton must be, what is said when memory runs out."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import sys
from typing import Any

from ree.errors import PlatformError

INTERPRET = "interpret"
PTX = "ptx"  # what is before the target in the name of a device that executes PTX
LEAST_TRITON = (3, 6)


def check_triton() -> None:
    """PlatformError unless a usable Triton is installed."""
    if importlib.util.find_spec("triton") is None:
        raise PlatformError("Triton is not installed", "install the extra: ree-ml[cuda]")
    version = importlib.metadata.version("triton")
    numbers = tuple(int(x) for x in re.findall(r"\d+", version)[:2])
    if numbers < LEAST_TRITON:
        least = ".".join(map(str, LEAST_TRITON))
        raise PlatformError(
            f"Triton: expected {least} or newer, got {version}",
            "older versions flush subnormals in division and square root",
        )


def find_device(name: str) -> Any:
    """The torch device called `name`: cuda, cuda:N, or interpret (Triton's interpreter, slow); for ptx, whose
    code runs on the CPU, that.

    PlatformError when there is no such device, no driver, or no usable Triton.
    """
    import torch

    if name == PTX:
        return torch.device("cpu")
    if name == INTERPRET:
        check_triton()
        _interpret()
        return torch.device("cpu")
    if not re.fullmatch(r"cuda(:\d{1,3})?", name):
        raise PlatformError(
            f"device: expected cpu, cuda, cuda:N, interpret or ptx:TARGET, got '{name[:20]}'"
        )
    check_triton()
    if not torch.cuda.is_available():
        built = (
            "this torch is built without CUDA" if torch.version.cuda is None else _cuda_problem()
        )
        raise PlatformError(f"device {name}: no CUDA device is available", built)
    device = torch.device(name)
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise PlatformError(f"device {name}: expected an index below {count}",
                                "devices: " + ", ".join(f"cuda:{i}" for i in range(count)))  # fmt: skip
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        raise PlatformError(
            f"device {name}: expected compute capability 8.0 or newer, got {major}.{minor}"
        )
    return torch.device("cuda", device.index or 0)


def _cuda_problem() -> str:
    """What torch says is wrong: a driver too old, none at all, ..."""
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as e:
        return str(e).splitlines()[0][:200]
    return "no GPU is visible to this process"


def _interpret() -> None:
    """Switch Triton to its interpreter, made exact; only before any kernel is defined."""
    from ree.compiler.audit import exact_triton as interpreter

    if "ree.kernels.gpu.lib" not in sys.modules:
        os.environ["TRITON_INTERPRET"] = "1"
    from ree.kernels.gpu import lib as triton_lib

    if type(triton_lib.canonical).__name__ != "InterpretedFunction":
        raise PlatformError(
            "device interpret: kernels are compiled already in this process",
            "set TRITON_INTERPRET=1 before the first use of a GPU device",
        )
    interpreter.interpret_language()
    interpreter.install()


def describe_gpu(device: Any) -> dict[str, Any]:
    """Name, memory, compute capability and driver of a CUDA device."""
    import subprocess

    import torch

    p = torch.cuda.get_device_properties(device)
    facts: dict[str, Any] = {
        "name": p.name,
        "memory": p.total_memory,
        "capability": f"{p.major}.{p.minor}",
        "multiprocessors": p.multi_processor_count,
        "cuda": torch.version.cuda,
    }
    try:
        out = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                             capture_output=True, text=True, timeout=20, check=True).stdout  # fmt: skip
        facts["driver"] = out.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        facts["driver"] = "unknown"
    return facts


def out_of_memory(device: Any, wanted: int) -> PlatformError:
    """The error for a GPU that is full."""
    import torch

    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    asked = f"asked for {wanted / 2**20:,.0f} MiB, " if wanted else ""
    return PlatformError(
        f"device {device}: out of memory, {asked}{free / 2**20:,.0f} MiB are free",
        "use a smaller batch, or a GPU with more memory",
    )
