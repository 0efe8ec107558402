"""Programs: a captured graph with its weights, ready to run on inputs of any allowed shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from ree import _core
from ree.compiler.frontend.torch_types import to_numpy, to_torch
from ree.compiler.instance import Instance, bind_all, commit
from ree.compiler.ir import Graph, Kind, Node, Origin, Ref, users
from ree.compiler.passes.load_time import prelude, prelude_graph
from ree.compiler.plan.planner import plan
from ree.errors import InputError, public
from ree.float_mode import clean_floats
from ree.kernels import opdef, registry  # noqa: F401  (operators)
from ree.kernels.opdef import Array
from ree.kernels.types import TensorType
from ree.program_text import program_line, program_text
from ree.result import Names, Result
from ree.runtime import settings
from ree.runtime.cache import LeastRecent
from ree.runtime.data_tree import BodyTree
from ree.runtime.executable import Executable
from ree.runtime.hashing import hash_array, tensor_hash_of
from ree.runtime.inputs import array_of, bind_symbols, canonical_array, tensors_among
from ree.traces.tensor import tensor_hash
from ree.traces.trace import Trace, ValueInfo, make_trace, tensors_root

if TYPE_CHECKING:
    from ree.artifact.reading import Read

LEVELS = ("io", "ops")
SHAPES = 16  # instances and executables that a program keeps


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
        initial: Sequence[Array] = (),
    ) -> None:
        self.graph, self.names = graph, names
        self.weights = [canonical_array(np.asarray(w, order="C")) for w in weights]
        self.examples = dict(examples or {})
        self.initial = tuple(
            canonical_array(np.asarray(x, order="C")) for x in initial
        )  # of the states
        self.program_hash = graph.program_hash()
        # by the values of the symbols; what is not used for longest is made again
        self._bound: LeastRecent[tuple[int, ...], Graph] = LeastRecent(SHAPES)
        self._instances: LeastRecent[tuple[int, ...], Instance] = LeastRecent(SHAPES)
        self._executables: LeastRecent[tuple[object, ...], Executable] = LeastRecent(SHAPES)
        # weights in panels, as long as an executable reads them
        self.packed: WeakValueDictionary[object, Array] = WeakValueDictionary()
        self._made: tuple[tuple[int, ...], list[Array]] | None = None
        self.on_device: dict[str, Any] = {}  # per GPU, kept by gpu_run
        self.lock = settings.ForkLock()

    @classmethod
    def of(cls, read: Read) -> Program:
        """The program of what was read of an artifact; ArtifactError if its weights were altered."""
        program = cls(read.graph, read.names, read.weights, read.examples, read.initial)
        read.check_weights(program.weights_root)
        return program

    @public
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._run(self.flat(args, kwargs)).value

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
        from ree.artifact.writing import to_files

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
        return self._run(self.flat(args, kwargs), trace, threads, isa, device, fuse, keep_values)

    @public
    def run_named(self, inputs: Mapping[str, Any], /, **options: Any) -> Result:
        """As `run`, inputs by name as files hold them, whatever the names are."""
        if not isinstance(inputs, Mapping):
            raise InputError(f"inputs: expected a dict, got {type(inputs).__name__}")
        return self._run(self.flat((), inputs, by_name=True), **options)

    @clean_floats
    def _run(
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
        if self.graph.states:
            raise InputError(
                "the program has states, which a run changes", "run it in a ree.Session"
            )
        as_torch, home = tensors_among(values)
        if device is not None or home is not None:
            device = device_name(device) or home
            if device != "cpu":
                return self._run_on(values, device, trace, fuse, keep_values, as_torch, home)
        pool, isa = settings.pool(threads), settings.isa(isa)
        scan = self._scanned
        arrays = [array_of(n, v, t, pool, trace is not None or i in scan) for i, (n, v, t) in enumerate(
                  zip(self.names.inputs, values, self.graph.inputs, strict=True))]  # fmt: skip
        env = self.bind_symbols(arrays)
        executable = self.executable(
            env, isa, hash_values=trace == "ops", keep=keep_values, fuse=fuse
        )
        outputs, digests, kept = executable.run(arrays, pool)
        made = None
        if trace is not None:
            made = self.make_trace(env, [hash_array(x) for x in arrays], [hash_array(x) for x in outputs],
                                   digests if trace == "ops" else None)  # fmt: skip
        results = tuple(map(to_torch, outputs)) if as_torch else tuple(outputs)
        return Result(results, made, kept, self.names.structure)

    def _run_on(
        self, values: list[Any], device: str, trace: str | None, fuse: bool, keep: bool, as_torch: bool,
        home: str | None,
    ) -> Result:  # fmt: skip
        from ree.runtime.gpu_run import run_on

        result = run_on(self, values, device, trace, fuse, keep)
        if as_torch:
            outputs = tuple(x.to(home or "cpu") for x in result.outputs)
        else:
            outputs = tuple(map(to_numpy, result.outputs))
        return replace(result, outputs=outputs, structure=self.names.structure)

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
            r for r, n in users(self.graph) if opdef.form_of(n.op) is not opdef.Form.CONTRACTION
        }
        read |= set(self.graph.outputs)
        return frozenset(i for i in range(len(self.graph.inputs)) if Ref(Kind.INPUT, i) in read)

    def flat(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], by_name: bool = False
    ) -> list[Any]:
        """The inputs as given, in the program's order."""
        names, structure = self.names.inputs, self.names.structure
        flat = structure is None or structure.is_flat
        if flat and not kwargs and len(args) == len(names):
            return list(args)
        if structure is not None and not (flat and all(k in names for k in kwargs)):
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
        return bind_symbols(self.graph, self.names.inputs, arrays)

    def sizes(self, env: Mapping[str, int]) -> tuple[int, ...]:
        """Values of the symbols, in their order: what tells shapes apart."""
        return tuple([env[s.name] for s in self.graph.symbols])

    # execution

    @clean_floats
    def bound(self, env: Mapping[str, int]) -> Graph:
        """The graph with its symbols bound; InputError for shapes that a rule refuses."""
        return self._bound.get_or_make(self.sizes(env), lambda: self._bind(env))

    def _bind(self, env: Mapping[str, int], made: tuple[int, ...] = ()) -> Graph:
        """As `bind_all`."""
        try:
            return bind_all(self.graph, env, made)
        except ValueError as e:
            raise InputError(f"the program does not accept these shapes: {e}") from e

    @clean_floats
    def instance(self, env: Mapping[str, int]) -> Instance:
        """The instance for bound symbols, which traces and disputes speak of."""
        bound = self.bound(env)
        return self._instances.get_or_make(self.sizes(env), lambda: commit(self.graph, bound))

    def executable(
        self, env: Mapping[str, int], isa: str, *, hash_values: bool = False, keep: bool = False,
        fuse: bool = True, commit_after: int | None = None,
    ) -> Executable:  # fmt: skip
        """The compiled code for bound symbols; what it hashes and keeps, and commit_after, as `plan`."""
        key = (
            self.sizes(env),
            isa,
            hash_values,
            keep,
            fuse,
            commit_after,
        )

        def make() -> Executable:
            values, made = ((), []) if hash_values or keep else self._prelude()
            graph = self._bind(env, values) if values else self.bound(env)
            weights = [*self.weights, *made]
            recipe = plan(graph, panel=_core.panel(isa), hash_values=hash_values, keep_values=keep, fuse=fuse,
                          commit_after=commit_after)  # fmt: skip
            return Executable(graph, recipe, isa, weights, self.packed)

        return self._executables.get_or_make(key, make)

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
        from ree.artifact.writing import save

        save(self, path)


def from_files(files: Mapping[str, bytes]) -> Program:
    """The program of an artifact's files by name, checked as `ree.load` does; ArtifactError."""
    from ree.artifact.reading import read_files

    return Program.of(read_files(files))


def device_name(device: Any) -> str | None:
    """A device as given: its name, or a torch device; InputError for anything else."""
    if type(device).__module__ == "torch":
        device = str(device)
    if not isinstance(device, str | None):
        raise InputError(f"device: expected a name such as cpu or cuda:0, got {device!r:.40}")
    return "cpu" if device == "cpu:0" else device


def value_infos(g: Graph) -> tuple[ValueInfo, ...]:
    """What travels beside a trace: per value, operator, type and origin."""
    return tuple(
        ValueInfo(n.op, str(t), n.origin.name, n.origin.location, n.origin.code, n.origin.module)
        for n in g.nodes
        for t in n.results
    )


def origin_of(g: Graph, value: int) -> tuple[Node, Origin]:
    """The node that defines a value, and where it comes from."""
    node = g.producers()[value]
    return node, node.origin


__all__ = ["Names", "Program", "Result"]
