"""A forward pass run once more, to see that it makes the same calls: state that no inspection finds.

A number from a clock, a file, a counter inside a library's object or a hook's closure would stand in the
program as it was in one pass. The second pass leaves nothing in the graph.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, get_proxy_mode
from torch.overrides import TorchFunctionMode

from ree.compiler.frontend.source_lines import returned_at
from ree.compiler.frontend.watch import at, here, is_data, is_users, line_of, short
from ree.errors import CaptureError

SIZE = "a size"  # left open; the second pass may have found that it is fixed


class Calls(TorchFunctionMode):  # type: ignore[misc]
    """Notes torch's calls with their numbers, shapes and constants, or compares them with `before`."""

    def __init__(self, before: list[tuple[str, ...]] | None = None) -> None:
        super().__init__()
        self.made: list[tuple[str, ...]] = []
        self._before = before
        fake = torch._guards.detect_fake_mode()
        self._sizes: Any = fake.shape_env if fake is not None else None
        self._lines: dict[int, str] = {}  # of conditions on sizes that torch made inside a call

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_dynamo_compiling():
            return func(*args, **kwargs)
        name = str(getattr(func, "__name__", ""))
        if name != "__get__" and not name.startswith("sym_"):  # numbers made of sizes
            self._note(name, (args, kwargs))
        known = self._conditions()
        out = func(*args, **kwargs)
        if self._conditions() > known:
            self._lines.update(dict.fromkeys(range(known, self._conditions()), here()))
        return out

    def _conditions(self) -> int:
        return len(self._sizes.guards) if self._sizes is not None else 0

    def narrowed(self) -> list[str]:
        """The user's lines, at most three, at which sizes that are open became subject to a condition."""
        found = []
        for i in range(self._conditions()):
            place = self._sizes.guards[i].sloc.framework_loc
            own = getattr(place, "filename", "")
            if own and is_users(own):
                found.append(f"{short(own)}:{place.lineno}")
            elif i in self._lines:
                found.append(self._lines[i])
        return list(dict.fromkeys(found))[:3]

    def _note(self, name: str, given: Any, line: Callable[[], str] = here) -> None:
        call = (name, *_told(given))
        i = len(self.made)
        self.made.append(call)
        if self._before is not None and not (
            i < len(self._before) and _equal(self._before[i], call)
        ):
            raise other(f"{name}{at(line())}")

    def end(self, out: Any, line: Callable[[], str]) -> None:
        """What the pass returns, and at which line; the second one must have made all calls of the first."""
        self._note("return", out, line)


def again(first: Calls, forward: Callable[..., Any], args: Any, kwargs: Any) -> None:
    """Run a forward pass that has been traced once more, outside the graph; CaptureError if it differs."""
    mode = get_proxy_mode()
    if mode is None:
        return
    graph = mode.tracer.graph
    if any(isinstance(n.target, torch._ops.HigherOrderOperator) for n in graph.nodes):
        return  # torch.cond traces its branches, and only within a trace
    last = next(reversed(graph.nodes), None)
    inside = mode.tracer.module_stack.copy()
    second = Calls(first.made)
    try:
        with disable_proxy_modes_tracing(), _unbound(), second:
            out = forward(*args, **kwargs)
            second.end(out, partial(returned_at, forward))
    except CaptureError:
        raise
    except Exception as e:
        # torch's own trouble with a pass that is not traced says nothing about the user's code
        *_, (frame, _) = traceback.walk_tb(e.__traceback__)
        if is_users(frame.f_code.co_filename):
            raise other(f"an exception{at(line_of(e, __file__))}") from e
    finally:
        mode.tracer.module_stack = inside
        while (node := next(reversed(graph.nodes), None)) is not last:
            graph.erase_node(node)


@contextmanager
def _unbound() -> Iterator[None]:
    """Numbers that are read from tensors here need no place in the graph."""
    fake = torch._guards.detect_fake_mode()
    if fake is None or fake.shape_env is None:
        yield
        return
    with fake.shape_env.ignore_fresh_unbacked_symbols():
        yield


def other(where: str) -> CaptureError:
    return CaptureError(
        f"a second forward pass is not the same as the first, from {where}: a program has one value of "
        "what changes",
        "pass it as an input, or keep it in a buffer: register_buffer",
    )


def _equal(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    return len(first) == len(second) and all(
        a == b or SIZE in (a, b) for a, b in zip(first, second, strict=True)
    )


def _told(x: Any) -> Iterator[str]:
    """What of an argument becomes part of a program, as text."""
    if isinstance(x, torch.Tensor):
        yield str(x.dtype)
        yield from _told(tuple(x.shape))
        if is_data(x):
            yield _digest(x)
    elif isinstance(x, dict):
        for k, v in x.items():
            yield f"{k}="
            yield from _told(v)
    elif isinstance(x, tuple | list | set | frozenset):
        yield "["
        for v in x:
            yield from _told(v)
        yield "]"
    elif isinstance(x, np.ndarray):
        yield f"{x.dtype}{x.shape}{hashlib.sha256(x.tobytes()).hexdigest()}"
    elif isinstance(x, slice):
        yield from _told((x.start, x.stop, x.step))
    elif isinstance(x, bool | int | float | complex | str | bytes | torch.dtype | np.generic):
        yield repr(x)
    elif isinstance(x, torch.SymInt | torch.SymFloat | torch.SymBool):
        yield SIZE
    else:
        yield type(x).__name__


def _digest(x: torch.Tensor) -> str:
    with torch.utils._python_dispatch._disable_current_modes():
        raw = x.detach().contiguous().view(-1).view(torch.uint8).numpy()
    return hashlib.sha256(raw.tobytes()).hexdigest()
