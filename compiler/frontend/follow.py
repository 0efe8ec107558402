"""A forward pass as the user wrote it, run by torch.export, with what it changes besides its results."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._functorch._aot_autograd.utils import register_buffer_assignment_hook
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from ree.compiler.frontend.python_state import ModuleState
from ree.compiler.frontend.repeat import Calls, again
from ree.compiler.frontend.source_lines import made_at, returned_at
from ree.compiler.frontend.watch import CallWatch, at, flat, refuse_hooks
from ree.errors import CaptureError

FORWARD = __file__  # below its frame in a traceback is the user's forward pass


@dataclass
class Pass:
    """What a forward pass changed in place, and the attributes that it assigned: their module, name, value
    and line."""

    lines: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, tuple[torch.nn.Module, str, Any, str]] = field(default_factory=dict)
    calls: Calls | None = None

    def narrowed(self) -> str:
        """The lines that made a condition on open sizes."""
        return ", ".join(self.calls.narrowed()) if self.calls else ""


def refuse_lazy(root: torch.nn.Module) -> None:
    """CaptureError for a parameter or buffer whose shape is not known before a first call."""
    for path, part in root.named_modules():
        for name, t in (*part._parameters.items(), *part._buffers.items()):
            if is_lazy(t):
                line = made_at(root, path) if path else ""
                raise CaptureError(
                    f"'{path}.{name}' of {type(part).__name__}{at(line)} is not initialised".replace(
                        "'.", "'"
                    ),
                    "call the model once before: model(*example_inputs)",
                )


class Unset:
    """Stands in an attribute whose value no forward pass may use before it assigns it."""


def changing(what: str, line: str) -> CaptureError:
    return CaptureError(f"'{what}' changes in the forward pass{at(line)}: a program has one value of it",
                        "keep what changes in a buffer of the same shape: register_buffer")  # fmt: skip


@contextmanager
def settled(changed: Pass) -> Iterator[None]:
    """The module as its next forward pass finds it: attributes with their new values, tensors unset."""
    before = []
    for module, name, value, _ in changed.attributes.values():
        before.append((module.__dict__, name, module.__dict__.get(name, Unset)))
        module.__dict__[name] = Unset() if isinstance(value, torch.Tensor) else value
    try:
        yield
    finally:
        for table, name, value in before:
            if value is Unset:
                table.pop(name, None)
            else:
                table[name] = value


@contextmanager
def followed(
    root: torch.nn.Module, gradients: bool, model: torch.nn.Module | None = None,
    functions: tuple[Callable[..., Any], ...] = (), rearranged: bool = False,
    allowed: Mapping[str, Any] | None = None, required: Collection[str] = (),
) -> Iterator[Pass]:  # fmt: skip
    """While open, root.forward keeps to what a program can hold.

    model: the part of root whose names the user knows; functions: those that forward calls; rearranged:
    inputs do not lie in memory as the caller's do; allowed: the only attributes that may change; required:
    names of parameters that require a gradient outside. The module is left as it was. CaptureError names the
    line of what is neither followed nor kept.
    """
    inner, pass_ = _whole(root), Pass()
    watched = model or root
    if gradients:
        refuse_hooks(watched)

    @functools.wraps(inner)
    def forward(*args: Any, **kwargs: Any) -> Any:
        state = ModuleState(watched, *functions)
        watch = CallWatch(watched, gradients, flat((args, kwargs)), rearranged)
        pass_.calls = calls = Calls()
        flags = _Flags(p for name, p in watched.named_parameters() if name in required)
        returned = functools.partial(returned_at, inner)
        try:
            with flags, watch, calls, _no_copies_of_torch():
                out = inner(*args, **kwargs)
            calls.end(out, returned)
            if gradients:
                for t in flat(out):
                    watch.refuse_function(t)
            for what, line in state.changes():
                place = state.attribute(what)
                if place is None or (allowed is not None and what not in allowed):
                    raise changing(what, line)
                pass_.attributes[what] = (*place, line)
            for name, _, new in state.assigned_buffers():
                watch.refuse_recomputed(name, new, state.line(name))
            out = _with_buffers(out, state, pass_.lines)
        finally:
            pass_.lines.update(watch.changed)
            state.restore()
        try:
            with flags:
                again(calls, inner, args, kwargs)
        finally:
            state.restore()
        return out

    hidden = {k: type(root.__dict__[k])() for k in HOOKS if root.__dict__.get(k)}
    with _attributes(root, forward=forward, **hidden):
        yield pass_


class _Flags(TorchFunctionMode):  # type: ignore[misc]
    """Parameters say that they require a gradient, as they do outside; while they are captured they do not."""

    def __init__(self, parameters: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._required = {id(p) for p in parameters}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func == torch.Tensor.requires_grad.__get__ and id(args[0]) in self._required:
            return True
        return func(*args, **(kwargs or {}))


@contextmanager
def _no_copies_of_torch() -> Iterator[None]:
    """Buffers that are assigned anew are written by `_with_buffers`; torch.export would write them once more,
    from values that may have changed by then: of self.a, self.b = self.b, self.a."""
    hooks = torch.nn.modules.module._global_buffer_registration_hooks
    theirs = [
        (k, f) for k, f in hooks.items()
        if getattr(f, "__qualname__", "").startswith(register_buffer_assignment_hook.__name__)
    ]  # fmt: skip
    for k, _ in theirs:
        del hooks[k]
    try:
        yield
    finally:
        hooks.update(theirs)


HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def _whole(root: torch.nn.Module) -> Callable[..., Any]:
    """root's forward with root's own hooks, which a call of root would run before and after it."""
    if not any(root.__dict__.get(k) for k in HOOKS):
        forward: Callable[..., Any] = root.forward
        return forward
    own, hooks = root.__dict__.get("forward"), {k: root.__dict__[k] for k in HOOKS}

    @functools.wraps(root.forward)
    def whole(*args: Any, **kwargs: Any) -> Any:
        with _attributes(root, forward=own, **hooks):
            return root(*args, **kwargs)

    return whole


@contextmanager
def _attributes(module: torch.nn.Module, **values: Any) -> Iterator[None]:
    """Attributes of a module for a while, None for none; then as they were."""
    before = {k: module.__dict__.get(k) for k in values}

    def put(values: Mapping[str, Any]) -> None:
        for k, v in values.items():
            if v is None:
                module.__dict__.pop(k, None)
            else:
                module.__dict__[k] = v

    put(values)
    try:
        yield
    finally:
        put(before)


def _with_buffers(out: Any, state: ModuleState, lines: dict[str, str]) -> Any:
    """`out`, after buffers that were assigned anew have their new values in place."""
    assigned = list(state.assigned_buffers())
    if not assigned:
        return out
    for name, old, new in assigned:
        lines.setdefault(name, state.line(name))
        if old.shape != new.shape or old.dtype is not new.dtype:
            raise CaptureError(
                f"buffer '{name}' is assigned another shape or type{at(lines[name])}: "
                f"{list(old.shape)} {old.dtype} becomes {list(new.shape)} {new.dtype}"
            )
    with torch.no_grad():
        # copies first: a value may be another buffer, and a result may be one
        out = torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.clone(), out)
        values = [new.detach().clone() for _, _, new in assigned]
        for (_, old, _), value in zip(assigned, values, strict=True):
            old.copy_(value)
    return out
