"""The loss of a model on other batches than it is trained on, while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ree.compiler.training.step import LossModule
from ree.errors import CaptureError, InputError, ReeError
from ree.kernels.opdef import Array
from ree.training.trained import BUFFER, PARAMETER


class Validation:
    """A model's mean loss on validation batches, in evaluation mode, by a program of its own.

    batches(step) gives a batch, or a list of batches of one shape. Raises as `ree.compile` does.
    """

    def __init__(self, model: Any, loss: Callable[..., Any], batches: Callable[[int], Any]) -> None:
        from ree.compilation import compile
        from ree.compiler.training.states import weights_as_inputs
        from ree.program import Names, Program

        self._batches = batches
        example = self._made(1)[0]
        with _evaluation(model):
            try:
                p = compile(LossModule(model, loss).eval(), example)
            except ReeError as e:
                raise CaptureError(f"validation: {e.message}", e.hint, e.items) from e
        if len(p.graph.outputs) != 1 or str(p.graph.type_of(p.graph.outputs[0])) != "f32[]":
            raise InputError("validation: expected a loss of one f32 number")
        names = Names((*p.names.weights, *p.names.inputs), p.names.outputs, ())
        self._program = Program(weights_as_inputs(p.graph), names, [])
        own = [n.removeprefix("model.") for n in p.names.weights]
        self._weights = dict(zip(own, p.weights, strict=True))
        first: dict[int, str] = {}
        shared = {
            name: first.setdefault(id(t), name)
            for named in (model.named_parameters, model.named_buffers)
            for name, t in named(remove_duplicate=False)
        }
        self._names = {name: shared.get(name, name) for name in self._weights}

    def _made(self, step: int) -> list[tuple[Any, ...]]:
        made = self._batches(step)
        many = isinstance(made, tuple | list) and made and isinstance(made[0], tuple | list)
        out = [
            tuple(b) if isinstance(b, tuple | list) else (b,) for b in (made if many else [made])
        ]
        if not all(out):
            raise InputError(
                f"validation({step}): expected a batch, a tuple of tensors, or a list of them"
            )
        return out

    def loss(self, step: int, state: Mapping[str, Array], **how: Any) -> float:
        """Mean over the batches of `step` with the parameters and buffers of a training state, a float32."""
        weights = []
        for name, fixed in self._weights.items():
            home = self._names[name]
            kept = state.get(PARAMETER + home)
            weights.append(state.get(BUFFER + home, fixed) if kept is None else kept)
        try:
            losses = [
                float(np.asarray(self._program.run(*weights, *batch, **how).outputs[0]))
                for batch in self._made(step)
            ]
        except ReeError as e:
            raise InputError(f"validation({step}): {e.message}", e.hint) from e
        return float(np.float32(sum(losses) / len(losses)))


@contextmanager
def _evaluation(model: Any) -> Iterator[None]:
    """The model in evaluation mode, every module of it back in its own afterwards."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training
