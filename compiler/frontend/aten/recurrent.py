"""torch's recurrent layers over an open time, which torch.export would write out and so fix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ree.compiler.frontend.importer import Importer, aten
from ree.compiler.frontend.watch import at, here
from ree.compiler.ir import Kind, Ref
from ree.errors import CaptureError

_LIBRARY = torch.library.Library("ree", "FRAGMENT")
_LIBRARY.define(
    "recurrent(Tensor x, Tensor[] states, Tensor weight, Tensor? bias, Tensor? projection, str kind, "
    "bool reverse, str name) -> Tensor[]"
)


@torch.library.register_fake("ree::recurrent", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _shapes(x: Tensor, states: Sequence[Tensor], *rest: Any) -> list[Tensor]:
    """The operator lives in captured graphs alone, where nothing has elements."""
    return [x.new_empty((*x.shape[:2], states[0].shape[1])), *map(torch.empty_like, states)]


@aten("ree.recurrent")
def _recurrent(
    m: Importer, x: Ref, states: tuple[Ref, ...], weight: Ref, bias: Ref | None, projection: Ref | None,
    kind: str, reverse: bool, name: str,
) -> tuple[Ref, ...]:  # fmt: skip
    op, _, nonlinearity = kind.partition("_")
    attrs: dict[str, bool] = {"bias": bias is not None, "reverse": reverse}
    if op == "lstm":
        attrs["projection"] = projection is not None
    if nonlinearity:
        attrs["relu"] = nonlinearity == "relu"
    dtypes = {m.narrow.get(s, m.type(s).dtype) for s in (x, *states, weight)}
    half = dtypes.pop() if len(dtypes) == 1 else None
    given = [s for s in (x, *states, weight, bias, projection) if s is not None]
    if half is not None:  # each call of a step is rounded, as torch does
        given = [m.cast(s, half) for s in given]
    origin = m.builder.origin
    origin = replace(origin, module=f"{origin.module} {name}".strip())
    node = m.builder.add_node(op, tuple(given), attrs, origin)
    return tuple(Ref(Kind.VALUE, node.first + i) for i in range(len(node.results)))


KINDS: dict[Any, str] = {
    torch.lstm: "lstm",
    torch.gru: "gru",
    torch.rnn_tanh: "rnn_tanh",
    torch.rnn_relu: "rnn_relu",
}
_NAMES = ("input", "hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional",
          "batch_first")  # fmt: skip


class OpenTime(TorchFunctionMode):  # type: ignore[misc]
    """While open, a recurrent layer whose time is open is one operator a layer and direction.

    torch's decomposition leaves out dropout between layers; here it stays.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch._VF._pack_padded_sequence:
            raise CaptureError(
                f"packed sequences are not compiled{at(here())}: their shapes depend on data",
                "pass padded tensors, and gather what stands at each row's last step",
            )
        kind = KINDS.get(func) if isinstance(func, type(torch.lstm)) else None
        if kind is None or torch.compiler.is_dynamo_compiling():
            return func(*args, **kwargs)
        given = dict(zip(_NAMES, args, strict=False)) | kwargs
        if set(given) != set(_NAMES) or isinstance(given["params"], Tensor):
            return func(*args, **kwargs)  # of packed sequences
        time = given["input"].shape[1 if given["batch_first"] else 0]
        drops = given["train"] and given["dropout"] and given["num_layers"] > 1
        if isinstance(time, int) and not drops:
            return func(*args, **kwargs)
        return _layers(func, kind, given, isinstance(time, int))


def _layers(func: Any, kind: str, given: dict[str, Any], fixed: bool) -> tuple[Tensor, ...]:
    """What `func` returns, by layers and directions."""
    x, hx, biases, dropout = (given[k] for k in ("input", "hx", "has_biases", "dropout"))
    hx = [hx] if isinstance(hx, Tensor) else list(hx)
    directions = 2 if given["bidirectional"] else 1
    projects = len(hx) == 2 and hx[0].shape[2] != hx[1].shape[2]
    size = 2 + 2 * bool(biases) + projects
    params = [list(given["params"][i : i + size]) for i in range(0, len(given["params"]), size)]
    states = list(zip(*(h.unbind(0) for h in hx), strict=True))
    x = x.transpose(0, 1) if given["batch_first"] else x
    last: list[list[Tensor]] = []
    for layer in range(given["num_layers"]):
        both = range(layer * directions, (layer + 1) * directions)
        if fixed:
            of = [torch.stack([states[i][k] for i in both]) for k in range(len(hx))]
            own = [p for i in both for p in params[i]]
            x, *after = func(x, of if len(of) == 2 else of[0], own, biases, 1, 0.0, given["train"],
                             directions == 2, False)  # fmt: skip
            last += map(list, zip(*(a.unbind(0) for a in after), strict=True))
        else:
            outs = []
            for i in both:
                y, *after = _direction(kind, x, states[i], params[i], biases, i > both[0], layer)
                outs.append(y)
                last.append(after)
            x = torch.cat(outs, 2) if directions == 2 else outs[0]
        if given["train"] and dropout and layer + 1 < given["num_layers"]:
            x = F.dropout(x, dropout, True)
    x = x.transpose(0, 1) if given["batch_first"] else x
    return (x, *(torch.stack(list(s), 0) for s in zip(*last, strict=True)))


def _direction(
    kind: str, x: Tensor, states: Sequence[Tensor], params: list[Tensor], biases: bool, reverse: bool,
    layer: int,
) -> list[Tensor]:  # fmt: skip
    w_ih, w_hh, *rest = params
    b_ih, b_hh = (rest.pop(0), rest.pop(0)) if biases else (None, None)
    name = f"l{layer}" + "_reverse" * reverse
    made: list[Tensor] = torch.ops.ree.recurrent(
        F.linear(x, w_ih, b_ih), list(states), w_hh, b_hh, rest[0] if rest else None, kind, reverse, name
    )  # fmt: skip
    return made
