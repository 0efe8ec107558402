"""`torch.compile(model, backend="ree")`: inference, with the bits of the exported artifact.

The graph that torch.compile hands over still has its operators whole (attention, norms, linear), so
it goes through the importer that `ree.compile` uses: same rules, same bits. Tensors of the model are
weights of the program, other tensors are its inputs, numbers are part of it. Views of inputs and of
results are taken by torch, so that they alias what they do in eager mode.

A weight that changes is noticed by its storage, its version counter and 64 sampled elements: a change
of a few other elements through `.data` is the one kind that is not.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.export import Dim
from torch.fx import Graph, GraphModule, Node

from ree.compiler.frontend.capture import capture
from ree.compiler.frontend.torch_types import dtype_of, to_numpy
from ree.errors import CaptureError, InputError, ReeError, UnsupportedError
from ree.kernels.canonical import canonical
from ree.program import Names, Program

PROGRAMS = 16  # kept of one graph; the oldest goes first
SAMPLES = 64
READS = ("item", "tolist", "_local_scalar_dense")
SWITCHES = ("_set_grad_enabled", "_enter_inference_mode", "_exit_inference_mode")
INPLACE = {
    f
    for name, f in vars(operator).items()
    if name.startswith("i") and f"__{name}__" in vars(operator)
}


def ree(gm: Any, example_inputs: Sequence[Any]) -> Callable[..., list[Any]]:
    """The backend; gm is a torch.fx.GraphModule. Errors surface when the compiled model is called."""
    return _Compiled(gm)


class _Compiled:
    """One graph of torch.compile: what torch does of it, and the programs for the rest."""

    def __init__(self, gm: GraphModule) -> None:
        self.gm = gm
        self.places = [n for n in gm.graph.nodes if n.op == "placeholder"]
        self.weights = [i for i, n in enumerate(self.places) if _of_model(n)]
        self.numbers = [i for i, n in enumerate(self.places) if _is_number(n)]
        self.inputs = [i for i in range(len(self.places))
                       if i not in self.weights and i not in self.numbers]  # fmt: skip
        (self.results,) = next(n for n in gm.graph.nodes if n.op == "output").args
        self.bases: list[Node] = []  # what a program computes
        self.replayed: list[Node] = []  # what torch does with it: views and sizes
        for x in self.results:
            if isinstance(x, Node):
                self._need(x)
        mine = {*self.places, *self.replayed}
        self.needs_program = any(
            n.op.startswith(("call", "get")) and n not in mine and not _named(n, SWITCHES)
            for n in gm.graph.nodes
        )
        self.programs: dict[object, Program] = {}
        self.open = True  # whether dimensions may stay open
        self.states: list[_Weight] = []

    def _need(self, node: Node) -> None:
        """A node after all that it needs; a chain of views may be long."""
        seen: set[Node] = set()
        todo = [(node, False)]
        while todo:
            n, ready = todo.pop()
            if ready:
                self.replayed.append(n)
                continue
            if n in seen or n in self.bases or n in self.replayed or n.op == "placeholder":
                continue
            seen.add(n)
            if not (_is_scalar(n) or _is_view(n)):
                self.bases.append(n)
                continue
            todo.append((n, True))
            todo += [(x, False) for x in reversed(n.all_input_nodes)]

    def __call__(self, *args: Any) -> list[Any]:
        if torch.is_grad_enabled() and any(
            n.meta["example_value"].requires_grad for n in self.bases
        ):
            raise InputError(
                "the backend ree computes no gradients", "call the model under torch.no_grad()"
            )
        env: dict[Node, Any] = dict(zip(self.places, args, strict=True))
        if self.needs_program:
            program = self._program(args)
            if self.bases:
                given = [args[i].detach() for i in self.inputs]
                env.update(zip(self.bases, program.run(*given).outputs, strict=True))

        def value(x: Any) -> Any:
            return torch.fx.map_arg(x, env.__getitem__)

        for n in self.replayed:
            a, kw = value(n.args), value(n.kwargs)
            env[n] = (
                n.target(*a, **kw) if callable(n.target) else getattr(a[0], n.target)(*a[1:], **kw)
            )
        return [value(x) for x in self.results]

    def _program(self, args: Sequence[Any]) -> Program:
        """The program for these arguments, captured if there is none."""
        self._refresh([args[i] for i in self.weights])
        numbers = {i: _number(args[i]) for i in self.numbers}
        sizes, opened = self._open_sizes(args)
        fixed = tuple((i, repr(v)) for i, v in numbers.items() if i not in sizes)
        shapes = tuple((tuple(args[i].shape), args[i].dtype, args[i].device) for i in self.inputs)
        closed = tuple(
            tuple("any" if d in dims else s for d, s in enumerate(shape)) + (dtype, device)
            for (shape, dtype, device), dims in zip(shapes, opened, strict=True)
        )
        if any(opened) and self.open:
            found = self.programs.get((fixed, closed))
            if found is None:
                try:
                    found = self._capture(args, numbers, sizes, opened)
                    self._keep((fixed, closed), found)
                except UnsupportedError:
                    raise
                except CaptureError:
                    self.open = False
            if found is not None and _accepts(found, args, self.inputs):
                return found
        key = (fixed, tuple((i, numbers[i]) for i in sizes), shapes)
        if key not in self.programs:
            self._keep(key, self._capture(args, numbers, {}, None))
        return self.programs[key]

    def _keep(self, key: object, program: Program) -> None:
        if len(self.programs) >= PROGRAMS:
            self.programs.pop(next(iter(self.programs)))
        self.programs[key] = program

    def _open_sizes(self, args: Sequence[Any]) -> tuple[dict[int, tuple[int, int]], list[set[int]]]:
        """Numbers that are sizes of inputs, as (input, dimension), and each input's open dimensions."""
        opened: list[set[int]] = []
        at: dict[str, tuple[int, int]] = {}
        for j, i in enumerate(self.inputs):
            fake = self.places[i].meta["example_value"]
            dims = {d for d, s in enumerate(fake.shape) if isinstance(s, torch.SymInt)}
            for d in sorted(dims):
                at.setdefault(str(fake.shape[d]), (j, d))
            opened.append({d for d in dims if args[i].shape[d] > 1})
        named = ((i, at.get(str(self.places[i].meta["example_value"]))) for i in self.numbers)
        return {i: place for i, place in named if place is not None}, opened

    def _capture(
        self, args: Sequence[Any], numbers: dict[int, Any], sizes: dict[int, tuple[int, int]],
        opened: list[set[int]] | None,
    ) -> Program:  # fmt: skip
        module = self._module(numbers, sizes)
        # the examples' memory layout must not become a condition on later inputs
        examples = [args[i].detach().contiguous() for i in self.inputs]
        shapes = opened and tuple(dict.fromkeys(dims, Dim.AUTO) for dims in opened)
        try:
            got = capture(module, examples, {}, shapes)
        finally:
            while REGIONS:  # capture failed inside them
                _exit_autocast(REGIONS[-1])
        mine = {f"weight{j}": s.array for j, s in enumerate(self.states)}
        weights = [mine.get(name, w) for name, w in zip(got.weight_names, got.weights, strict=True)]
        return Program(
            got.graph, Names(got.input_names, got.output_names, got.weight_names), weights
        )

    def _module(self, numbers: dict[int, Any], sizes: dict[int, tuple[int, int]]) -> GraphModule:
        """The graph with inputs as its placeholders, the model's tensors as buffers, numbers in place,
        and the bases as results."""
        root: dict[str, Any] = {f"weight{j}": s.tensor for j, s in enumerate(self.states)}
        g = Graph()
        env: dict[Node, Any] = {self.places[i]: g.node_copy(self.places[i]) for i in self.inputs}
        for j, i in enumerate(self.weights):
            env[self.places[i]] = g.get_attr(f"weight{j}")
        for i, v in numbers.items():
            env[self.places[i]] = v
            if i in sizes:
                j, d = sizes[i]
                env[self.places[i]] = g.call_method("size", (env[self.places[self.inputs[j]]], d))
        for n in self.gm.graph.nodes:
            if n.op in ("placeholder", "output") or _named(n, SWITCHES):
                continue
            if _named(n, READS) and isinstance(n.args[0], Node):
                if isinstance(env[n.args[0]], Node):
                    where = (n.meta.get("stack_trace") or "").strip().splitlines()
                    raise CaptureError(
                        f"the model reads a number from a tensor: {where[-1].strip() if where else n}",
                        "keep it a tensor, or compute it outside the compiled function",
                    )
                env[n] = env[n.args[0]]
                continue
            if n.op in ("get_attr", "call_module"):
                root[n.target] = operator.attrgetter(n.target)(self.gm)
            env[n] = g.node_copy(n, env.__getitem__)
            if n.target in AUTOCAST:
                env[n].target = AUTOCAST[n.target]
        g.output(tuple(env[n] for n in self.bases))
        module = GraphModule(root, g)
        module.eval()
        return module

    def _refresh(self, tensors: list[Any]) -> None:
        """Programs keep what the weights were: new ones where a weight has changed."""
        if not self.states:
            self.states = [_Weight(t) for t in tensors]
            return
        changed = {f"weight{j}": j for j, (s, t) in enumerate(zip(self.states, tensors, strict=True))
                   if not s.still(t)}  # fmt: skip
        for j in changed.values():
            self.states[j] = _Weight(tensors[j])
        if changed:
            for key, p in self.programs.items():
                names = p.names.weights
                weights = [self.states[changed[name]].array if name in changed else w
                           for name, w in zip(names, p.weights, strict=True)]  # fmt: skip
                self.programs[key] = Program(p.graph, p.names, weights)


class _Weight:
    """A tensor of the model as it was: its data, and what tells whether it has changed."""

    def __init__(self, t: Any) -> None:
        if dtype_of(t.dtype) is None:
            raise UnsupportedError(
                f"a weight has dtype {t.dtype}", (), "convert the model with model.float()"
            )
        self.tensor = t.detach().clone()
        self.identity = self._identity(t)
        self.sample = _sample(t)
        self.before = None if self.sample is None else self.sample.tobytes()
        self._array: Any = None

    @property
    def array(self) -> Any:
        """The data, once, however many programs use them."""
        if self._array is None:
            a = to_numpy(self.tensor.contiguous())
            self._array = canonical(a)
        return self._array

    def still(self, t: Any) -> bool:
        if self._identity(t) != self.identity:
            return False
        return self.sample is None or self.sample.tobytes() == self.before

    @staticmethod
    def _identity(t: Any) -> tuple[object, ...]:
        version = None if t.is_inference() else t._version
        return t.data_ptr(), version, t.shape, t.stride(), t.dtype


def _sample(t: Any) -> Any:
    """Up to 64 elements of a CPU tensor, a view of its memory; None where there is no such view."""
    if t.device.type != "cpu" or not t.numel() or t.dtype is torch.bfloat16:
        return None
    t = t.detach()
    flat = t.as_strided((t.numel(),), (1,)) if t.is_contiguous() else t.permute(_by_stride(t))
    if flat.dim() != 1:
        if not flat.is_contiguous():
            return t.numpy()  # neither dense nor transposed: all of it
        flat = flat.as_strided((t.numel(),), (1,))
    return flat.numpy()[:: max(t.numel() // SAMPLES, 1)]


def _by_stride(t: Any) -> list[int]:
    return sorted(range(t.dim()), key=lambda d: -t.stride(d))


def _enter_autocast(*values: Any) -> Any:
    """Opens a region for torch.export, which does not do so by the call that torch.compile writes."""
    device, dtype, enabled, cache = values
    REGIONS.append(torch.autocast(device, dtype, enabled, cache))
    REGIONS[-1].__enter__()
    return REGIONS[-1]


def _exit_autocast(region: Any) -> None:
    REGIONS.remove(region)
    region.__exit__(None, None, None)


REGIONS: list[Any] = []  # open now; captures take turns
AUTOCAST = {torch.amp.autocast_mode._enter_autocast: _enter_autocast,
            torch.amp.autocast_mode._exit_autocast: _exit_autocast}  # fmt: skip


def _accepts(program: Program, args: Sequence[Any], inputs: Iterable[int]) -> bool:
    """Whether the shapes of the arguments fit; capture closes dimensions that cannot stay open."""
    try:
        program.instance(program.bind_symbols([args[i] for i in inputs]))
    except ReeError:
        return False
    return True


def _of_model(place: Node) -> bool:
    """Whether a placeholder is a tensor that belongs to the model."""
    if not isinstance(place.meta["example_value"], torch.Tensor) or _is_number(place):
        return False
    source = place.meta["grapharg"].source.guard_source
    return bool(source.is_specialized_nn_module() or source.is_unspecialized_nn_module())


def _is_number(place: Node) -> bool:
    """Whether a placeholder is a number; a float may arrive as a float64 tensor."""
    if not isinstance(place.meta["example_value"], torch.Tensor):
        return True
    return bool(getattr(place.meta.get("grapharg"), "pass_arg_as_tensor", False))


def _number(x: Any) -> Any:
    return x.item() if isinstance(x, torch.Tensor) else x


def _is_scalar(node: Node) -> bool:
    """Whether a call gives a number, from sizes and numbers."""
    if _named(node, ("scalar_tensor",)):
        return all(_is_scalar(x) for x in node.all_input_nodes)
    value = node.meta.get("example_value")
    return isinstance(
        value, int | float | torch.SymInt | torch.SymFloat | torch.SymBool | torch.Size
    )


def _is_view(node: Node) -> bool:
    """Whether a call gives another view of a tensor that goes into it, and changes nothing."""
    value = node.meta.get("example_value")
    if not isinstance(value, torch.Tensor) or node.op == "get_attr" or _mutates(node):
        return False
    mine = value.untyped_storage()._cdata
    tensors = (x.meta.get("example_value") for x in node.all_input_nodes)
    return any(isinstance(t, torch.Tensor) and t.untyped_storage()._cdata == mine for t in tensors)


def _mutates(node: Node) -> bool:
    name = str(getattr(node.target, "__name__", node.target))
    in_place = name.endswith("_") and not name.endswith("__")
    return (
        in_place
        or node.target in INPLACE
        or node.target is operator.setitem
        or "out" in node.kwargs
    )


def _named(node: Node, names: Sequence[str]) -> bool:
    return str(getattr(node.target, "__name__", node.target)) in names
