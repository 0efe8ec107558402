"""Running on the CPU: executables by shape and instruction set, weights packed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from ree import _core
from ree.compiler.frontend.torch_types import to_torch
from ree.compiler.ir import Graph, Kind, Ref
from ree.compiler.passes.load_time import Prelude, prelude, prelude_graph, stored_weights
from ree.compiler.plan.planner import plan
from ree.kernels import macro, opdef
from ree.kernels.opdef import Array
from ree.runtime import settings
from ree.runtime.backend import SHAPES, BackendResult, Options, Source
from ree.runtime.cache import LeastRecent
from ree.runtime.executable import Executable
from ree.runtime.hashing import hash_array
from ree.runtime.inputs import array_of
from ree.runtime.weights import Weights


class Cpu:
    """The CPU, for one program."""

    def __init__(self) -> None:
        # what is not used for longest is made again
        self.executables: LeastRecent[tuple[object, ...], Executable] = LeastRecent(SHAPES)
        # weights in panels, as long as an executable reads them
        self.packed: WeakValueDictionary[object, Array] = WeakValueDictionary()
        # weights to be held in these panels alone, once there are some
        self.holding: Weights | None = None
        # the last run by default settings, of torch tensors
        self.quick: _core.Call | None = None
        self._made: tuple[Prelude, list[Array]] | None = None
        self._scanned: frozenset[int] | None = None

    def take(self, source: Source, values: Sequence[Any], options: Options) -> list[Array]:
        scan, traced, threads = self._scan(source), options.trace is not None, options.threads
        return [array_of(n, v, t, threads, traced or i in scan) for i, (n, v, t) in enumerate(
                zip(source.names.inputs, values, source.graph.inputs, strict=True))]  # fmt: skip

    def _scan(self, source: Source) -> frozenset[int]:
        if self._scanned is None:
            self._scanned = scanned(source.graph)
        return self._scanned

    def run(
        self, source: Source, inputs: Sequence[Array], env: Mapping[str, int], options: Options
    ) -> BackendResult:
        trace, keep, fuse, threads, isa, _ = options
        executable = self.executable(
            source, env, settings.isa(isa), hash_values=trace == "ops", keep=keep, fuse=fuse
        )
        pool = settings.pool(threads)
        outputs, digests, kept = executable.run(inputs, pool)
        if options.quick:
            self.quick = executable.call(pool, self._scan(source))
        ends = [hash_array(x) for x in (*inputs, *outputs)] if trace is not None else ()
        return BackendResult(outputs, ends, digests, kept)

    def give(self, outputs: Sequence[Array], as_torch: bool, home: str | None) -> tuple[Any, ...]:
        return tuple(map(to_torch, outputs)) if as_torch else tuple(outputs)

    def executable(
        self, source: Source, env: Mapping[str, int], isa: str, *, hash_values: bool = False,
        keep: bool = False, fuse: bool = True, commit_after: int | None = None,
    ) -> Executable:  # fmt: skip
        """The compiled code for bound symbols; what it hashes and keeps, and commit_after, as `plan`."""
        key = (source.sizes(env), isa, hash_values, keep, fuse, commit_after)

        def make() -> Executable:
            before, made = (None, []) if hash_values or keep else self._prelude(source)
            graph = source.bound(env, before, () if before is None else macro.with_kernels())
            stored = stored_weights(before, len(source.graph.weights)) if before else {}
            recipe = plan(graph, panel=_core.panel(isa), hash_values=hash_values, keep_values=keep, fuse=fuse,
                          commit_after=commit_after, tables_in_panels=True, stored=stored,
                          byte_group=_core.byte_group(isa))  # fmt: skip
            e = Executable(graph, recipe, isa, source.weights, self.packed, made)
            if self.holding is not None:
                self.holding.hold_panels(e.panels(), _core.panel(isa))
            return e

        return self.executables.get_or_make(key, make)

    def _prelude(self, source: Source) -> tuple[Prelude, list[Array]]:
        """What follows from the weights alone, and its values, made once."""
        if self._made is None:
            before = prelude(source.graph)
            made: list[Array] = []
            if before.values:
                g, isa = prelude_graph(source.graph, before.values), settings.isa()
                recipe = plan(g, panel=_core.panel(isa), byte_group=_core.byte_group(isa))
                e = Executable(g, recipe, isa, source.weights, {})
                made = e.run((), settings.pool())[0]
            self._made = before, made
        return self._made


def scanned(g: Graph) -> frozenset[int]:
    """Inputs whose NaNs must be canonical: all but those that only contractions and pointwise operators read,
    as they are or through moves. Of both the results are canonical whatever the payload of a NaN they meet."""
    read = set(g.outputs)
    for n in reversed(g.nodes):
        form = opdef.form_of(n.op)
        if form in (opdef.Form.CONTRACTION, opdef.Form.POINTWISE):
            continue
        if form is not opdef.Form.MOVEMENT or n.value in read:
            read |= set(n.sources)
    return frozenset(i for i in range(len(g.inputs)) if Ref(Kind.INPUT, i) in read)
