"""REE: compile a PyTorch program once, get the same bits on every machine.

program = ree.compile(module, example_inputs)
outputs = program(*inputs)
result = program.run(*inputs, trace="ops")
program.save("model.ree"); ree.load("model.ree")
report = ree.verify(program, result.trace, inputs)
result = ree.train(module, loss, ree.optim.AdamW(lr=1e-3), batch, steps=200, run="RUN")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ree.artifact import load
    from ree.compilation import compile
    from ree.program import Program, Result
    from ree.training import train
    from ree.verification import verify

__version__ = "0.1.0"
__all__ = ["Program", "Result", "compile", "load", "train", "verify"]

_HOMES = {
    "compile": "ree.compilation", "load": "ree.artifact", "verify": "ree.verification",
    "Program": "ree.program", "Result": "ree.program", "train": "ree.training",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Public names are imported on first use: torch and LLVM load only when needed."""
    if name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'ree' has no attribute '{name}'")
