"""MODEL.py: a user's file that defines model() and example_inputs()."""

from __future__ import annotations

import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

from ree.errors import CaptureError, ReeError


def load_model_file(path: Path) -> tuple[Any, Any, Any]:
    """(module, example inputs, dynamic shapes or None) of a model file.

    The file is the user's own code and is executed. CaptureError, with file and line, for anything
    that goes wrong in it.
    """
    if not path.is_file():
        raise CaptureError(f"no model file '{path}'")
    sys.path.insert(0, str(path.resolve().parent))
    try:
        names = guard(path, lambda: runpy.run_path(str(path), run_name="ree_model"))
        for name in ("model", "example_inputs"):
            if not callable(names.get(name)):
                raise CaptureError(
                    f"'{path}' does not define {name}()",
                    "expected model() -> torch.nn.Module and example_inputs() -> tuple or dict",
                )
        module = guard(path, names["model"])
        inputs = guard(path, names["example_inputs"])
        dynamic = names.get("dynamic_shapes")
        shapes = guard(path, dynamic) if callable(dynamic) else dynamic
    finally:
        sys.path.pop(0)
    _check(path, module, inputs)
    return module, inputs, shapes


def guard(path: Path, call: Any) -> Any:
    """What `call`, a user's code in file `path`, returns; CaptureError where it fails."""
    try:
        return call()
    except SyntaxError as e:
        where = f" at {Path(e.filename or path).name}:{e.lineno}" if e.lineno else ""
        raise CaptureError(f"syntax error in '{path}'{where}: {e.msg}") from e
    except (KeyboardInterrupt, ReeError):
        raise
    except BaseException as e:  # a user's code may raise anything, SystemExit included
        frames = [f for f in traceback.extract_tb(e.__traceback__) if f.filename == str(path)]
        where = f" at line {frames[-1].lineno}" if frames else ""
        text = str(e).splitlines()[0][:200] if str(e) else ""
        raise CaptureError(f"'{path}' failed{where}: {type(e).__name__}: {text}") from e


def _check(path: Path, module: Any, inputs: Any) -> None:
    import torch

    if not isinstance(module, torch.nn.Module):
        raise CaptureError(
            f"'{path}': model() returned {type(module).__name__}, expected torch.nn.Module"
        )
    values = inputs.values() if isinstance(inputs, dict) else inputs
    if not isinstance(inputs, dict | tuple | list | torch.Tensor):
        raise CaptureError(
            f"'{path}': example_inputs() returned {type(inputs).__name__}, "
            "expected a tuple or a dict of tensors"
        )
    if not isinstance(inputs, torch.Tensor):
        for v in values:
            if not isinstance(v, torch.Tensor):
                raise CaptureError(
                    f"'{path}': example_inputs(): expected tensors, got {type(v).__name__}"
                )
