"""Hashing a state after every step: one parallel pass over the tensors that can have changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ree import _core
from ree.compiler.ir import Graph, Kind
from ree.kernels.abi import call
from ree.kernels.opdef import Array
from ree.kernels.types import TensorType
from ree.runtime import settings
from ree.traces.encoding import DIGEST
from ree.traces.tensor import hash_from_root


def unchanged_states(graph: Graph) -> frozenset[int]:
    """Indices of the states whose new value is the state itself, whatever the batch."""
    return frozenset(
        i
        for i, r in enumerate(graph.outputs[: len(graph.states)])
        if r.kind is Kind.STATE and r.index == i
    )


class StateHasher:
    """Tensor hashes of states of fixed types.

    unchanged: indices whose bytes no step changes; they are hashed in the first call only.
    """

    def __init__(
        self,
        types: Sequence[TensorType],
        *,
        unchanged: Collection[int] = (),
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        self._types = list(types)
        self._hashes: list[bytes] = []
        self._all = list(range(len(types)))
        self._changing = [i for i in self._all if i not in unchanged]
        self._isa, self._pool = isa or settings.isa(), settings.pool(threads)
        self._plans = {len(ix): self._plan(ix) for ix in (self._all, self._changing)}

    def _plan(self, indices: Sequence[int]) -> _core.Plan:
        n = len(indices)
        plan = _core.Plan(self._isa)
        plan.add(*call("tree_hash_many", data=range(n), roots=n, count=n,
                       bytes=[self._types[i].nbytes for i in indices]))  # fmt: skip
        return plan

    def __call__(self, state: Sequence[Array]) -> list[bytes]:
        """Tensor hash of every array of a state, in its order."""
        indices = self._changing if self._hashes else self._all
        hashes = list(self._hashes) or [b""] * len(self._all)
        arrays = [np.ascontiguousarray(state[i]) for i in indices]
        out = np.empty((max(len(indices), 1), DIGEST), np.uint8)
        if indices:
            addresses = [x.ctypes.data for x in arrays]
            self._plans[len(indices)].run(self._pool, [*addresses, out.ctypes.data])
        for k, i in enumerate(indices):
            t = self._types[i]
            hashes[i] = hash_from_root(t.dtype.code, t.dims, out[k].tobytes())
        self._hashes = hashes
        return list(hashes)

    def forget(self) -> None:
        """Hash everything in the next call: the state is now another run's."""
        self._hashes = []
