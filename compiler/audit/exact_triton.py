"""Exact arithmetic for Triton's interpreter, so that kernels can be run without a GPU.

The interpreter computes `dot` with np.matmul and, in some versions, `fma` with two roundings. Here
both are machine code of one fused multiply-add a step (LLVM's llvm.fma), which shares nothing with the
NumPy reference: an ascending chain for `dot`, as the compiled kernels have it (audited on their PTX).
Division and square root are NumPy's float32 ones, which IEEE 754 makes correctly rounded.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

# acc[n] = fma(a[n], b[n], acc[n])
_TEXT = """
declare float @llvm.fma.f32(float, float, float)
define void @fma_all(ptr %a, ptr %b, ptr %acc, i64 %n) {
entry:
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %loop, label %end
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %pa = getelementptr float, ptr %a, i64 %i
  %pb = getelementptr float, ptr %b, i64 %i
  %pc = getelementptr float, ptr %acc, i64 %i
  %x = load float, ptr %pa
  %y = load float, ptr %pb
  %z = load float, ptr %pc
  %r = call float @llvm.fma.f32(float %x, float %y, float %z)
  store float %r, ptr %pc
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %end
end:
  ret void
}
"""
_engines: list[Any] = []


@functools.cache
def _compiled() -> Callable[[int, int, int, int], None]:
    from ree.compiler.emit.jit import machine

    machine_ = _host_machine(machine)
    module = llvm.parse_assembly(_TEXT)
    module.verify()
    builder = llvm.create_pass_builder(machine_, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine_)
    engine.finalize_object()
    _engines.append(engine)
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64)
    return kind(engine.get_function_address("fma_all"))


def _host_machine(machine: Callable[..., Any]) -> Any:
    """The host's machine; without hardware FMA LLVM calls the C library's correctly rounded fmaf."""
    from ree.compiler.emit.jit import Target

    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    return machine(Target("host", cpu, features, 1, True, 1))


def fma(a: F32, b: F32, c: F32) -> F32:
    """a * b + c rounded once, elementwise; shapes broadcast."""
    a, b, c = (np.asarray(x, np.float32) for x in (a, b, c))
    shape = np.broadcast_shapes(a.shape, b.shape, c.shape)
    x, y = (np.ascontiguousarray(np.broadcast_to(v, shape)) for v in (a, b))
    out = np.array(np.broadcast_to(c, shape), order="C", copy=True)
    _compiled()(x.ctypes.data, y.ctypes.data, out.ctypes.data, out.size)
    return out


def dot(a: F32, b: F32, c: F32) -> F32:
    """[.., M, K] x [.., K, N] + c: one ascending chain of fused multiply-adds from c."""
    out: F32 = np.array(c, np.float32, copy=True)
    for k in range(a.shape[-1]):
        out = fma(a[..., :, k, None], b[..., None, k, :], out)
    return out


def integer_dot(a: npt.NDArray[np.int8], b: npt.NDArray[np.int8], c: I32) -> I32:
    """[.., M, K] x [.., K, N] + c of 8-bit integers, in 32 bits."""
    if a.dtype != np.int8 or b.dtype != np.int8:
        raise TypeError(f"expected int8, got {a.dtype} and {b.dtype}")
    out: I32 = c + np.matmul(a.astype(np.int32), b.astype(np.int32))
    return out


def install() -> None:
    """Make Triton's interpreter exact in this process; a second call does nothing."""
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    if getattr(builder, "_ree_exact", False):
        return

    def create_fma(self: Any, x: Any, y: Any, z: Any) -> Any:
        _want_f32(x, y, z)
        return interpreter.TensorHandle(fma(x.data, y.data, z.data), z.dtype.scalar)

    def create_dot(self: Any, a: Any, b: Any, d: Any, precision: Any, imprecise: Any) -> Any:
        if d.data.dtype == np.int32:
            return interpreter.TensorHandle(integer_dot(a.data, b.data, d.data), d.dtype.scalar)
        _want_f32(a, b, d)
        if "IEEE" not in str(precision).upper():
            raise TypeError(f"dot: expected ieee precision, got {precision}")
        return interpreter.TensorHandle(dot(a.data, b.data, d.data), d.dtype.scalar)

    builder.create_fma = create_fma
    builder.create_dot = create_dot
    builder._ree_exact = True


def interpret_language() -> None:
    """Make the functions that Triton itself writes in its language (cdiv, max, ...) interpreted ones where
    it was imported before the interpreter was chosen, as torch.export imports it."""
    import sys

    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    made: dict[int, Any] = {}
    for name, module in list(sys.modules.items()):
        if module is None or not (name == "triton.language" or name.startswith("triton.language.")):
            continue
        for key, value in list(vars(module).items()):
            if isinstance(value, JITFunction):
                if id(value) not in made:
                    made[id(value)] = InterpretedFunction(value.fn)
                setattr(module, key, made[id(value)])


def _want_f32(*handles: Any) -> None:
    for h in handles:
        if h.data.dtype != np.float32:
            raise TypeError(f"expected float32, got {h.data.dtype}")
