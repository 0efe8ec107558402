"""`torch.compile(model, backend="ree")`: inference, with the bits of the exported artifact.

The graph that torch.compile hands over is exported again with its operators whole (attention, norms,
linear), so it goes through the importer that `ree compile` uses. Programs are cached by the shapes and
values that a call has; parameters are weights, and a parameter that was changed in place since is
noticed and captured again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ree.errors import InputError
from ree.program import Program

CACHED = 16  # programs of one graph


def ree(gm: Any, example_inputs: Sequence[Any]) -> Callable[..., list[Any]]:
    """The backend; gm is a torch.fx.GraphModule. Errors surface when the compiled model is called."""
    return _Compiled(gm)


class _Compiled:
    def __init__(self, gm: Any) -> None:
        self.gm = gm
        self.programs: dict[object, tuple[Program, list[int]]] = {}

    def __call__(self, *args: Any) -> list[Any]:
        import torch

        if torch.is_grad_enabled() and any(
            getattr(a, "requires_grad", False) for a in self._tensors(args)
        ):
            raise InputError(
                "the backend ree is for inference", "call the model under torch.no_grad()"
            )
        key = tuple(map(_key, args)) + tuple(
            (p.data_ptr(), p._version) for p in (*self.gm.parameters(), *self.gm.buffers())
        )
        if key not in self.programs:
            if len(self.programs) >= CACHED:
                self.programs.pop(next(iter(self.programs)))
            self.programs[key] = self._capture(args)
        program, constant = self.programs[key]
        given = [_plain(a) for a in args if _is_input(a)]
        outputs = iter(program.run(*given).outputs) if program is not None else iter(())
        results = self._results(args)
        return [next(outputs) if i not in constant else results[i] for i in range(len(results))]

    def _tensors(self, args: Sequence[Any]) -> list[Any]:
        return [*args, *self.gm.parameters()]

    def _results(self, args: Sequence[Any]) -> list[Any]:
        """What the graph returns without computing: inputs, numbers and None; other places are None."""
        places = [n for n in self.gm.graph.nodes if n.op == "placeholder"]
        values = dict(zip(places, args, strict=True))
        (out,) = next(n for n in self.gm.graph.nodes if n.op == "output").args
        return [values.get(x) if hasattr(x, "op") else x for x in out]

    def _capture(self, args: Sequence[Any]) -> tuple[Any, list[int]]:
        """(program of what is computed, places of results that are not)."""
        import torch

        from ree.compilation import compile

        (out,) = next(n for n in self.gm.graph.nodes if n.op == "output").args
        constant = [i for i, x in enumerate(out) if not hasattr(x, "op") or x.op == "placeholder"]
        if len(constant) == len(out):
            return None, constant
        gm, fixed = self.gm, list(args)
        tensors = [i for i, a in enumerate(args) if _is_input(a)]

        class Graph(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.gm = gm
                for i, a in enumerate(fixed):
                    if isinstance(a, torch.nn.Parameter):
                        self.register_parameter(f"p{i}", a)

            def forward(self, inputs: list[Any]) -> tuple[Any, ...]:
                full = [getattr(self, f"p{i}", a) for i, a in enumerate(fixed)]
                for i, x in zip(tensors, inputs, strict=True):
                    full[i] = x
                results = self.gm(*full)
                return tuple(x for i, x in enumerate(results) if i not in constant)

        with torch.no_grad():
            program = compile(Graph().eval(), ([_plain(args[i]).clone() for i in tensors],))
        return program, constant


def _is_input(a: Any) -> bool:
    """Whether an argument is an input of the program: a tensor that is no parameter."""
    import torch

    return isinstance(a, torch.Tensor) and not isinstance(a, torch.nn.Parameter)


def _key(a: Any) -> object:
    """What a program depends on: shape and dtype of inputs, state of parameters, numbers."""
    import torch

    if isinstance(a, torch.nn.Parameter):
        return (a.data_ptr(), a._version)
    if isinstance(a, torch.Tensor):
        return (tuple(a.shape), a.dtype, str(a.device))
    return a


def _plain(a: Any) -> Any:
    return a.detach()
