"""Training steps: a model, a loss and an optimizer compiled into one program, and the state it changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ree.compiler.instance import Instance
from ree.compiler.ir import Graph
from ree.errors import ArtifactError, InputError, ReeError
from ree.kernels.canonical import canonical
from ree.kernels.opdef import Array
from ree.optim import Optimizer
from ree.program import Names, Program
from ree.runtime.hashing import hash_array
from ree.runtime.inputs import array_of
from ree.runtime.session import Session
from ree.traces.trace import Trace, tensors_root

if TYPE_CHECKING:
    from ree.compiler.training.divisors import Divisors


class NonFiniteLoss(ReeError):
    """The loss of a step is NaN or infinite; the state is as it was before the step."""


def compile_step(
    model: Any,
    loss: Callable[[Any, tuple[Any, ...]], Any],
    optimizer: Optimizer,
    example_batch: Sequence[Any],
    *,
    seed: int = 0,
    accumulate: int = 1,
) -> Step:
    """Compile one training step.

    loss(model, batch) returns one f32 number. example_batch: tensors with the shapes of every later
    batch. seed: of the random numbers in the model, not of its initial parameters. accumulate: cut the
    leading axis of a batch into so many parts, one after the other, and average their gradients.
    Raises CaptureError, UnsupportedError.
    """
    import torch

    from ree.compilation import dense
    from ree.compiler.training.step import capture_step

    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if not callable(loss):
        raise InputError(f"loss: expected loss(model, batch), got {type(loss).__name__}")
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"optimizer: expected one of ree.optim, got {type(optimizer).__name__}")
    if not isinstance(example_batch, tuple | list) or not all(
        isinstance(x, torch.Tensor) for x in example_batch
    ):
        raise InputError("batch: expected a tuple of tensors")
    if type(seed) is not int or not -(2**63) <= seed < 2**63:
        raise InputError(f"seed: expected a whole number of 64 bits, got {str(seed)[:40]}")
    if type(accumulate) is not int or accumulate < 1:
        raise InputError(f"accumulate: expected at least 1, got {str(accumulate)[:40]}")
    batch = [dense(x) for x in example_batch]
    rearranged = any(a is not b for a, b in zip(batch, example_batch, strict=True))
    c = capture_step(model, loss, optimizer, batch, seed, accumulate, rearranged)
    outputs = (*(f"new.{n}" for n in c.state_names), "loss")
    names = Names(c.input_names, outputs, c.weight_names, c.state_names)
    return Step(
        Program(c.graph, names, c.weights), c.initial, accumulate, c.divisors, optimizer.rate
    )


class Step:
    """A compiled training step with the state to start from.

    `graph` has the batch as inputs, frozen tensors as weights, everything that changes as states;
    `initial` is in the order of names.states.
    """

    def __init__(
        self,
        program: Program,
        initial: Sequence[Array] = (),
        accumulate: int = 1,
        divisors: Divisors | None = None,
        rate: Callable[[int], float] | None = None,
    ) -> None:
        if not program.graph.states:
            raise ArtifactError("the artifact is not a training step")
        self.program = program
        self.initial = tuple(map(canonical, initial))
        self.accumulate = accumulate
        # what the loss divides by, where a batch is cut into parts; learning rate of step 1, 2, ...
        self.divisors, self.rate = divisors, rate
        self._function: Program | None = None

    @property
    def graph(self) -> Graph:
        return self.program.graph

    @property
    def names(self) -> Names:
        return self.program.names

    @property
    def weights(self) -> Sequence[Array]:
        return self.program.weights

    @property
    def program_hash(self) -> bytes:
        return self.program.program_hash

    @property
    def weights_root(self) -> bytes:
        return self.program.weights_root

    @property
    def instance(self) -> Instance:
        return self.program.instance({})

    def state_root(self, state: Sequence[Array]) -> bytes:
        """Merkle root over the states' tensor hashes, by name."""
        return tensors_root([hash_array(x) for x in state])

    def batch(self, tensors: Sequence[Any]) -> list[Array]:
        """A batch as arrays; InputError unless its shapes and dtypes are those of the program."""
        if len(tensors) != len(self.graph.inputs):
            raise InputError(
                f"batch: expected {len(self.graph.inputs)} tensors, got {len(tensors)}"
            )
        out = []
        for name, x, t in zip(self.names.inputs, tensors, self.graph.inputs, strict=True):
            a = array_of(name, x, t)
            if a.shape != t.dims:
                raise InputError(
                    f"{name}: expected shape {list(t.dims)}, got {list(a.shape)}",
                    "every batch has the shapes of the first",
                )
            out.append(a)
        return out

    def runner(
        self, threads: int | None = None, isa: str | None = None, fuse: bool = True
    ) -> StepRunner:
        """Something that runs steps, from the initial state."""
        return StepRunner(self, threads, isa, fuse)

    def save(self, path: str | Path) -> None:
        """Write the program as an artifact directory; the state is not part of it."""
        from ree.artifact import save

        save(self.program, path)

    @classmethod
    def load(cls, path: str | Path) -> Step:
        """The step of an artifact, without a state; ArtifactError."""
        from ree.artifact import load

        return cls(load(path))

    def as_function(self) -> Program:
        """The same program with the states as inputs ahead of the batch; its operators are the same."""
        if self._function is None:  # made once, so that its kernels are compiled once
            from ree.compiler.training.states import states_as_inputs

            names = Names(
                (*self.names.states, *self.names.inputs), self.names.outputs, self.names.weights
            )
            self._function = Program(states_as_inputs(self.graph), names, self.weights)
        return self._function


class StepRunner:
    """Runs a step again and again on a state of its own: a session that stops before the state changes where
    the loss is not finite. `state` may be read between runs; it is not to be written to."""

    def __init__(
        self, step: Step, threads: int | None = None, isa: str | None = None, fuse: bool = True
    ) -> None:
        self.step = step
        self.session = Session(step.program, step.initial or None, threads=threads, isa=isa, fuse=fuse,
                               commit_after=len(step.graph.states))  # fmt: skip

    @property
    def state(self) -> list[Array]:
        return self.session.state

    @property
    def state_bytes(self) -> int:
        return self.session.state_bytes

    @property
    def intact(self) -> bool:
        """False while a step overwrites the state, after one that failed there, and before there is one."""
        return self.session.intact

    def load(self, state: Sequence[Array]) -> None:
        """Take over a copy of a state; InputError if it does not fit."""
        self.session.load(state)

    def run(self, batch: Sequence[Any]) -> np.float32:
        """One step; the loss. NonFiniteLoss, before the state changes, if it is NaN or infinite; InputError
        after a step that failed while it changed the state."""
        (loss,) = self.session.advance(self.step.batch(batch), _must_be_finite)
        return np.float32(loss.reshape(()))

    def trace(self, batch: Sequence[Any]) -> Trace:
        """The operator-level trace of a step from the current state, which does not change."""
        return self.session.trace_of(self.step.batch(batch))


def _must_be_finite(outputs: Sequence[Array]) -> None:
    loss = np.float32(outputs[0].reshape(()))
    if not np.isfinite(loss):
        raise NonFiniteLoss(f"the loss is {loss}", "the state is kept as it was before the step")
