"""Programs: a captured graph with its weights, ready to run on inputs of any allowed shape."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from ree.compiler.instance import Instance, bind_all, commit
from ree.compiler.ir import Graph, Node, Origin
from ree.compiler.passes.expansion import has_any
from ree.compiler.passes.load_time import Prelude
from ree.compiler.plan.planner import multiplied_by
from ree.errors import InputError, public
from ree.float_mode import clean_floats
from ree.kernels import registry  # noqa: F401  (operators)
from ree.kernels.opdef import Array
from ree.kernels.types import TensorType
from ree.program_text import program_line, program_text
from ree.result import Names, Result, value_of
from ree.runtime import settings
from ree.runtime.backend import SHAPES, Backend, Options
from ree.runtime.body_tree import BodyTree
from ree.runtime.cache import LeastRecent
from ree.runtime.cpu import Cpu
from ree.runtime.hashing import tensor_hash_of
from ree.runtime.inputs import array_of, bind_symbols, canonical_array, tensors_among
from ree.runtime.weights import Weights
from ree.traces.tensor import tensor_hash
from ree.traces.trace import Trace, ValueInfo, make_trace, tensors_root

if TYPE_CHECKING:
    from ree.artifact.reading import ArtifactContents

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
        initial: Sequence[Array] = (),
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.graph, self.names = graph, names
        self.files = dict(files or {})  # what an artifact keeps beside the program, by name
        self._kin: Program | None = None  # whose weights these are
        self.weights = Weights([canonical_array(np.asarray(w, order="C")) for w in weights])
        self.examples = dict(examples or {})
        self.initial = tuple(
            canonical_array(np.asarray(x, order="C")) for x in initial
        )  # of the states
        self.program_hash = graph.program_hash()
        # by the values of the symbols; what is not used for longest is made again
        self._bound: LeastRecent[tuple[int, ...], Graph] = LeastRecent(SHAPES)
        self._instances: LeastRecent[tuple[int, ...], Instance] = LeastRecent(SHAPES)
        self.cpu = Cpu()
        self._devices: dict[str, Backend] = {"cpu": self.cpu}
        self.lock = settings.ForkLock()  # over devices that are being added

    @classmethod
    def of(cls, read: ArtifactContents) -> Program:
        """The program of what was read of an artifact; ArtifactError if its weights were altered."""
        program = cls(read.graph, read.names, read.weights, read.examples, read.initial, read.files)
        read.check_weights(program.weights_root)
        return program

    def sibling(self, graph: Graph, names: Names) -> Program:
        """A program of the same weights, which are hashed once for both, and kept once: in panels, where it is
        run and reads them so."""
        packed = {r.index for r in multiplied_by(self.graph)}
        self.weights.detach(i for i in range(len(self.weights)) if i not in packed)
        other = Program(graph, names, ())
        other.weights, other._kin = self.weights, self
        other.cpu.packed, other.cpu.holding = self.cpu.packed, self.weights
        return other

    @public
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        values = self.flat(args, kwargs)
        quick = self.cpu.quick
        outputs = None if quick is None else quick(values)
        return (
            self._run(values).value if outputs is None else value_of(outputs, self.names.structure)
        )

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
        return [BodyTree(w) for w in self.weights] if self._kin is None else self._kin.weight_bodies

    @cached_property
    def weight_hashes(self) -> list[bytes]:
        """The weights' tensor hashes, by name."""
        if self._kin is not None:
            return self._kin.weight_hashes
        return [tensor_hash(w, body_root=lambda _, w=w: BodyTree(w).root()) for w in self.weights]  # type: ignore[misc]

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
        """Run on inputs; trace is None, "io" or "ops". keep_values, of an "ops" trace, also returns
        every value that it hashes. device: cpu, cuda, cuda:N, interpret, ptx:sm_90; by default where the inputs
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
        if keep_values and trace != "ops":
            raise InputError("keep_values: has no effect without an ops trace", 'trace="ops"')
        if self.graph.states:
            raise InputError(
                "the program has states, which a run changes", "run it in a ree.Session"
            )
        as_torch, home = tensors_among(values)
        backend: Backend = self.cpu
        if device is not None or home is not None:
            named = device_name(device)
            backend = self._backend(home or "cpu" if named is None else named)
        default = trace is None and fuse and threads is None and isa is None
        options = Options(trace, keep_values, fuse, threads, isa, as_torch and default)
        inputs = backend.take(self, values, options)
        env = self.bind_symbols(inputs)
        done = backend.run(self, inputs, env, options)
        made = None
        if trace is not None:
            n = len(inputs)
            made = self.make_trace(
                env, done.ends[:n], done.ends[n:], done.digests if trace == "ops" else None
            )
        return Result(
            backend.give(done.outputs, as_torch, home), made, dict(done.kept), self.names.structure
        )

    def _backend(self, device: str) -> Backend:
        """What runs on a device, which is found and given the weights when it is first asked for."""
        with self.lock:
            if device not in self._devices:
                from ree.runtime.gpu import Gpu

                self._devices[device] = Gpu(device, self.weights)
            return self._devices[device]

    # inputs

    def arrays(self, values: Sequence[Any]) -> list[Array]:
        """The inputs as everything that hashes or keeps them must have them: in canonical bits.
        InputError for what does not fit."""
        return [array_of(n, v, t)
                for n, v, t in zip(self.names.inputs, values, self.graph.inputs, strict=True)]  # fmt: skip

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
    def bound(
        self, env: Mapping[str, int], made: Prelude | None = None, kept: Collection[str] = ()
    ) -> Graph:
        """The graph with its symbols bound, `made` and `kept` as in `bind_all`; InputError for shapes that a
        rule refuses."""

        def bind() -> Graph:
            try:
                return bind_all(self.graph, env, made, kept)
            except ValueError as e:
                raise InputError(f"the program does not accept these shapes: {e}") from e

        alone = made or has_any(self.graph, kept)
        return bind() if alone else self._bound.get_or_make(self.sizes(env), bind)

    @clean_floats
    def instance(self, env: Mapping[str, int]) -> Instance:
        """The instance for bound symbols, which traces and disputes speak of."""
        bound = self.bound(env)
        return self._instances.get_or_make(self.sizes(env), lambda: commit(self.graph, bound))

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
