"""Translated kernels as native code of this machine, and a launch of one over a grid."""

from __future__ import annotations

import functools
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

from ree import _core
from ree.compiler.emit.jit import Target, machine
from ree.compiler.ptx.rules import rule_of
from ree.compiler.ptx.source import PtxError, PtxSource, read_ptx
from ree.compiler.ptx.translate import Translator

KEPT = 8192  # kernels whose code is kept
LEVEL = 1  # of LLVM's code generation: each kernel runs few times
_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class NativeKernel:
    """A kernel's code, which lives as long as this."""

    source: PtxSource
    address: int
    frame_bytes: int
    granule: int
    engine: Any


@dataclass(frozen=True)
class PtxSchedule:
    """What PTX leaves open. order: of warps between barriers, and of blocks: 0 ascending, 1 descending, else a
    seed of a shuffle. late: asynchronous copies arrive when they are waited for, not when they are issued."""

    order: int = 0
    late: bool = False


@functools.cache
def _machine() -> llvm.TargetMachine:
    for name, address in _core.ptx_functions():
        llvm.add_symbol(name, address)
    features = llvm.get_host_cpu_features().flatten()
    return machine(Target("host", llvm.get_host_cpu_name(), features, 1, True, 1), LEVEL)


@functools.lru_cache(maxsize=KEPT)
def native(ptx: str) -> NativeKernel:
    """The code of the one kernel of a PTX module; PtxError for what is not executed."""
    translated = Translator(read_ptx(ptx)).translate(rule_of)
    with _lock:
        host = _machine()
        module = llvm.parse_assembly(translated.text)
        module.verify()
        engine = llvm.create_mcjit_compiler(module, host)
        engine.finalize_object()
    address = engine.get_function_address(translated.name)
    return NativeKernel(
        translated.source, address, translated.frame_bytes, translated.granule, engine
    )


# by the numbers of csrc/ptx/machine.hpp
FAULTS = {
    1: "an access to global memory outside of all arguments, at {address:#x}",
    2: "an access outside of shared memory, at {address:#x}",
    3: "an access that is not aligned, at {address:#x}",
    4: "a race on shared memory at {address:#x}: another warp's access at line {other}, and no barrier between",
    5: "lanes are apart where they must be together",
    6: "lanes are apart at a barrier",
    7: "the kernel does not end",
    8: "a value is taken from a lane that is not there",
}


def launch(
    kernel: NativeKernel, grid: Sequence[int], params: Sequence[int], shared: int,
    extents: Sequence[tuple[int, int]], pool: _core.Pool, schedule: PtxSchedule = PtxSchedule(),
) -> None:  # fmt: skip
    """Run a grid. params: integers in the order of the kernel's parameters. shared: bytes of a block.
    extents: [low, high) of the memory that it may touch.

    PtxError for parameters that do not fit, and for what the kernel did that it must not."""
    source = kernel.source
    if len(params) != len(source.parameters):
        raise PtxError(
            f"kernel '{source.name}': expected {len(source.parameters)} parameters, got {len(params)}"
        )
    raw = bytearray(source.parameter_bytes)
    for value, (offset, size) in zip(params, source.parameters.values(), strict=True):
        bits = 8 * size
        if not -(1 << (bits - 1)) <= value < 1 << bits:
            raise PtxError(
                f"kernel '{source.name}': {value} does not fit a parameter of {bits} bits"
            )
        raw[offset : offset + size] = struct.pack("<Q", value & ((1 << 64) - 1))[:size]
    fault, line, other, address, block, thread = _core.ptx_run(
        pool, kernel.address, source.threads, kernel.frame_bytes, shared, kernel.granule, list(grid),
        bytes(raw), list(extents), schedule.order, schedule.late,
    )  # fmt: skip
    if fault:
        what = FAULTS[fault].format(address=address, other=other)
        raise PtxError(
            f"{source.place(line)}: {what} (block {', '.join(map(str, block))}, thread {thread})"
        )
