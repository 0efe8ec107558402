"""What an audit says about a kernel, the same for CPU and GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """An instruction that the contract does not allow.

    instruction: as the disassembler prints it. where: file and line of the kernel's source, where
    known. reason: what it could do to bits.
    """

    instruction: str
    where: str
    reason: str


@dataclass(frozen=True)
class KernelReport:
    """One kernel on one target.

    floats: float instructions by mnemonic. registers a thread, spills (instructions on local memory)
    and shared memory in bytes are of GPU kernels only.
    """

    kernel: str
    target: str
    floats: Mapping[str, int]
    findings: tuple[Finding, ...] = ()
    registers: int = 0
    spills: int = 0
    shared: int = 0
    operators: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        return not self.findings
