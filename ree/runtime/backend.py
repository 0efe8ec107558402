"""What every kind of device does for a program, and what comes of a run, in one shape."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ree.compiler.ir import Graph
from ree.compiler.passes.load_time import Prelude
from ree.kernels.opdef import Array
from ree.result import Names

SHAPES = 16  # of which a program keeps what was bound, committed and compiled


class Options(NamedTuple):
    """How a run is made; none of it changes a bit."""

    trace: str | None = None  # the level: io or ops
    keep: bool = False  # every value that an ops trace hashes is returned too
    fuse: bool = True
    threads: int | None = None
    isa: str | None = None
    quick: bool = False  # of torch tensors, by default settings: there may be more of its kind


class BackendResult(NamedTuple):
    """What an executable gives: outputs where it computes, and what a trace is made of."""

    outputs: Sequence[Any]
    ends: Sequence[bytes]  # tensor hashes of inputs and outputs, of a traced run
    digests: Mapping[int, bytes]  # body roots by value, of an ops trace
    kept: Mapping[int, Array]


class Source(Protocol):
    """What a backend needs of a program."""

    @property
    def graph(self) -> Graph: ...
    @property
    def names(self) -> Names: ...
    @property
    def weights(self) -> Sequence[Array]: ...
    def bound(
        self, env: Mapping[str, int], made: Prelude | None = None, kept: Collection[str] = ()
    ) -> Graph: ...
    def sizes(self, env: Mapping[str, int]) -> tuple[int, ...]: ...


class Backend(Protocol):
    """One device, for one program: it keeps the code and the packed weights, bounded by `SHAPES`."""

    def take(self, source: Source, values: Sequence[Any], options: Options) -> Sequence[Any]:
        """Inputs where executables read them, in canonical bits. InputError for what does not fit, or for an
        option that has no effect here."""

    def run(
        self, source: Source, inputs: Sequence[Any], env: Mapping[str, int], options: Options
    ) -> BackendResult:
        """Run on what `take` gave. InputError where a value is out of an operator's range."""

    def give(self, outputs: Sequence[Any], as_torch: bool, home: str | None) -> tuple[Any, ...]:
        """Outputs as arrays, or as tensors on the device `home`, by default the CPU."""
