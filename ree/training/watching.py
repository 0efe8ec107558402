"""What is looked at after each step of training: metrics, validation, callbacks, TensorBoard files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ree.errors import InputError
from ree.kernels.opdef import Array
from ree.training.event_files import EventFiles
from ree.training.metrics import Metrics

if TYPE_CHECKING:
    from ree.training.step import Step, StepRunner
    from ree.training.validation import Validation

NORM = "optimizer.gradient_norm"


@dataclass
class StepInfo:
    """A step that has been made: its number, its loss, and its metrics where they were computed.

    `state`: the state after it by name, copied when it is read, during the callback only.
    """

    step: int
    loss: float
    learning_rate: float | None
    gradient_norm: float | None
    validation_loss: float | None
    _state: Callable[[], dict[str, Array]] | None = field(repr=False, compare=False)

    @property
    def state(self) -> dict[str, Array]:
        if self._state is None:
            raise InputError(
                f"state after step {self.step}: read it in the callback; the run went on"
            )
        return self._state()


Callback = Callable[[StepInfo], Any]  # True stops the run after this step


class RunWatch:
    """Everything that watches a run. `metrics`: by step."""

    def __init__(
        self,
        step: Step,
        validation: Validation | None = None,
        validate_every: int = 0,
        callbacks: Sequence[Callback] = (),
        tensorboard: str | os.PathLike[str] | None = None,
        **how: Any,
    ) -> None:
        """how: threads and isa of the validation."""
        self._step, self._validation, self._every, self._how = step, validation, validate_every, how
        self._callbacks = tuple(callbacks)
        self._events = None if tensorboard is None else EventFiles(tensorboard)
        self.metrics: dict[int, Metrics] = {}

    def open(self, start: int, metrics: Mapping[int, Metrics]) -> None:
        """Begin after step `start`, with the metrics of the steps before."""
        self.metrics.update(metrics)
        if self._events is not None:
            self._events.open(start)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    def see(self, s: int, runner: StepRunner) -> None:
        """Compute the metrics of a step that has just been made; those that need no validation are there
        where it fails."""
        names = self._step.names.states
        norm = float(runner.state[names.index(NORM)]) if NORM in names else None
        rate = None if self._step.rate is None else self._step.rate(s)
        self.metrics[s] = Metrics(rate, norm)
        if self._validation is not None and s % self._every == 0:
            state = dict(zip(names, runner.state, strict=True))
            loss = self._validation.loss(s, state, **self._how)
            self.metrics[s] = replace(self.metrics[s], validation_loss=loss)

    def tell(self, s: int, loss: float, runner: StepRunner) -> bool:
        """Hand a step to those who watch; whether one of them stops the run."""
        numbers = asdict(self.metrics[s])
        if self._events is not None:
            self._events.write(s, {"loss": loss, **numbers})
        if not self._callbacks:
            return False

        def state() -> dict[str, Array]:
            pairs = zip(self._step.names.states, runner.state, strict=True)
            return {name: np.array(x) for name, x in pairs}

        info = StepInfo(s, loss, **numbers, _state=state)
        try:
            answers = [c(info) for c in self._callbacks]  # all of them are asked
            return any(x is True for x in answers)
        finally:
            info._state = None
