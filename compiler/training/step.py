"""A training step as one graph: forward, loss, gradients and update of a torch module.

The forward pass is captured by torch.export; gradients and update are built on the graph itself, so
that nothing of torch's backward formulas or optimizers is part of the program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ree.compiler import legal
from ree.compiler.frontend.aten.pairs import view_as_complex
from ree.compiler.frontend.capture import to_array
from ree.compiler.frontend.cumulative_norms import cumulative_norms
from ree.compiler.frontend.export import MUTATIONS, Exported, export
from ree.compiler.frontend.follow import refuse_lazy
from ree.compiler.frontend.importer import Importer
from ree.compiler.frontend.nodes import import_nodes
from ree.compiler.frontend.torch_types import dtype_of
from ree.compiler.frontend.watch import INPUT, at, short
from ree.compiler.gradients import rules  # noqa: F401  (registers them)
from ree.compiler.gradients.engine import NoGradient, backward
from ree.compiler.ir import Graph, Origin, Ref
from ree.compiler.passes.canonical import canonicalise
from ree.compiler.training.divisors import Divisors
from ree.compiler.training.optimizers import Optimizer
from ree.errors import CaptureError, UnsupportedError
from ree.float_mode import clean_floats
from ree.kernels.opdef import Array
from ree.kernels.types import DType, TensorType

PARAMETER, BUFFER, OPTIMIZER = "parameter.", "buffer.", "optimizer."
SEED, STEP = "seed", "step"


@dataclass(frozen=True)
class CapturedStep:
    """A step's graph with the names and data that belong beside it; `initial` is the first state."""

    graph: Graph
    input_names: tuple[str, ...]
    state_names: tuple[str, ...]
    weight_names: tuple[str, ...]
    initial: tuple[Array, ...]
    weights: tuple[Array, ...]
    divisors: Divisors | None = None  # of the loss, where a batch is cut into parts


class LossModule(torch.nn.Module):  # type: ignore[misc]
    """Model and loss as one module; its parameters are the model's."""

    def __init__(self, model: torch.nn.Module, loss: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, *batch: torch.Tensor) -> Any:
        loss = self._loss(self.model, batch)
        if not isinstance(loss, torch.Tensor):
            code = getattr(self._loss, "__code__", None)
            line = f"{short(code.co_filename)}:{code.co_firstlineno}" if code is not None else ""
            what = "None" if loss is None else f"{type(loss).__name__}, not a tensor"
            raise CaptureError(
                f"loss(model, batch) returns {what}{at(line)}", "return the loss, one number"
            )
        return loss


@clean_floats
def capture_step(
    model: torch.nn.Module,
    loss: Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], torch.Tensor],
    optimizer: Optimizer,
    batch: Sequence[torch.Tensor],
    seed: int = 0,
    accumulate: int = 1,
    rearranged: bool = False,
) -> CapturedStep:
    """The graph of one step on batches shaped like `batch`.

    The model is captured as it is, in training or evaluation mode. With accumulate = k the leading
    axis of every batch tensor is cut into k parts whose gradients are added in order, then divided
    by k. Raises CaptureError for a loss that is not one number, or a parameter without gradient.
    """
    parts = [_part(x, accumulate, 0) for x in batch]
    refuse_lazy(model)
    with cumulative_norms(model):
        exported = export(
            LossModule(model, loss),
            tuple(parts),
            {},
            gradients=True,
            model=model,
            functions=(loss,),
            rearranged=rearranged,
        )
    s = _Step(exported, model, optimizer, seed)
    inputs = [s.m.builder.input(_type_of(x)) for x in batch]
    s.forward_and_backward(
        [[_cut(s.m, x, accumulate, j) for x in inputs] for j in range(accumulate)]
    )
    graph = s.finish()
    divisors = s.divisors() if accumulate > 1 else None
    return CapturedStep(graph, tuple(f"batch{i}" for i in range(len(batch))), s.state_names,
                        s.weight_names, s.initial(), s.frozen(), divisors)  # fmt: skip


def _type_of(x: torch.Tensor) -> TensorType:
    dtype = dtype_of(x.dtype)
    if dtype is None:
        raise UnsupportedError(f"a batch has dtype {x.dtype}", (str(x.dtype),))
    return TensorType(dtype, tuple(x.shape))


def _part(x: torch.Tensor, k: int, j: int) -> torch.Tensor:
    if k == 1:
        return x
    if x.dim() == 0 or x.shape[0] % k:
        raise CaptureError(f"a batch of shape {list(x.shape)} cannot be cut into {k} equal parts")
    n = x.shape[0] // k
    return x[j * n : (j + 1) * n]


def _cut(m: Importer, x: Ref, k: int, j: int) -> Ref:
    if k == 1:
        return x
    n = m.type(x).dims[0] // k
    return m.take(x, 0, j * n, (j + 1) * n)


class _Step:
    """Builds the graph of a step."""

    def __init__(
        self, exported: Exported, model: torch.nn.Module, optimizer: Optimizer, seed: int
    ) -> None:
        program = exported.program
        self.program, self.optimizer = program, optimizer
        signature = program.graph_signature
        data = {**dict(program.state_dict), **dict(program.constants)}
        # what the forward pass changes, in the order of the graph's first outputs
        self.mutated = [s.target for s in signature.output_specs if s.kind in MUTATIONS]
        if signature.user_inputs_to_mutate:
            line = exported.changed.get(INPUT, "")
            raise CaptureError(
                f"the loss changes a batch in place{at(line)}", "make a new tensor instead"
            )
        used = {n.name for n in program.graph.nodes if n.op == "placeholder" and n.users}
        places = {
            **signature.inputs_to_parameters, **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }  # fmt: skip
        trainable = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
        first: dict[int, str] = {}  # tied tensors are one
        self.home: dict[str, str] = {}  # placeholder -> name of its state or weight
        self.data: dict[str, Array] = {}
        self.trained: list[str] = []
        states: dict[str, Array] = {}
        weights: dict[str, Array] = {}
        for placeholder, target in places.items():
            if (
                placeholder not in used and target not in self.mutated
            ):  # written alone is a state too
                continue
            tensor = data[target]
            name = target.removeprefix("model.")
            if id(tensor) in first:
                self.home[placeholder] = first[id(tensor)]
                continue
            if tensor.is_complex() and (id(tensor) in trainable or target in self.mutated):
                raise UnsupportedError(f"'{name}' is complex and changes in training", (name,),
                                       "hold torch.view_as_real of it")  # fmt: skip
            if id(tensor) in trainable:
                if tensor.dtype in (torch.bfloat16, torch.float16):
                    raise UnsupportedError(f"parameter '{name}' is trained, and {tensor.dtype}", (name,),
                                           "what is trained is float32: model.float(), or freeze it with "
                                           "requires_grad_(False)")  # fmt: skip
                if target in self.mutated:
                    raise CaptureError(f"parameter '{name}' is changed in the forward pass"
                                       f"{at(exported.changed.get(name, ''))}",
                                       "only tensors that are not trained can be")  # fmt: skip
                full = PARAMETER + trainable[id(tensor)]
                self.trained.append(full)
                states[full] = to_array(tensor, name)
            elif target in self.mutated:
                full = BUFFER + name
                states[full] = to_array(tensor, name)
            else:
                full = name
                weights[full] = to_array(tensor, name)
            first[id(tensor)] = self.home[placeholder] = full
        unused = set(trainable) - set(first)
        for name, p in model.named_parameters():
            if id(p) in unused:
                raise CaptureError(f"parameter '{name}' has no gradient: the loss does not depend on it",
                                   "freeze it with requires_grad_(False)")  # fmt: skip
        if not self.trained:
            raise CaptureError("no parameter is trainable", "see requires_grad_")
        self.trained.sort()
        optimizer.check_groups(self.trained)
        shapes = {name: states[name].shape for name in self.trained}
        for name, value in optimizer.all_slots(shapes).items():
            states[OPTIMIZER + name] = value
        states[SEED] = np.array(seed, np.int64)
        states[STEP] = np.array(0, np.int64)
        self.states, self.weights = dict(sorted(states.items())), dict(sorted(weights.items()))
        self.m = Importer()
        self.now: dict[str, Ref] = {}
        for name, x in self.weights.items():
            self.now[name] = self.m.builder.weight(TensorType(DType.of(x.dtype), x.shape))
        for name, x in self.states.items():
            self.now[name] = self.m.builder.state(TensorType(DType.of(x.dtype), x.shape))
        self.m.random = (self.now[SEED], self.now[STEP])
        self.loss: Ref | None = None

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(self.states)

    @property
    def weight_names(self) -> tuple[str, ...]:
        return tuple(self.weights)

    def initial(self) -> tuple[Array, ...]:
        return tuple(np.array(x) for x in self.states.values())

    def frozen(self) -> tuple[Array, ...]:
        return tuple(self.weights.values())

    def divisors(self) -> Divisors:
        """What the loss divides by that follows from the batch alone."""
        varying = {p for p, name in self.home.items() if name in self.states}
        return Divisors(self.program, varying)

    def forward_and_backward(self, batches: Sequence[Sequence[Ref]]) -> None:
        """Losses and gradients of the parts of a batch, then the update."""
        m, k = self.m, len(batches)
        wanted = [self.now[name] for name in self.trained]
        totals: list[Ref] = []
        for batch in batches:
            start = len(m.builder.nodes)
            loss = self._forward(batch)
            try:
                grads = backward(m, loss, wanted, start)
            except NoGradient as e:
                raise UnsupportedError(f"the loss cannot be differentiated: {e}", (str(e),)) from e
            for name, g in zip(self.trained, grads, strict=True):
                if g is None:
                    raise CaptureError(f"parameter '{name.removeprefix(PARAMETER)}' has no gradient: the "
                                       "loss does not vary with it",
                                       "freeze it with requires_grad_(False)")  # fmt: skip
            found = [g for g in grads if g is not None]
            pairs = zip(totals, found, strict=True)
            totals = [m.add("add", a, b) for a, b in pairs] if totals else found
            self.loss = loss if self.loss is None else m.add("add", self.loss, loss)
        if k > 1:
            n = m.scalar(float(k), DType.F32)
            totals = [m.add("div", g, n) for g in totals]
            assert self.loss is not None
            self.loss = m.add("div", self.loss, n)
        self._update(dict(zip(self.trained, totals, strict=True)))

    def _forward(self, batch: Sequence[Ref]) -> Ref:
        nodes = self.program.graph.nodes
        signature = self.program.graph_signature
        given = dict(zip(signature.user_inputs, batch, strict=True))
        for node in nodes:
            if node.op == "placeholder":
                if node.name in self.home:
                    ref = self.now[self.home[node.name]]
                    pair = node.meta["val"].is_complex()
                    self.m.env[node.name] = view_as_complex(self.m, ref) if pair else ref
                elif node.name in given:
                    self.m.env[node.name] = given[node.name]
        outputs = import_nodes(self.m, self.program)
        n = len(self.mutated)
        for target, ref in zip(self.mutated, outputs[:n], strict=True):
            name = BUFFER + target.removeprefix("model.")
            if name in self.now:
                self.now[name] = ref
        if len(outputs) != n + 1:
            raise CaptureError(f"loss: expected one tensor, got {len(outputs) - n}")
        loss = outputs[n]
        t = self.m.type(loss)
        if t.shape != () or t.dtype is not DType.F32:
            raise CaptureError(f"loss: expected one f32 number, got {t}", "reduce it: loss.mean()")
        return loss

    def _update(self, grads: dict[str, Ref]) -> None:
        self.m.builder.origin = Origin("optimizer", type(self.optimizer).__name__)
        slots = {name.removeprefix(OPTIMIZER): self.now[name]
                 for name in self.states if name.startswith(OPTIMIZER)}  # fmt: skip
        parameters = {name: self.now[name] for name in self.trained}
        new, new_slots = self.optimizer.update(self.m, parameters, grads, slots, self.now[STEP])
        self.now.update(new)
        self.now.update({OPTIMIZER + name: ref for name, ref in new_slots.items()})
        one = self.m.scalar(1, DType.I64)
        self.now[STEP] = self.m.add("add", self.now[STEP], one)

    def finish(self) -> Graph:
        assert self.loss is not None
        outputs = tuple(self.now[name] for name in self.states)
        try:
            g = canonicalise(self.m.builder.finish((*outputs, self.loss)))
            legal.check(g)
        except legal.IllegalGraph as e:
            raise UnsupportedError(f"beyond the limits of the contract: {e}", (str(e),)) from e
        return g
