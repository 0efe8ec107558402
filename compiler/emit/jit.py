"""LLVM as a library: a module's text in, function addresses out.

Code is compiled for the features the chosen instruction set states, never for whatever the host
happens to have, and without any flag that lets LLVM contract or reassociate.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass

import llvmlite.binding as llvm

_ready = False

# one call into LLVM at a time, and a fork waits for it: a child would find its lock taken for ever
LOCK = llvm.ffi.lib._lock  # may be taken again by who has it
os.register_at_fork(
    before=LOCK.__enter__,
    after_in_parent=lambda: LOCK.__exit__(None, None, None),
    after_in_child=lambda: LOCK.__exit__(None, None, None),
)


@dataclass(frozen=True)
class Target:
    """What code may assume: LLVM CPU and features, float lanes, hardware FMA; and how many vectors of a
    long expression are computed side by side (measured: gelu 0.91 -> 0.70 ns an element with AVX-512)."""

    isa: str
    cpu: str
    features: str
    lanes: int
    hardware_fma: bool
    interleave: int


_BASELINE = "generic" if platform.machine() in ("aarch64", "arm64") else "x86-64"
TARGETS = {
    "portable": Target("portable", _BASELINE, "", 4, False, 2),
    "avx512": Target(
        "avx512",
        "skylake-avx512",
        "+avx512f,+avx512bw,+avx512dq,+avx512vl,+fma,+avx2,-prefer-256-bit",
        16,
        True,
        4,
    ),
    "avx2": Target("avx2", "x86-64", "+avx2,+fma,+f16c", 8, True, 4),
    "neon": Target("neon", "generic", "+neon", 4, True, 4),
}


@dataclass(frozen=True, eq=False)
class MachineCode:
    """A compiled function; its code lives as long as this, and what else is of its module."""

    address: int
    engine: llvm.ExecutionEngine


def machine(target: Target, level: int = 3) -> llvm.TargetMachine:
    """A target machine for `target`. level: of code generation, 0 to 3."""
    global _ready
    if not _ready:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        _ready = True
    triple = llvm.Target.from_default_triple()
    return triple.create_target_machine(
        cpu=target.cpu, features=target.features, opt=level, reloc="pic", codemodel="jitdefault"
    )


def optimise(text: str, target: Target) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    """The parsed, verified and optimised module."""
    width = target.lanes * 32
    attributes = f'"prefer-vector-width"="{width}" "min-legal-vector-width"="{width}"'
    text = re.sub(r"(?m)^(define void @.*\))\s*$", rf"\1 {attributes}", text)
    module = llvm.parse_assembly(text)
    module.verify()
    tm = machine(target)
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = False  # the code is vectorised already
    tuning.slp_vectorization = False
    builder = llvm.create_pass_builder(tm, tuning)
    builder.getModulePassManager().run(module, builder)
    return module, tm


def compile_module(text: str, names: list[str], target: Target) -> list[MachineCode]:
    """The functions `names` of an LLVM module given as text."""
    module, tm = optimise(text, target)
    engine = llvm.create_mcjit_compiler(module, tm)
    engine.finalize_object()
    return [MachineCode(engine.get_function_address(n), engine) for n in names]


def assembly(text: str, target: Target) -> str:
    """Assembly text of a module, for audits."""
    module, tm = optimise(text, target)
    return str(tm.emit_assembly(module))
