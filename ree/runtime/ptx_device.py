"""The device `ptx:TARGET`: Triton's PTX of a GPU that is not there, executed on this CPU (docs/ptx.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ree.compiler.audit.gpu import compile_launch, stack_bytes
from ree.compiler.ptx.native import NativeKernel, PtxSchedule, launch, native
from ree.errors import PlatformError
from ree.kernels.gpu.launch import Launch
from ree.runtime import settings
from ree.runtime.gpu_device import check_triton

PTX_TARGETS = ("sm_80", "sm_90", "sm_120")
NAME = re.compile(r"ptx:(\w+)(,late)?(?:,order=(\d{1,9}))?")


class PtxDevice:
    """One target, and one of the schedules that PTX leaves open.

    name: `ptx:TARGET`, and after it `,late` for asynchronous copies that arrive as late as they may, and
    `,order=N` for warps and blocks in another order. PlatformError for another name, without a usable
    Triton, and where kernels are interpreted in this process."""

    def __init__(self, name: str) -> None:
        m = NAME.fullmatch(name)
        if m is None or m[1] not in PTX_TARGETS:
            raise PlatformError(
                f"device: expected ptx:TARGET with a target of {', '.join(PTX_TARGETS)}, got '{name[:40]}'",
                "a schedule may follow: ptx:sm_90,late,order=3",
            )
        check_triton()
        from ree.kernels.gpu import lib

        if type(lib.canonical).__name__ == "InterpretedFunction":
            raise PlatformError(
                f"device {name}: kernels are interpreted in this process",
                "leave TRITON_INTERPRET unset, and use `interpret` in another process",
            )
        self.name, self.target = name, m[1]
        self.schedule = PtxSchedule(int(m[3] or 0), bool(m[2]))

    def bind(self, x: Launch, args: Sequence[Any], memory: Sequence[Any]) -> Callable[[], None]:
        """What runs a launch on its arguments: tensors in this machine's memory, and integers. memory: the
        tensors that its pointers may reach."""
        y, kernel, shared = self._compiled(x, args)
        params: list[int] = []
        extents = sorted({(m.data_ptr(), m.data_ptr() + m.numel()) for m in memory})
        for a, p in zip(args, y.kernel.params, strict=False):
            if isinstance(a, int):
                # Triton compiles a 1 in, unless it is told not to
                if a != 1 or p.do_not_specialize:
                    params.append(a)
                continue
            params.append(a.data_ptr())
        params += [0] * 2  # memory that Triton's own tools would take
        pool = settings.pool(None)
        return lambda: launch(kernel, y.grid, params, shared, extents, pool, self.schedule)

    def _compiled(self, x: Launch, args: Sequence[Any]) -> tuple[Launch, NativeKernel, int]:
        """The schedule that the GPU would run, which is the first that does not spill, with its code."""
        choices = list(x.choices())
        for y, limit in choices:
            made = compile_launch(y, self.target, limit, args)
            if len(choices) == 1 or not stack_bytes(made.binary):
                return y, native(made.text), made.shared
        raise PlatformError(
            f"kernel '{x.name}' spills registers on {self.target} in every schedule"
        )
