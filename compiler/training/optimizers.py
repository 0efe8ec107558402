"""Optimizers and learning-rate schedules, as operators of the step's graph.

The arithmetic is torch.optim's, written once in a fixed order. What depends on the step alone (rate, bias
corrections) is computed once per step inside the program; powers of beta are running products in the
state, never the host's pow.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from ree.compiler.frontend.importer import Importer
from ree.compiler.ir import Ref
from ree.errors import InputError
from ree.float_mode import clean_floats
from ree.kernels import opdef
from ree.kernels.opdef import Array
from ree.kernels.types import DType

F32 = DType.F32
Shapes = Mapping[str, tuple[int, ...]]
Refs = dict[str, Ref]
GRADIENT_NORM = "gradient_norm"
GROUP_KEYS = ("lr", "weight_decay")
_LARGEST = float(np.finfo(np.float32).max)


def _check(
    name: str, value: Any, ok: Callable[[float], bool], want: str, kind: Any = (int, float)
) -> None:
    """InputError unless a number is of its kind, finite as float32 and in its range."""
    good = isinstance(value, kind) and not isinstance(value, bool)
    if not good or not abs(value) <= _LARGEST or not ok(value):
        what = "a whole number, " if kind is int else ""
        raise InputError(f"{name}: expected {what}{want}, got {str(value)[:40]}")


class _Ops:
    """Arithmetic on sources and Python floats, each operation rounded once."""

    def __init__(self, m: Importer) -> None:
        self.m = m

    def __call__(self, op: str, *args: Ref | float) -> Ref:
        return self.m.add(
            op, *(x if isinstance(x, Ref) else self.m.scalar(float(x), F32) for x in args)
        )


@clean_floats
def _number(op: str, *args: Any) -> Array:
    """What an operator gives for numbers, by its reference."""
    return opdef.apply(op, [np.asarray(x, np.float32) for x in args])[0]


_Op = Callable[..., Any]  # _Ops in a graph, _number outside

# schedules


@dataclass(frozen=True)
class Constant:
    """The learning rate as given, after `warmup` steps of linear growth."""

    warmup: int = 0

    def __post_init__(self) -> None:
        _check("warmup", self.warmup, lambda v: v >= 0, "0 or more", int)

    def factor(self, op: _Op, t: Any) -> Any:
        """What multiplies the rate at step t (f32, from 0); None for 1."""
        if not self.warmup:
            return None
        return op("minimum", op("div", op("add", t, 1.0), self.warmup), 1.0)


@dataclass(frozen=True)
class Linear(Constant):
    """Linear warm-up, then linear decay to `final` of the rate at step `steps`."""

    warmup: int = 0
    steps: int = 1
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("steps", self.steps, lambda v: v > self.warmup, "more than warmup", int)
        _check("final", self.final, lambda v: v >= 0, "0 or more")

    def factor(self, op: _Op, t: Any) -> Any:
        decay = op("add", self.final, op("mul", 1 - self.final, self.shape(op, self._left(op, t))))
        rise = super().factor(op, t)
        return decay if rise is None else op("mul", rise, decay)

    def _left(self, op: _Op, t: Any) -> Any:
        """1 until the end of the warm-up, 0 from `steps` on."""
        done = op("div", op("sub", t, self.warmup), self.steps - self.warmup)
        return op("sub", 1.0, op("minimum", op("maximum", done, 0.0), 1.0))

    def shape(self, op: _Op, left: Any) -> Any:
        return left


@dataclass(frozen=True)
class Cosine(Linear):
    """Linear warm-up, then half a cosine down to `final` of the rate at step `steps`."""

    def shape(self, op: _Op, left: Any) -> Any:
        angle = op("mul", math.pi, op("sub", 1.0, left))
        return op("mul", 0.5, op("add", 1.0, op("cos", angle)))


# optimizers


@dataclass(frozen=True)
class Optimizer(ABC):
    """What all optimizers share.

    lr: learning rate; schedule multiplies it. clip_norm: greatest norm of all gradients together.
    groups: (regular expression, overrides) pairs; the first that matches `parameter.NAME` (re.search) and
    has the key changes its lr or weight_decay. gradient_norm: keep the norm of all gradients, before
    clipping, as the state `optimizer.gradient_norm`.
    """

    lr: float = 1e-3
    _: KW_ONLY
    weight_decay: float = 0.0
    schedule: Constant = Constant()
    clip_norm: float | None = None
    groups: Sequence[tuple[str, Mapping[str, float]]] = ()
    gradient_norm: bool = False

    def __post_init__(self) -> None:
        _check("lr", self.lr, lambda v: v >= 0, "0 or more")
        _check("weight_decay", self.weight_decay, lambda v: v >= 0, "0 or more")
        if self.clip_norm is not None:
            _check("clip_norm", self.clip_norm, lambda v: v > 0, "more than 0")
        if not isinstance(self.schedule, Constant):
            raise InputError("schedule: expected one of ree.optim's Constant, Linear, Cosine, "
                             f"got {type(self.schedule).__name__}")  # fmt: skip
        if not isinstance(self.groups, tuple | list):
            raise InputError(
                f"groups: expected a list of (pattern, settings), got {type(self.groups).__name__}"
            )
        for group in self.groups:
            _check_group(group)
        if not isinstance(self.gradient_norm, bool):
            raise InputError(
                f"gradient_norm: expected True or False, got {str(self.gradient_norm)[:40]}"
            )

    def check_groups(self, names: Iterable[str]) -> None:
        """InputError, naming the pattern, where a group matches none of the states `parameter.NAME`."""
        names = list(names)
        for pattern, _ in self.groups:
            if not any(re.search(pattern, name) for name in names):
                shown = ", ".join(names[:8]) + (
                    f" and {len(names) - 8} more" if len(names) > 8 else ""
                )
                raise InputError(f"group '{pattern}' matches no parameter", f"trained: {shown}")

    def setting(self, name: str, key: str) -> float:
        """lr or weight_decay of a parameter, by the name of its state, `parameter.NAME`."""
        for pattern, change in self.groups:
            if re.search(pattern, name) and key in change:
                return float(change[key])
        return float(getattr(self, key))

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 1, with the bits that the program computes; of
        parameters whose group does not change it."""
        factor = self.schedule.factor(_number, np.float32(step - 1))
        return float(np.float32(self.lr) if factor is None else _number("mul", self.lr, factor))

    def all_slots(self, shapes: Shapes) -> dict[str, Array]:
        """`slots` and the norm of the gradients, if it is kept."""
        norm = {GRADIENT_NORM: np.zeros((), np.float32)} if self.gradient_norm else {}
        return {**self.slots(shapes), **norm}

    @abstractmethod
    def slots(self, shapes: Shapes) -> dict[str, Array]:
        """The optimizer's own state before the first step, by name."""

    def update(
        self, m: Importer, parameters: Refs, grads: Refs, slots: Refs, step: Ref
    ) -> tuple[Refs, Refs]:
        """New parameters and new slots."""
        op = _Ops(m)
        t = m.cast(step, F32)
        new_slots: Refs = {}
        norm = _norm(op, grads) if self.gradient_norm or self.clip_norm is not None else None
        if norm is not None and self.gradient_norm:
            new_slots[GRADIENT_NORM] = norm
        if norm is not None and self.clip_norm is not None:
            clip = op("minimum", op("div", self.clip_norm, op("add", norm, 1e-6)), 1.0)
            grads = {name: op("mul", g, clip) for name, g in grads.items()}
        common = self._common(op, slots, new_slots, t)
        factor = self.schedule.factor(op, t)
        rates: dict[float, Ref | float] = {}
        new: Refs = {}
        for name, p in parameters.items():
            lr = self.setting(name, "lr")
            if lr not in rates:
                rates[lr] = lr if factor is None else op("mul", lr, factor)
            new[name] = self._one(op, name, p, grads[name], slots, new_slots, rates[lr], common)
        return new, new_slots

    def _common(self, op: _Ops, slots: Refs, new_slots: Refs, t: Ref) -> Any:
        """What is computed once per step."""
        return t

    @abstractmethod
    def _one(
        self, op: _Ops, name: str, p: Ref, g: Ref, slots: Refs, new_slots: Refs, lr: Ref | float, common: Any
    ) -> Ref:  # fmt: skip
        """The new value of one parameter."""


def _check_group(group: Any) -> None:
    if not isinstance(group, tuple | list) or len(group) != 2:
        raise InputError(f"group: expected (pattern, settings), got {str(group)[:40]}")
    pattern, change = group
    if not isinstance(pattern, str):
        raise InputError(f"group: expected a regular expression, got {str(pattern)[:40]}")
    try:
        re.compile(pattern)
    except re.error as e:
        raise InputError(f"group '{pattern[:40]}': not a regular expression: {e}") from e
    if not isinstance(change, Mapping):
        raise InputError(f"group '{pattern}': expected settings by name, got {str(change)[:40]}")
    for key, value in change.items():
        if key not in GROUP_KEYS:
            raise InputError(f"group '{pattern}': cannot change {str(key)[:40]}",
                             "a group changes lr or weight_decay")  # fmt: skip
        _check(f"group '{pattern}': {key}", value, lambda v: v >= 0, "0 or more")


def _norm(op: _Ops, grads: Refs) -> Ref:
    """Norm of all gradients together; squares are summed by the sum rule in each gradient, then over
    gradients by name, ascending."""
    total: Ref | None = None
    for g in grads.values():
        flat = op.m.view(g, (math.prod(op.m.type(g).dims),))
        part = op.m.add("sum", op("mul", flat, flat), dim=0, keepdim=False)
        total = part if total is None else op("add", total, part)
    assert total is not None
    return op("sqrt", total)


@dataclass(frozen=True)
class SGD(Optimizer):
    """torch.optim.SGD: momentum, dampening, Nesterov, weight decay added to the gradient."""

    _: KW_ONLY
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("momentum", self.momentum, lambda v: v >= 0, "0 or more")
        _check("dampening", self.dampening, lambda v: True, "a finite number")
        if not isinstance(self.nesterov, bool):
            raise InputError(f"nesterov: expected True or False, got {str(self.nesterov)[:40]}")
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise InputError("nesterov: expected momentum and no dampening")

    def slots(self, shapes: Shapes) -> dict[str, Array]:
        if not self.momentum:
            return {}
        return {f"momentum.{name}": np.zeros(s, np.float32) for name, s in shapes.items()}

    def _one(
        self, op: _Ops, name: str, p: Ref, g: Ref, slots: Refs, new_slots: Refs, lr: Ref | float, common: Any
    ) -> Ref:  # fmt: skip
        decay = self.setting(name, "weight_decay")
        if decay:
            g = op("add", g, op("mul", decay, p))
        if self.momentum:
            slot = f"momentum.{name}"
            fresh: Ref = g
            if self.dampening:  # the first gradient enters whole
                first = op.m.add("eq", common, op.m.scalar(0.0, F32))
                fresh = op("mul", op.m.add("where", first, op.m.scalar(1.0, F32),
                                           op.m.scalar(1 - self.dampening, F32)), g)  # fmt: skip
            v = op("add", op("mul", self.momentum, slots[slot]), fresh)
            new_slots[slot] = v
            g = op("add", g, op("mul", self.momentum, v)) if self.nesterov else v
        return op("sub", p, op("mul", lr, g))


@dataclass(frozen=True)
class Adam(Optimizer):
    """torch.optim.Adam: weight decay added to the gradient."""

    _: KW_ONLY
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise InputError(f"betas: expected two numbers, got {str(self.betas)[:40]}")
        for i, b in enumerate(self.betas):  # as float32: a beta that rounds to 1 divides by 0
            _check(f"betas[{i}]", b, lambda v: v >= 0 and bool(np.float32(v) < 1), "0 to below 1")
        _check("eps", self.eps, lambda v: v >= 0, "0 or more")

    def slots(self, shapes: Shapes) -> dict[str, Array]:
        out: dict[str, Array] = {"beta1": np.ones((), np.float32), "beta2": np.ones((), np.float32)}
        for kind in ("mean", "square"):
            out.update({f"{kind}.{name}": np.zeros(s, np.float32) for name, s in shapes.items()})
        return out

    def _common(self, op: _Ops, slots: Refs, new_slots: Refs, t: Ref) -> Any:
        """1 - beta1^t and sqrt(1 - beta2^t), t counted from 1."""
        for i, beta in enumerate(self.betas, start=1):
            new_slots[f"beta{i}"] = op("mul", slots[f"beta{i}"], beta)
        first = op("sub", 1.0, new_slots["beta1"])
        return first, op("sqrt", op("sub", 1.0, new_slots["beta2"]))

    def _decayed(self, op: _Ops, name: str, p: Ref, g: Ref, lr: Ref | float) -> tuple[Ref, Ref]:
        decay = self.setting(name, "weight_decay")
        return (p, op("add", g, op("mul", decay, p))) if decay else (p, g)

    def _one(
        self, op: _Ops, name: str, p: Ref, g: Ref, slots: Refs, new_slots: Refs, lr: Ref | float, common: Any
    ) -> Ref:  # fmt: skip
        correction, root = common
        p, g = self._decayed(op, name, p, g, lr)
        b1, b2 = self.betas
        mean = op("add", op("mul", b1, slots[f"mean.{name}"]), op("mul", 1 - b1, g))
        square = op(
            "add", op("mul", b2, slots[f"square.{name}"]), op("mul", op("mul", 1 - b2, g), g)
        )
        new_slots[f"mean.{name}"], new_slots[f"square.{name}"] = mean, square
        size = op("div", lr, correction)
        below = op("add", op("div", op("sqrt", square), root), self.eps)
        return op("sub", p, op("mul", size, op("div", mean, below)))


@dataclass(frozen=True)
class AdamW(Adam):
    """torch.optim.AdamW: parameters shrink by lr * weight_decay before the step."""

    _: KW_ONLY
    weight_decay: float = 0.01

    def _decayed(self, op: _Ops, name: str, p: Ref, g: Ref, lr: Ref | float) -> tuple[Ref, Ref]:
        decay = self.setting(name, "weight_decay")
        if not decay:
            return p, g
        keep = op("sub", 1.0, op("mul", lr, decay))
        return op("mul", p, keep), g
