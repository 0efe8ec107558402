"""Audit of GPU kernels: every float instruction of the PTX and the SASS against what is allowed.

PTX says what was asked for; ptxas may fuse only instructions without an explicit rounding, so those are
findings. SASS says what runs; there, approximations appear inside the correctly rounded division and
square root, and inside integer division, and nowhere else.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ree.compiler.audit.gpu_target import TARGETS, target
from ree.compiler.audit.report import Finding, KernelReport
from ree.errors import PlatformError
from ree.kernels.gpu.launch import Launch, Ptr

ROUNDED = r"(?:add|sub|mul|fma|div|sqrt)\.rn\.f32(?:x2)?"
EXACT = (
    r"(?:neg|abs|min|max|selp|mov|copysign)\.f32|setp\.[a-z.]+\.f32|set\.[a-z.]+\.f32|"
    r"cvt\.rn\.f32\.[us](?:8|16|32|64)|cvt\.rzi\.[us](?:32|64)\.f32|"
    r"(?:ld|st)\.[a-z0-9_.:]*f32|testp\.[a-z]+\.f32"
)
# products of bytes added in 32 bits: exact below the saturation that some of them have, and no total gets there
BYTES = (
    r"(?:mma\.sync|wgmma\.mma_async\.sync)\.aligned\.m\d+n\d+k\d+(?:\.row\.col)?(?:\.satfinite)?"
    r"\.s32\.s8\.s8(?:\.s32)?"
)
WAITS = r"wgmma\.(?:fence|commit_group|wait_group)\.sync\.aligned"
PTX_ALLOWED = re.compile(f"(?:{ROUNDED}|{EXACT}|{BYTES}|{WAITS})$")
# anything that computes on floats, or names a float type
PTX_FLOAT = re.compile(
    r"\.(?:f16|bf16|f16x2|bf16x2|tf32|f32|f32x2|f64|e4m3|e5m2)\w*|mma|\.approx|\.ftz|\.full"
)
PTX_LINE = re.compile(r"^\s*(?:@!?%p\d+\s+)?([a-z][a-z0-9_.:]*[a-z0-9])\s+[^;]*;")

SASS_LINE = re.compile(r"/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);")
SASS_MMA = re.compile(r"(?:H|I|B|D|Q|O)MMA|\w*GMMA|UTC\w*MMA")
BYTE_MMA = re.compile(r"(?:IMMA|IGMMA)\.[\dx]+\.S8\.S8(?:\.SAT)?\s")
SASS_HALF = re.compile(r"(?:HADD2|HMUL2|HFMA2|HMNMX2|HSET2|HSETP2)")
SASS_FLOAT = re.compile(
    r"(?:F(?:ADD|MUL|FMA|MNMX|SEL|SET|SETP|SWZADD|CHK|RND)\d?|MUFU|I2F\w*|F2I\w*|F2F\w*)"
)
REASONS = {
    "fusable": "no rounding is stated, so ptxas may fuse it",
    "flush": "subnormals are flushed",
    "approximate": "not correctly rounded",
    "tensor": "tensor cores do not keep the order or the precision",
    "width": "the contract computes in float32",
    "atomic": "the order of atomic additions is not fixed",
    "spill": "registers spill to local memory",
    "unknown": "not on the list of allowed instructions",
}


@dataclass(frozen=True)
class CompiledKernel:
    """A kernel compiled for a target: its launch, PTX or other assembly, and its binary."""

    launch: Launch
    target: str
    text: str
    binary: bytes
    shared: int


def compile_launch(
    x: Launch, name: str, registers: int = 0, tensors: Sequence[Any] | None = None
) -> CompiledKernel:
    """Compile one launch for the target `name` of TARGETS, as the runtime would on that GPU. tensors: its
    arguments, if there are any; by default pointers are taken to be aligned."""
    import torch

    types = {"fp32": torch.float32, "i8": torch.int8, "i16": torch.int16, "i32": torch.int32,
             "i64": torch.int64, "u32": torch.uint32}  # fmt: skip
    args = tensors or [types[a.dtype] if isinstance(a, Ptr) else a for a in x.args]
    options = x.options(registers)
    if TARGETS[name][0] == "hip":
        options.pop("maxnreg", None)
    with target(name):
        made = x.kernel.warmup(*args, grid=x.grid, **options)
    text, binary = ("ptx", "cubin") if TARGETS[name][0] == "cuda" else ("amdgcn", "hsaco")
    return CompiledKernel(x, name, made.asm[text], made.asm[binary], made.metadata.shared)


def audit(launches: Iterable[Launch], name: str) -> list[KernelReport]:
    """One report a distinct kernel."""
    reports = []
    for x in distinct(launches):
        # as the runtime does: the first schedule and limit of registers with which nothing spills
        for y, limit in x.choices():
            c = compile_launch(y, name, limit)
            report = audit_cuda(c) if TARGETS[name][0] == "cuda" else audit_amd(c)
            if not report.spills:
                break
        reports.append(report)
    return reports


def distinct(launches: Iterable[Launch]) -> list[Launch]:
    """Launches that compile to different kernels, first of each kind."""
    seen: dict[object, Launch] = {}
    for x in launches:
        key = (id(x.kernel), variant(x), x.warps, x.stages)
        seen.setdefault(key, x)
    return list(seen.values())


def variant(x: Launch) -> tuple[object, ...]:
    """What of a launch's arguments goes into the code of its kernel."""
    kinds = tuple(
        a.dtype if isinstance(a, Ptr) else _kind(a, p.do_not_specialize)
        for a, p in zip(x.args, x.kernel.params, strict=False)
    )
    return (kinds, x.constants)


def _kind(n: int, plain: bool) -> object:
    """What Triton specialises an integer argument on."""
    wide = not -(2**31) <= n < 2**31
    return wide if plain else (n == 1, n % 16 == 0, wide)


def audit_cuda(c: CompiledKernel) -> KernelReport:
    """PTX and SASS of one kernel."""
    ptx, findings = audit_ptx(c.text)
    listing, usage = disassemble(c.binary)
    sass, more = audit_sass(listing, _divides(c.text))
    registers, _ = usage
    spills = sum(f.reason == REASONS["spill"] for f in more)
    floats = {**{f"ptx {k}": v for k, v in sorted(ptx.items())},
              **{f"sass {k}": v for k, v in sorted(sass.items())}}  # fmt: skip
    return KernelReport(kernel_name(c.launch), c.target, floats, (*findings, *more), registers, spills,
                        c.shared)  # fmt: skip


def kernel_name(x: Launch) -> str:
    """Name, and the constants that tell its variants apart."""
    parts = [f"{k}={v}" for k, v in x.constants if k.isupper()]
    return f"{x.name}[{','.join(parts)}]w{x.warps}"


def audit_ptx(text: str) -> tuple[Counter[str], list[Finding]]:
    """Float instructions of PTX by mnemonic, and those that are not allowed."""
    counts: Counter[str] = Counter()
    findings = []
    files: dict[str, str] = dict(re.findall(r'^\s*\.file\s+(\d+)\s+"([^"]+)"', text, re.M))
    where = ""
    for line in text.splitlines():
        loc = re.match(r"\s*\.loc\s+(\d+)\s+(\d+)", line)
        if loc:
            where = f"{files.get(loc[1], '?')}:{loc[2]}"
            continue
        m = PTX_LINE.match(line)
        if not m or not PTX_FLOAT.search(m[1]):
            continue
        counts[m[1]] += 1
        if not PTX_ALLOWED.match(m[1]):
            findings.append(Finding(m[1], where, _ptx_reason(m[1])))
    return counts, findings


def _ptx_reason(op: str) -> str:
    for pattern, reason in (
        (r"\.ftz", "flush"),
        (r"mma|tf32", "tensor"),
        (r"^(?:atom|red)", "atomic"),
        (r"\.approx|\.full", "approximate"),
        (r"f64|f16", "width"),
        (r"^(?:add|sub|mul|mad|fma)\.", "fusable"),
    ):
        if re.search(pattern, op):
            return REASONS[reason]
    return REASONS["unknown"]


def _divides(ptx: str) -> tuple[bool, bool]:
    """Whether PTX divides or takes roots of floats, and whether it divides integers."""
    return (bool(re.search(r"\b(?:div|sqrt)\.rn\.f32", ptx)),
            bool(re.search(r"\b(?:div|rem)\.[us](?:16|32|64)", ptx)))  # fmt: skip


def audit_sass(listing: str, divides: tuple[bool, bool]) -> tuple[Counter[str], list[Finding]]:
    """Float instructions of SASS by mnemonic, and those that are not allowed. divides: whether the
    PTX divides floats, and integers; their expansions hold approximations that are corrected."""
    floats, integers = divides
    counts: Counter[str] = Counter()
    findings: list[Finding] = []

    def found(op: str, operands: str, reason: str) -> None:
        findings.append(Finding(f"{op}{operands.rstrip()}", "", REASONS[reason]))

    for op, operands in SASS_LINE.findall(listing):
        base, *modifiers = op.split(".")
        if base in ("STL", "LDL"):
            found(op, operands, "spill")
        elif SASS_HALF.match(base):
            # -RZ, RZ, c, c is how ptxas loads a constant
            if not re.match(r"\s+\w+, -?RZ, RZ, ", operands):
                found(op, operands, "width")
        elif SASS_MMA.match(base):
            if BYTE_MMA.match(op + operands):
                counts[op] += 1
            else:
                found(op, operands, "tensor")
        elif base in ("DADD", "DMUL", "DFMA", "DSETP"):
            found(op, operands, "width")
        elif base in ("RED", "ATOM", "ATOMG", "ATOMS", "REDG") and any(
            m.startswith("F") for m in modifiers
        ):
            found(op, operands, "atomic")
        elif SASS_FLOAT.fullmatch(base):
            counts[op] += 1
            _check_float(base, modifiers, op, operands, floats, integers, found)
    return counts, findings


def _check_float(
    base: str,
    modifiers: Sequence[str],
    op: str,
    operands: str,
    floats: bool,
    integers: bool,
    found: Any,
) -> None:
    if base == "MUFU":
        if not (modifiers[:1] in (["RCP"], ["RSQ"], ["RCP64H"]) and (floats or integers)):
            found(op, operands, "approximate")
    elif base.startswith(("I2F", "F2I")):
        if "FTZ" in modifiers and not integers:
            found(op, operands, "flush")
    elif not floats:
        # the slow paths of division and square root scale, flush and round in all directions
        if "FTZ" in modifiers:
            found(op, operands, "flush")
        elif set(modifiers) & {"RM", "RP", "RZ", "SAT"}:
            found(op, operands, "approximate")


def disassemble(cubin: bytes) -> tuple[str, tuple[int, int]]:
    """(SASS listing, (registers a thread, bytes of stack)), by the cuobjdump that Triton packages."""
    from triton import knobs

    tool = Path(knobs.nvidia.cuobjdump.path)
    if not tool.exists():
        raise PlatformError(f"cuobjdump: expected it at {tool}", "reinstall Triton")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "k.cubin")
        file.write_bytes(cubin)
        out = subprocess.run([str(tool), "-sass", "-res-usage", str(file)], capture_output=True,
                             text=True, check=True, env={"PATH": str(tool.parent)}).stdout  # fmt: skip
    m = re.search(r"REG:(\d+) STACK:(\d+)", out)
    if m is None:
        raise PlatformError("cuobjdump: no resource usage in its output")
    return out, (int(m[1]), int(m[2]))


AMD_ALLOWED = re.compile(
    r"v_(?:pk_)?(?:add|sub|subrev|mul|fma|fmac|max|min|mov)_f32|v_fma[am]k_f32|"
    r"v_(?:div_(?:scale|fixup|fmas)|rcp|rcp_iflag|sqrt|rsq|"
    r"frexp_\w+|ldexp|trunc|rndne|floor)_f32|v_cmpx?_\w+_f32|v_cndmask\w*|v_cvt_(?:f32_[iu]32|[iu]32_f32)|"
    r"v_max3_f32|v_med3_f32|v_cmp_class_f32|v_fma_f32|v_cvt_f32_ubyte\d"
)


def audit_amd(c: CompiledKernel) -> KernelReport:
    """AMD assembly of one kernel: no matrix instruction, no unfused multiply-add, no flushing mode.
    Such code was compiled and read, never run."""
    counts: Counter[str] = Counter()
    findings = []
    for op in re.findall(
        r"^\s+([vs]_[a-z0-9_]+|(?:ds|buffer|global|flat|scratch)_[a-z0-9_]+)", c.text, re.M
    ):
        base = re.sub(r"_(?:e32|e64|dpp|sdwa)$", "", op)
        if re.fullmatch(r"v_mfma_i32_\w+_?i8", base):
            counts[base] += 1
        elif base.startswith("v_mfma") or "atomic_add_f" in base:
            findings.append(Finding(op, "", REASONS["tensor" if "mfma" in base else "atomic"]))
        elif base.startswith("scratch_"):
            findings.append(Finding(op, "", REASONS["spill"]))
        elif re.search(r"_f(?:16|32|64)|_bf16", base):
            counts[base] += 1
            if not AMD_ALLOWED.fullmatch(base):
                findings.append(Finding(op, "", REASONS["unknown"]))
    mode = re.search(r"\.amdhsa_float_denorm_mode_32\s+(\d)", c.text)
    if mode and mode[1] != "3":
        findings.append(Finding(f"float_denorm_mode_32 {mode[1]}", "", REASONS["flush"]))
    registers = re.search(r"\.vgpr_count:\s+(\d+)", c.text)
    return KernelReport(kernel_name(c.launch), c.target, dict(counts), tuple(findings),
                        int(registers[1]) if registers else 0, 0, c.shared)  # fmt: skip


def stack_bytes(cubin: bytes) -> int:
    """Bytes of stack that a thread takes, by the attributes of a cubin (ELF64, section .nv.info): not 0 where
    registers spill. Quicker than to ask cuobjdump."""
    start, size, count, names_at = struct.unpack_from("<Q10xHHH", cubin, 0x28)
    sections = [struct.unpack_from("<IIQQQQ", cubin, start + size * i) for i in range(count)]
    names = sections[names_at][4]
    for name, _, _, _, at, length in sections:
        label = cubin[names + name : cubin.index(b"\0", names + name)]
        if label != b".nv.info":
            continue
        end, most = at + length, 0
        while at < end:
            kind, attribute, value = struct.unpack_from("<BBH", cubin, at)
            at += 4
            if kind == 4:  # `value` bytes follow
                if attribute == 0x11:  # frame size: symbol, bytes
                    most = max(most, struct.unpack_from("<II", cubin, at)[1])
                at += value
        return most
    raise PlatformError("cubin: no attributes in it", "report the version of Triton")
