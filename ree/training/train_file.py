"""TRAIN.py: a user's file that defines model(), loss(), optimizer() and batch().

model() -> torch.nn.Module        loss(model, batch) -> scalar tensor
optimizer() -> ree.optim.AdamW, ...    batch(step) -> tuple of tensors, for step 1, 2, ...
validation(step) -> a batch or a list of batches, data() -> list of files the batches are made from, optional
seed, accumulate: numbers, optional
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ree.errors import CaptureError
from ree.files.user_file import guard
from ree.training.directory import DataFile
from ree.training.loop import data_files

EXPECTED = {
    "model": "model() -> torch.nn.Module", "loss": "loss(model, batch) -> scalar tensor",
    "optimizer": "optimizer() -> ree.optim.AdamW(...) or the like",
    "batch": "batch(step) -> tuple of tensors",
}  # fmt: skip


class TrainFile:
    """The functions of a TRAIN.py. The file is the caller's own code and is executed.

    CaptureError, with file and line, for anything that goes wrong in it.
    """

    def __init__(self, path: Path, needs: Sequence[str] = tuple(EXPECTED)) -> None:
        self.path = path
        if not path.is_file():
            raise CaptureError(f"no training file '{path}'")
        with self._imports():
            self.names = guard(
                path, lambda: runpy.run_path(str(path.resolve()), run_name="ree_train")
            )
        for name in needs:
            if not callable(self.names.get(name)):
                raise CaptureError(
                    f"'{path}' does not define {name}()", f"expected {EXPECTED[name]}"
                )
        for name, default in (("seed", 0), ("accumulate", 1)):
            if type(self.names.setdefault(name, default)) is not int:
                raise CaptureError(f"'{path}': {name}: expected a whole number")
        self.seed, self.accumulate = int(self.names["seed"]), int(self.names["accumulate"])

    @contextmanager
    def _imports(self) -> Iterator[None]:
        """The file may import its neighbours."""
        sys.path.insert(0, str(self.path.resolve().parent))
        try:
            yield
        finally:
            sys.path.pop(0)

    def call(self, name: str, *args: Any) -> Any:
        """What one of its functions returns."""
        with self._imports():
            return guard(self.path, lambda: self.names[name](*args))

    def batch(self, step: int) -> Any:
        """The batch of a step."""
        return self.call("batch", step)

    def validation(self, step: int) -> Any:
        """The validation batches of a step."""
        return self.call("validation", step)

    def draws(self, step: int) -> list[str]:
        """Names of torch's random operators that batch(step) calls, sorted."""
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode

        found: set[str] = set()

        class Seen(TorchDispatchMode):  # type: ignore[misc]
            def __torch_dispatch__(
                self, func: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                if torch.Tag.nondeterministic_seeded in func.tags:
                    found.add(str(func).removeprefix("aten.").split(".")[0])
                return func(*args, **(kwargs or {}))

        with Seen():
            self.batch(step)
        return sorted(found)

    def data(self) -> list[DataFile]:
        """Digests of the files that the batches are made from."""
        if not callable(self.names.get("data")):
            return []
        paths = self.call("data")
        return data_files(list(paths), self.path.resolve().parent)
