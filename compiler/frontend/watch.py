"""What a user's code does while it is captured: where gradients stop, and what changes outside the graph.

While torch.export runs a module, autograd runs too, on tensors without data: whether a tensor requires a
gradient there is what eager mode says. A value that does not, made of one that does, is detached in the graph;
what else could make a gradient or a state another one is refused with its line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.nn import functional as F
from torch.nn.modules._functions import BackwardHookFunction
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction

from ree import errors
from ree.errors import CaptureError

_TORCH = os.path.dirname(torch.__file__) + os.sep
_COMPILER = os.path.dirname(os.path.dirname(__file__))
_MINE = tuple(d + os.sep for d in (_COMPILER, os.path.dirname(str(errors.__file__))))
_HELPERS = (
    *(os.path.join(os.path.dirname(os.__file__), f) for f in ("contextlib.py", "functools.py")),
    "<frozen", "<string>", "<eval_with_key>",
)  # fmt: skip
INPUT = "an input"  # the name of any of them
# reading or calling these in the forward pass would see, or change, the gradient that torch computes
_GRADIENT = {
    Tensor.register_hook: "a hook on the gradient of a tensor",
    Tensor.register_post_accumulate_grad_hook: "a hook on the gradient of a parameter",
    Tensor.backward: "a backward pass inside the forward pass",
    torch.autograd.backward: "a backward pass inside the forward pass",
    torch.autograd.grad: "a gradient taken inside the forward pass",
    Tensor.grad_fn.__get__: "torch's own graph of gradients (grad_fn) read in the forward pass",
    Tensor.grad.__get__: "a gradient (.grad) read in the forward pass",
    Tensor.grad.__set__: "a gradient (.grad) assigned in the forward pass",
    Tensor.detach_: "detach_, which detaches in place",
}
# what these say of an input depends on how it lies in memory
_LAYOUT = (Tensor.stride, Tensor.storage_offset, Tensor.is_contiguous, Tensor.as_strided, torch.as_strided,
           Tensor.untyped_storage)  # fmt: skip
_NORMS: dict[Any, tuple[str, ...]] = {
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training"),
    F.instance_norm: ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats"),
    torch.batch_norm: ("input", "weight", "bias", "running_mean", "running_var", "training"),
    torch.instance_norm: (
        "input",
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "use_input_stats",
    ),
}
_HINTS = {Tensor.detach_: "x = x.detach()"}


def short(path: str) -> str:
    """A path that does not name this machine's folders: from the package, or the file alone."""
    parts = path.replace(os.sep, "/").split("/")
    if "site-packages" in parts:
        return "/".join(parts[parts.index("site-packages") + 1 :])
    return parts[-1]


def is_users(path: str) -> bool:
    """Whether a file of code is neither torch's nor ours."""
    return not path.startswith((_TORCH, *_MINE, *_HELPERS))


def here() -> str:
    """The line of the user's code that is being run: file:line, or nothing."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            return f"{short(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _by_user() -> bool:
    """Whether the call that is being watched stands in the user's code itself."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_MINE):
        frame = frame.f_back
    return frame is not None and is_users(frame.f_code.co_filename)


def line_of(error: BaseException, outside: str) -> str:
    """The user's innermost line in an error's traceback, below the frame of file `outside`."""
    found, trace = "", error.__traceback__
    inside = False
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        inside = inside or path == outside
        if inside and is_users(path) and path != outside:
            found = f"{short(path)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def at(line: str) -> str:
    return f" at {line}" if line else ""


def twice(name: str, line: str) -> CaptureError:
    return CaptureError(f"'{name}' changes inside a checkpoint{at(line)}: torch changes it again when it "
                        "computes gradients", "change it outside, or use no checkpoint")  # fmt: skip


class CallWatch(TorchFunctionMode):  # type: ignore[misc]
    """Follows the calls of a forward pass. With `gradients` the graph is to be differentiated.

    `changed`: the line that changed a tensor in place, by the tensor's storage. CaptureError for what would
    not be what the user wrote.
    """

    def __init__(
        self, module: torch.nn.Module, gradients: bool, inputs: Iterable[Tensor] = (),
        rearranged: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.gradients = gradients
        self.rearranged = rearranged
        self.default = torch.get_default_dtype()
        self.owned = {id(t): name for name, t in _tensors(module)}
        self.stores = {_store(t): INPUT for t in inputs}
        self.stores.update((_store(t), name) for name, t in _tensors(module))
        self.parameters = {id(p) for p in module.parameters()}
        self.inner: dict[int, Tensor] = {}  # storages of values that carry a gradient
        self.changed: dict[str, str] = {}
        self.recomputed: dict[int, Tensor] = {}  # storages of values made inside a checkpoint
        self.functions: dict[str, str] = {}  # where a custom autograd function was called

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_dynamo_compiling():
            return func(*args, **kwargs)  # torch.cond traces its branches, this mode with them
        if torch.get_default_dtype() is not self.default:
            raise CaptureError(f"torch's default dtype changes in the forward pass{at(here())}",
                               "give it with the call: torch.zeros(n, dtype=torch.float64)")  # fmt: skip
        given = list(flat((args, kwargs)))
        if self.rearranged and func in _LAYOUT and _by_user():
            self._refuse_layout(given)
        if func == Tensor.data.__get__:
            func = Tensor.detach  # the same, and torch.export follows it
        if self.gradients:
            self._refuse(func, args, kwargs, given)
        in_place = _in_place(func, kwargs)
        targets = (
            list(flat(kwargs["out"] if in_place and "out" in kwargs else args[:1]))
            if in_place
            else []
        )
        if in_place:
            self._refuse_foreign(func, targets)
            if self.gradients and not torch.is_grad_enabled():
                args, kwargs = args[:1] + _stopped(args[1:]), {
                    k: v if k == "out" else _stopped(v) for k, v in kwargs.items()
                }  # fmt: skip
                if "out" in kwargs:
                    args = _stopped(args[:1]) + args[1:]
        before = [_version(t) for t in given]
        out = func(*args, **kwargs)
        touched = [t for t, version in zip(given, before, strict=True) if _version(t) != version]
        touched += _statistics(func, args, kwargs)
        for t in touched:
            self._note(t)
        if not self.gradients:
            return out
        self._refuse_unseen([*targets, *touched])
        if not in_place:
            self._stop_statistics(given, touched)
        if not in_place and any(map(_carries, given)):
            out = self._detached(out, {id(t) for t in given})
        again = self._is_in_checkpoint()
        for t in flat(out):
            if _carries(t) and _plain(t).grad_fn is not None:
                self.inner[_store(t)] = t
            if again:
                self.recomputed[_store(t)] = t
        return out

    def _refuse(self, func: Any, args: Any, kwargs: dict[str, Any], given: list[Tensor]) -> None:
        """What would give another gradient than torch's."""
        if func in _GRADIENT:
            raise CaptureError(f"{_GRADIENT[func]} is not part of a training step{at(here())}",
                               _HINTS.get(func, "write what it does as part of the forward pass"))  # fmt: skip
        if func in (Tensor.requires_grad_, Tensor.requires_grad.__set__):
            flag = args[1] if len(args) > 1 else kwargs.get("requires_grad", True)
            if args[0].requires_grad != flag and id(args[0]) in self.parameters:
                name = self.owned[id(args[0])]
                raise CaptureError(
                    f"requires_grad of parameter '{name}' changes in the forward pass{at(here())}",
                    "set it before training, or detach what is used",
                )
        if not torch.is_grad_enabled():
            self._note_function()
            return
        for t in given:
            self.refuse_function(t)
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
        if hooks is not None and any(map(_carries, given)):
            pack = hooks[0]
            if not self._is_in_checkpoint() and "save_on_cpu" not in getattr(
                pack, "__qualname__", ""
            ):
                raise CaptureError(f"saved_tensors_hooks are not part of a training step{at(here())}",
                                   "they could change the gradient")  # fmt: skip

    def _refuse_layout(self, given: list[Tensor]) -> None:
        if any(self.stores.get(_store(t)) == INPUT for t in given):
            raise CaptureError(
                f"how an input lies in memory is read{at(here())}, and an example is not contiguous",
                "give a contiguous example: x.contiguous()",
            )

    def refuse_function(self, t: Tensor) -> None:
        """CaptureError if t comes from an autograd function of the user's."""
        t = _plain(t)
        node = t.grad_fn if t.requires_grad else None
        if not isinstance(node, BackwardCFunction):
            return
        cls = type(node)._forward_cls
        if cls.__module__.startswith("torch._higher_order_ops."):
            return  # torch.cond and its kin stay calls of the graph, which the importer judges
        where = at(self.functions.get(cls.__name__, "") or here())
        if cls is CheckpointFunction:
            raise CaptureError(
                f"checkpoint with use_reentrant=True has a backward pass of its own{where}",
                "use_reentrant=False",
            )
        if cls is BackwardHookFunction:
            raise CaptureError(f"a module's backward hook is not part of a training step{where}")
        raise CaptureError(
            f"autograd function {cls.__name__} has a backward pass of its own{where}",
            "write it with differentiable operations: y + (z - y).detach() has the value of z and the "
            "gradient of y",
        )

    def _note_function(self) -> None:
        """Inside a custom autograd function, remember the line that called it."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code is torch.autograd.Function.apply.__code__:
                name = getattr(frame.f_locals.get("cls"), "__name__", "")
                while frame is not None and not is_users(frame.f_code.co_filename):
                    frame = frame.f_back
                if frame is not None:
                    self.functions.setdefault(
                        name, f"{short(frame.f_code.co_filename)}:{frame.f_lineno}"
                    )
                return
            frame = frame.f_back

    def _refuse_foreign(self, func: Any, targets: list[Tensor]) -> None:
        """A tensor that is neither in the graph nor a buffer would change once, now."""
        if func == Tensor.data.__set__:
            name = self.owned.get(id(targets[0]), "a tensor") if targets else "a tensor"
            raise CaptureError(f"the data of '{name}' are exchanged{at(here())}", "use copy_")
        for t in targets:
            if is_data(t):
                raise CaptureError(
                    "a tensor that is neither a buffer nor made in the forward pass is changed in "
                    f"place{at(here())}",
                    "register it as a buffer: register_buffer(name, tensor)",
                )

    def _refuse_unseen(self, targets: list[Tensor]) -> None:
        for t in targets:
            store = _store(t)
            unseen = not torch.is_grad_enabled() or not _carries(t)
            if unseen and store in self.inner and store not in self.stores:
                raise CaptureError(
                    f"a value that carries a gradient is changed in place, unseen by autograd{at(here())}",
                    "make a new tensor: x + (y - x).detach() has the value of y and the gradient of x",
                )

    def _stop_statistics(self, given: list[Tensor], touched: list[Tensor]) -> None:
        """What a call writes beside its result, running means and variances, carries no gradient."""
        stopped = [t for t in touched if t.is_floating_point() and not _carries(t)]
        # a region without gradients costs torch.export a pass over the graph: not for nothing
        if stopped and any(map(_carries, given)):
            with torch.no_grad():
                for t in stopped:
                    t.copy_(t.detach())

    def _note(self, t: Tensor) -> None:
        name = self.stores.get(_store(t))
        if name is None:
            return
        if self.gradients and self._is_in_checkpoint():
            raise twice(name, here())
        self.changed.setdefault(name, here())

    def refuse_recomputed(self, name: str, value: Tensor, line: str) -> None:
        """CaptureError if a buffer is assigned a value that was made inside a checkpoint."""
        if _store(value) in self.recomputed:
            raise twice(name, line)

    @staticmethod
    def _is_in_checkpoint() -> bool:
        """Whether the call is in a part of the forward pass that eager mode runs again for the gradients."""
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
        return hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"

    def _detached(self, out: Any, given: set[int]) -> Any:
        """Results that eager mode gives no gradient, cut off in the graph as well."""
        if isinstance(out, Tensor):
            if not out.is_floating_point() or id(out) in given:
                return out
            # a view under no_grad says that it requires one in a trace, unlike in eager mode
            stop = not _carries(out) or not torch.is_grad_enabled()
            return out.detach() if stop else out
        if type(out) in (tuple, list):
            return type(out)(self._detached(x, given) for x in out)
        if isinstance(out, tuple) and hasattr(out, "_fields"):
            return type(out)(*(self._detached(x, given) for x in out))
        if isinstance(out, tuple):  # torch.return_types
            return type(out)([self._detached(x, given) for x in out])
        return out


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_buffers(remove_duplicate=False)
    yield from module.named_parameters(remove_duplicate=False)


def _in_place(func: Any, kwargs: dict[str, Any]) -> bool:
    name = str(getattr(func, "__name__", ""))
    if (
        kwargs.get("out") is not None
        or func == Tensor.data.__set__
        or name in ("__setitem__", "set_")
    ):
        return True
    if name.startswith("__i") and name not in ("__invert__", "__index__", "__int__", "__init__"):
        return True
    return name.endswith("_") and not name.endswith("__") and func is not Tensor.requires_grad_


def _statistics(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """The running mean and variance that a call of a norm changes, which a trace does not count as changed."""
    if func not in _NORMS:
        return []
    given = {**dict(zip(_NORMS[func], args, strict=False)), **kwargs}
    training = given.get("training", given.get("use_input_stats", func is F.instance_norm))
    found = [given.get("running_mean"), given.get("running_var")] if training else []
    return [t for t in found if isinstance(t, Tensor)]


def _stopped(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.detach() if _carries(x) else x
    return type(x)(_stopped(v) for v in x) if type(x) in (tuple, list) else x


def flat(x: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dicts."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, tuple | list):
        for v in x:
            yield from flat(v)
    elif isinstance(x, dict):
        for v in x.values():
            yield from flat(v)


def _version(t: Tensor) -> int:
    return -1 if t.is_inference() else int(t._version)


def _plain(t: Tensor) -> Tensor:
    """The tensor inside the wrappers of torch.vmap, which never say that they require a gradient."""
    while torch._C._functorch.is_batchedtensor(t) or torch._C._functorch.is_gradtrackingtensor(t):
        t = torch._C._functorch.get_unwrapped(t)
    return t


def is_data(t: Tensor) -> bool:
    """Whether a tensor has elements of its own already, and is none that the trace has made."""
    t = _plain(t)
    return type(t) in (Tensor, torch.nn.Parameter) and not torch._is_functional_tensor(t)


def _carries(t: Tensor) -> bool:
    return bool(_plain(t).requires_grad)


def _store(t: Tensor) -> int:
    try:
        return int(_plain(t).untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):  # sparse
        return id(t)


def refuse_hooks(module: torch.nn.Module) -> None:
    """CaptureError if hooks on gradients are registered with a module or its parameters."""
    anywhere = torch.nn.modules.module
    if anywhere._global_backward_hooks or anywhere._global_backward_pre_hooks:
        raise CaptureError(
            "a backward hook on all modules is not part of a training step", "remove it"
        )
    for name, m in module.named_modules():
        if m._backward_hooks or m._backward_pre_hooks:
            raise CaptureError(
                f"module '{name or type(m).__name__}' has a backward hook, not part of a training step",
                "remove it",
            )
    for name, t in _tensors(module):
        if t._backward_hooks or getattr(t, "_post_accumulate_grad_hooks", None):
            raise CaptureError(
                f"parameter '{name}' has a hook on its gradient, not part of a training step",
                "remove it",
            )
