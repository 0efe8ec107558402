"""Programs: a captured graph with its weights, ready to run on inputs of any allowed shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np

from ree import _core, settings
from ree.body_tree import BodyTree
from ree.compiler.float_mode import clean_floats
from ree.compiler.instance import Instance, make_instance
from ree.compiler.ir import Graph, Kind, Node, Origin, Ref, users
from ree.compiler.plan import plan
from ree.compiler.prelude import prelude, prelude_graph, without_prelude
from ree.compiler.torch_types import dtype_of, to_numpy, to_torch
from ree.errors import InputError, public
from ree.executor import Executable
from ree.kernels import opdef, registry  # noqa: F401  (operators)
from ree.kernels.abi import call
from ree.kernels.canonical import canonical
from ree.kernels.casts import cast_function, store
from ree.kernels.opdef import Array
from ree.kernels.scalar_numpy import evaluate as evaluate_scalar
from ree.kernels.types import DType, TensorType, affine, evaluate
from ree.result import Names, Result, program_line, program_text
from ree.traces.tensor import body_root, hash_from_root, tensor_hash
from ree.traces.trace import Trace, ValueInfo, make_trace, tensors_root

LEVELS = ("io", "ops")


class Program:
    """A compiled program.

    It is called as the module was, with arrays or tensors, and returns what the module's forward
    returns, holding tensors of the same kind. Nested inputs may also be given one by one, by name.
    """

    @clean_floats
    def __init__(
        self,
        graph: Graph,
        names: Names,
        weights: Sequence[Array],
        examples: Mapping[str, Array] | None = None,
    ) -> None:
        self.graph, self.names = graph, names
        self.weights = [canonical_array(np.asarray(w, order="C")) for w in weights]
        self.examples = dict(examples or {})
        self.program_hash = graph.program_hash()
        self._instances: dict[tuple[int, ...], Instance] = {}
        self._executables: dict[tuple[object, ...], Executable] = {}
        self._packed: dict[object, Any] = {}
        self._made: tuple[tuple[int, ...], list[Array]] | None = None
        self.on_device: dict[str, Any] = {}  # per GPU, kept by gpu_run
        self.lock = settings.ForkLock()

    @public
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._run(self._flat(args, kwargs), {}).value

    @property
    def inputs(self) -> dict[str, TensorType]:
        """Types of the inputs by name, in order."""
        return dict(zip(self.names.inputs, self.graph.inputs, strict=True))

    @property
    def outputs(self) -> dict[str, TensorType]:
        """Types of the outputs by name, in order."""
        types = map(self.graph.type_of, self.graph.outputs)
        return dict(zip(self.names.outputs, types, strict=True))

    def __repr__(self) -> str:
        return program_line(self)

    def __str__(self) -> str:
        return program_text(self)

    def __reduce__(self) -> tuple[object, ...]:
        from ree.artifact import from_files, to_files

        return from_files, (to_files(self),)

    @cached_property
    def weight_bodies(self) -> list[BodyTree]:
        """The trees over the weights' bytes."""
        return [BodyTree(w) for w in self.weights]

    @cached_property
    def weight_hashes(self) -> list[bytes]:
        """The weights' tensor hashes, by name."""
        pairs = zip(self.weights, self.weight_bodies, strict=True)
        return [tensor_hash(w, body_root=lambda _, b=b: b.root()) for w, b in pairs]  # type: ignore[misc]

    @cached_property
    def weights_root(self) -> bytes:
        """Merkle root over the weights' tensor hashes."""
        return tensors_root(self.weight_hashes)

    @public
    def run(
        self,
        /,
        *args: Any,
        trace: str | None = None,
        threads: int | None = None,
        isa: str | None = None,
        device: str | None = None,
        fuse: bool = True,
        keep_values: bool = False,
        **kwargs: Any,
    ) -> Result:
        """Run on inputs; trace is None, "io" or "ops". keep_values also returns every value that
        an "ops" trace hashes. device: cpu, cuda, cuda:N or interpret; by default where the inputs
        are. InputError for inputs that do not fit. An input that has the name of one of these options
        goes by position, or with run_named."""
        options = {"trace": trace, "threads": threads, "isa": isa, "device": device, "fuse": fuse,
                   "keep_values": keep_values}  # fmt: skip
        return self._run(self._flat(args, kwargs), options)

    @public
    def run_named(self, inputs: Mapping[str, Any], /, **options: Any) -> Result:
        """As `run`, inputs by name as files hold them, whatever the names are."""
        if not isinstance(inputs, Mapping):
            raise InputError(f"inputs: expected a dict, got {type(inputs).__name__}")
        return self._run(self._flat((), inputs, by_name=True), options)

    def _run(self, values: list[Any], options: Mapping[str, Any]) -> Result:
        result = self._run_flat(values, **options)
        return replace(result, structure=self.names.structure)

    @clean_floats
    def _run_flat(
        self,
        values: list[Any],
        trace: str | None = None,
        threads: int | None = None,
        isa: str | None = None,
        device: Any = None,
        fuse: bool = True,
        keep_values: bool = False,
    ) -> Result:
        if trace is not None and (not isinstance(trace, str) or trace not in LEVELS):
            raise InputError(f"trace level: expected io or ops, got {trace!r:.40}")
        if type(device).__module__ == "torch":
            device = str(device)
        if not isinstance(device, str | None):
            raise InputError(f"device: expected a name such as cpu or cuda:0, got {device!r:.40}")
        device = "cpu" if device == "cpu:0" else device
        as_torch = any(type(v).__module__.startswith("torch") for v in values)
        home = next((str(v.device) for v in values if getattr(v, "is_cuda", False)), None)
        device = device or home or "cpu"
        if device != "cpu":
            from ree.gpu_run import run_on

            result = run_on(self, values, device, trace, fuse, keep_values)
            if as_torch:
                return replace(result, outputs=tuple(x.to(home or "cpu") for x in result.outputs))
            return replace(result, outputs=tuple(to_numpy(x) for x in result.outputs))
        pool = settings.pool(threads)
        arrays = [array_of(n, v, t, pool, trace is not None or i in self._scanned)
                  for i, (n, v, t) in enumerate(zip(self.names.inputs, values, self.graph.inputs,
                                                    strict=True))]  # fmt: skip
        with self.lock:  # buffers belong to one run at a time
            env = self.bind_symbols(arrays)
            executable = self._executable(env, settings.isa(isa), trace == "ops",
                                          keep_values, fuse)  # fmt: skip
            outputs, digests, kept = executable.run(arrays, pool)
            made = None
            if trace is not None:
                made = self.make_trace(env, [hash_array(x) for x in arrays],
                                       [hash_array(x) for x in outputs],
                                       digests if trace == "ops" else None)  # fmt: skip
        return Result(tuple(to_torch(x) if as_torch else x for x in outputs), made, kept)

    # inputs

    def arrays(self, values: Sequence[Any]) -> list[Array]:
        """The inputs as everything that hashes or keeps them must have them: in canonical bits.
        InputError for what does not fit."""
        return [array_of(n, v, t)
                for n, v, t in zip(self.names.inputs, values, self.graph.inputs, strict=True)]  # fmt: skip

    @cached_property
    def _scanned(self) -> frozenset[int]:
        """Inputs whose NaNs must be canonical: all but those that only contractions read. Their results
        are canonical whatever the payload of a NaN they meet."""
        read = {
            r for r, n in users(self.graph) if opdef.get(n.op).form is not opdef.Form.CONTRACTION
        }
        read |= set(self.graph.outputs)
        return frozenset(i for i in range(len(self.graph.inputs)) if Ref(Kind.INPUT, i) in read)

    def _flat(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], by_name: bool = False
    ) -> list[Any]:
        """The inputs as given, in the program's order."""
        names, structure = self.names.inputs, self.names.structure
        if structure is not None and not (structure.is_flat and all(k in names for k in kwargs)):
            return structure.flatten(names, args, kwargs, by_name)
        if len(args) > len(names):
            raise InputError(f"expected {len(names)} inputs, got {len(args)}")
        given = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names:
                raise InputError(f"unknown input '{name}'", f"inputs are {', '.join(names)}")
            if name in given:
                raise InputError(f"input '{name}' is given twice")
            given[name] = value
        missing = [n for n in names if n not in given]
        if missing:
            raise InputError(f"missing input '{missing[0]}'", f"inputs are {', '.join(names)}")
        return [given[n] for n in names]

    def bind_symbols(self, arrays: Sequence[Any]) -> dict[str, int]:
        """Values of the symbols that the input shapes imply; InputError where they do not fit."""
        env: dict[str, int] = {}
        if not self.graph.symbols and all(
            a.shape == t.shape for t, a in zip(self.graph.inputs, arrays, strict=True)
        ):
            return env
        for name, t, a in zip(self.names.inputs, self.graph.inputs, arrays, strict=True):
            if a.ndim != t.rank:
                raise InputError(f"input '{name}': expected {t}, got rank {a.ndim}")
            for d, size in zip(t.shape, a.shape, strict=True):
                form = affine(d)
                if form is None:
                    continue
                symbol, factor, more = form
                value, rest = divmod(size - more, factor)
                if rest or value < 0:
                    raise InputError(f"input '{name}': expected {t}, got shape {list(a.shape)}")
                if env.setdefault(symbol, value) != value:
                    raise InputError(
                        f"input '{name}': expected {t} with {symbol}={env[symbol]}, got shape {list(a.shape)}"
                    )
        for s in self.graph.symbols:
            if not s.low <= env[s.name] <= s.high:
                raise InputError(
                    f"dimension {s.name}: expected {s.low} to {s.high}, got {env[s.name]}"
                )
        for name, t, a in zip(self.names.inputs, self.graph.inputs, arrays, strict=True):
            want = tuple(evaluate(d, env) for d in t.shape)
            if a.shape != want:
                raise InputError(
                    f"input '{name}': expected shape {list(want)}, got {list(a.shape)}"
                )
        return env

    # execution

    @clean_floats
    def instance(self, env: Mapping[str, int]) -> Instance:
        """The instance for bound symbols."""
        key = tuple(env[s.name] for s in self.graph.symbols)
        if key not in self._instances:
            try:
                self._instances[key] = make_instance(self.graph, env)
            except ValueError as e:
                raise InputError(f"the program does not accept these shapes: {e}") from e
        return self._instances[key]

    def _executable(
        self, env: Mapping[str, int], isa: str, hash_values: bool, keep: bool, fuse: bool
    ) -> Executable:
        instance = self.instance(env)
        key = (instance.digest, isa, hash_values, keep, fuse)
        if key not in self._executables:
            graph, weights = instance.graph, self.weights
            if not hash_values and not keep:
                values, made = self._prelude()
                if values:
                    graph, weights = without_prelude(graph, values), [*weights, *made]
            if len(self._executables) >= 16:  # many shapes: drop the oldest buffers
                self._executables.pop(next(iter(self._executables)))
            recipe = plan(
                graph,
                panel=_core.panel(isa),
                hash_values=hash_values,
                keep_values=keep,
                fuse=fuse,
            )
            self._executables[key] = Executable(graph, recipe, isa, weights, self._packed)
        return self._executables[key]

    def _prelude(self) -> tuple[tuple[int, ...], list[Array]]:
        """Values that follow from the weights alone, made once."""
        if self._made is None:
            values = prelude(self.graph)
            made: list[Array] = []
            if values:
                g, isa = prelude_graph(self.graph, values), settings.isa()
                e = Executable(g, plan(g, panel=_core.panel(isa)), isa, self.weights, {})
                made = e.run((), settings.pool())[0]
            self._made = values, made
        return self._made

    def make_trace(
        self,
        env: Mapping[str, int],
        inputs: Sequence[bytes],
        outputs: Sequence[bytes],
        digests: Mapping[int, bytes] | None,
    ) -> Trace:
        """The trace of a run from tensor hashes of its ends and, for an ops trace, body roots of
        its values."""
        instance = self.instance(env)
        types = instance.graph.value_types()
        values = None
        if digests is not None:
            values = [tensor_hash_of(t, digests[v]) if v in digests else bytes(32)
                      for v, t in enumerate(types)]  # fmt: skip
        return make_trace(
            numeric_id=instance.numeric_id,
            program=instance.program,
            instance=instance.digest,
            weights_root=self.weights_root,
            inputs=inputs,
            outputs=outputs,
            values=values,
            infos=value_infos(instance.graph) if digests is not None else (),
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the artifact directory `path`; ReeError if that cannot be done."""
        from ree.artifact import save

        save(self, path)


def value_infos(g: Graph) -> tuple[ValueInfo, ...]:
    """What travels beside a trace: per value, operator, type and origin."""
    return tuple(
        ValueInfo(n.op, str(t), n.origin.name, n.origin.location, n.origin.code, n.origin.module)
        for n in g.nodes
        for t in n.results
    )


def hash_array(x: Array) -> bytes:
    """Tensor hash, the body root by the csrc kernel."""
    return tensor_hash(x, body_root=fast_body_root)


def tensor_hash_of(t: TensorType, root: bytes) -> bytes:
    """Tensor hash from a type and a body root."""
    return hash_from_root(t.dtype.code, t.dims, root)


def fast_body_root(x: Array) -> bytes:
    """Body root of a contiguous array by the csrc kernel."""
    x = np.ascontiguousarray(x)
    out = np.zeros(32, np.uint8)
    p = _core.Plan(settings.isa())
    p.add(*call("tree_hash", data=0, root=1, bytes=x.nbytes))
    p.run(settings.pool(), [x.ctypes.data, out.ctypes.data])
    return out.tobytes()


def origin_of(g: Graph, value: int) -> tuple[Node, Origin]:
    """The node that defines a value, and where it comes from."""
    node = g.producers()[value]
    return node, node.origin


def array_of(
    name: str, value: Any, t: TensorType, pool: _core.Pool | None = None, scan: bool = True
) -> Array:
    """A contiguous array of the input's dtype in canonical bits, but f32 only if `scan`; may be the caller's
    memory."""
    if type(value).__module__.startswith("torch"):
        if dtype_of(value.dtype) is None or str(value.layout) != "torch.strided":
            raise InputError(f"input '{name}': expected {t}, got {value.dtype}, {value.layout}")
        if value.is_meta:
            raise InputError(f"input '{name}': the tensor is on the meta device and holds no data")
        value = to_numpy(value)
    try:
        a = np.asarray(value)
    except Exception as e:  # what is no array says so in many ways
        raise InputError(f"input '{name}': expected {t}, got no array: {str(e)[:100]}") from e
    if a.dtype != t.dtype.numpy:
        a = _converted(name, value, a, t)
    if not a.flags.c_contiguous:
        a = np.ascontiguousarray(a)
    return canonical_array(a, pool) if scan or t.dtype is not DType.F32 else a


def canonical_array(a: Array, pool: _core.Pool | None = None) -> Array:
    """A contiguous array in canonical bits; itself if it has no others."""
    if a.dtype != np.float32:
        return canonical(a)
    address = a.__array_interface__["data"][0]  # quicker than a.ctypes.data
    return canonical(a) if _core.has_nan(pool or settings.pool(), address, a.size) else a


def _converted(name: str, value: Any, a: Array, t: TensorType) -> Array:
    """Python's numbers as an array of another dtype; InputError for anything else."""
    if isinstance(value, bool | int | float | list | tuple) and a.dtype.kind in "bif":
        return _exactly(name, a, t)
    try:
        dtype = DType.of(a.dtype)
    except ValueError as e:
        raise InputError(f"input '{name}': expected {t}, got dtype {a.dtype}") from e
    raise InputError(f"input '{name}': expected dtype {t.dtype.text}, got {dtype.text}")


def _exactly(name: str, a: Array, t: TensorType) -> Array:
    """Python's numbers as t: rounded to a float type; InputError if an integer type cannot hold one."""
    if t.dtype is DType.BF16:
        with np.errstate(over="ignore"):
            return store(
                evaluate_scalar(cast_function(DType.F32, t.dtype), a.astype(np.float32)), t.dtype
            )
    with np.errstate(all="ignore"):
        y = a.astype(t.dtype.numpy)
        if t.dtype not in (DType.F32, DType.F16):
            lost = np.nonzero((y.astype(a.dtype) != a).reshape(-1))[0]
            if lost.size:
                value = a.reshape(-1)[lost[0]]
                raise InputError(f"input '{name}': expected {t}, got {value}, which it cannot hold")
    return y


__all__ = ["Names", "Program", "Result", "body_root", "hash_array"]
