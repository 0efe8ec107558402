"""REE: compile a PyTorch program once, get the same bits on every machine.

program = ree.compile(module, example_inputs)
outputs = program(*inputs)
result = program.run(*inputs, trace="ops")
program.save("model.ree"); program = ree.load("model.ree")
report = ree.verify(program, result.trace, inputs)
result = ree.train(module, loss, ree.optim.AdamW(lr=1e-3), batch, steps=200, run="RUN")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ree import optim, random, sampling
    from ree.artifact import load
    from ree.compilation import compile
    from ree.errors import ReeError
    from ree.files.traces import load_trace
    from ree.program import Program, Result
    from ree.runtime.session import Session
    from ree.training.loop import train
    from ree.verification import verify

__version__ = "0.1.0"
__all__ = [
    "Program", "ReeError", "Result", "Session", "compile", "load", "load_trace", "optim", "random", "sampling",
    "train", "verify",
]  # fmt: skip

_HOMES = {
    "compile": "ree.compilation", "load": "ree.artifact", "verify": "ree.verification",
    "load_trace": "ree.files.traces", "Program": "ree.program", "Result": "ree.program",
    "ReeError": "ree.errors", "Session": "ree.runtime.session", "train": "ree.training.loop",
}  # fmt: skip
_MODULES = ("optim", "random", "sampling")


def __getattr__(name: str) -> Any:
    """Public names are imported on first use: torch and LLVM load only when needed."""
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"ree.{name}")
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'ree' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__doc__", "__version__"])
