"""Sessions: a program with states, run again and again in memory that stays."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ree import _core
from ree.compiler.frontend.torch_types import to_torch
from ree.errors import InputError, public
from ree.files.atomic import atomic_file
from ree.files.inputs import read_inputs
from ree.files.safetensors import write_tensors_to
from ree.float_mode import clean_floats
from ree.kernels.canonical import canonical
from ree.kernels.opdef import Array
from ree.kernels.types import TensorType
from ree.result import Result
from ree.runtime import settings
from ree.runtime.cache import LeastRecent
from ree.runtime.executable import Executable, Frame, aligned
from ree.runtime.hashing import hash_array
from ree.runtime.inputs import plain_array, tensors_among
from ree.traces.trace import Trace

if TYPE_CHECKING:
    from ree.program import Program

State = Sequence[Any] | Mapping[str, Any] | str | PathLike[str]
FRAMES = 64  # shapes whose addresses are kept


class Session:
    """A program's states and the memory of its runs.

    A run reads the states and replaces them. Nobody else changes them: sessions of one program do not
    see each other and do not wait for each other; one session runs in one thread at a time. A state that
    nobody reads after its new value is computed is overwritten in place; the others have two buffers that
    change places. `state` may be read between runs; it is not to be written to.

    initial: the states, by name, in the program's order or in a file as `save` writes it; by default
    those the program was compiled with. capacity: a size by name of a symbolic dimension. Memory is
    taken for it at once, so that runs of any shape up to it take no more; without it memory grows with
    the largest shape so far. commit_after: an output that `look` sees before any state changes.
    """

    @public
    @clean_floats
    def __init__(
        self, program: Program, initial: State | None = None, *,
        capacity: Mapping[str, int] | None = None, threads: int | None = None, isa: str | None = None,
        fuse: bool = True, commit_after: int | None = None,
    ) -> None:  # fmt: skip
        from ree.program import Program

        if not isinstance(program, Program):
            raise InputError(f"session: expected a program, got {type(program).__name__}",
                             "as ree.compile or ree.load gives it")  # fmt: skip
        outputs = len(program.graph.outputs)
        if commit_after is not None and (
            type(commit_after) is not int or not 0 <= commit_after < outputs
        ):
            raise InputError(
                f"commit_after: expected 0 to {outputs - 1}, got {commit_after!r:.40}",
                "an output of the program; those before it are the new states",
            )
        self.program, self._fuse, self._commit_after = program, fuse, commit_after
        self._threads, self._isa = threads, settings.isa(isa)
        settings.pool(threads)  # refuses what cannot be
        self._types = list(program.graph.states)
        self._arena = aligned(0)
        self._frames: LeastRecent[tuple[int, ...], Frame] = LeastRecent(FRAMES)
        self._state: list[Array] = [_empty(t) for t in self._types]
        self._next: dict[int, Array] = {}  # second buffers of states
        self._spans = _spans(self._state)
        self._busy = threading.Lock()
        # false while a run overwrites the state, after one that failed there, and before there is one
        self.intact = not self._types
        self._failed = False
        if initial is not None or program.initial:
            self.load(program.initial if initial is None else initial)
        if capacity is not None:
            self._reserve(capacity)
        elif not program.graph.symbols:
            self._frame({})

    @property
    def state_bytes(self) -> int:
        return sum(t.nbytes for t in self._types)

    @property
    def in_place(self) -> frozenset[int]:
        """Indices of states that the latest shape's runs overwrite."""
        frame = next(reversed(self._frames.values()), None)
        return frozenset() if frame is None else frame.executable.recipe.in_place

    @property
    def state(self) -> list[Array]:
        """The states in the program's order; not to be written to. InputError while there is none."""
        self._must_be_intact()
        return self._state

    @property
    def states(self) -> dict[str, Array]:
        """As `state`, by name."""
        return dict(zip(self.program.names.states, self.state, strict=True))

    @public
    def load(self, state: State) -> None:
        """Take over a copy of a state, or that of a file; InputError if it does not fit."""
        names = self.program.names.states
        if isinstance(state, str | PathLike):
            state = read_inputs(state, names, "states")
        if isinstance(state, Mapping):
            odd = next((n for n in (*names, *state) if (n in names) != (n in state)), None)
            if odd is not None:
                raise InputError(f"state '{odd}': {'missing' if odd in names else 'unknown'}")
            state = [state[n] for n in names]
        if not isinstance(state, list | tuple):
            raise InputError(f"state: expected tensors by name, or in the program's order, got "
                             f"{type(state).__name__}")  # fmt: skip
        if len(state) != len(self._types):
            raise InputError(f"state: expected {len(self._types)} tensors, got {len(state)}")
        arrays = []
        for name, x, t in zip(names, state, self._types, strict=True):
            a = plain_array("state", name, x, t)
            if a.shape != t.dims or a.dtype != t.dtype.numpy:
                raise InputError(f"state '{name}': expected {t}, got {a.dtype}{list(a.shape)}")
            arrays.append(a.copy() if self._is_mine(*np.lib.array_utils.byte_bounds(a)) else a)
        self._take()
        try:
            for mine, a in zip(self._state, arrays, strict=True):
                np.copyto(mine, canonical(a))
            self.intact = True
        finally:
            self._busy.release()

    @public
    def save(self, path: str | PathLike[str]) -> None:
        """Write the states to a safetensors file, whole or not at all; ReeError if that cannot be done."""
        states = self.states
        with atomic_file(path) as f:
            write_tensors_to(f, states)

    @public
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """One run; what the module's forward returns."""
        return self.run(*args, **kwargs).value

    @public
    def run(self, /, *args: Any, **kwargs: Any) -> Result:
        """One run, after which the states are the new ones; its outputs are tensors where an input is one.

        InputError for inputs that do not fit, which change nothing, and for a run that failed while it
        changed the states: load some first.
        """
        values = self.program.flat(args, kwargs)
        as_torch, home = tensors_among(values)
        if home is not None:
            raise InputError(f"an input is on {home}: a session runs on the CPU", "pass x.cpu()")
        outputs = self.advance(self.program.arrays(values))
        results = tuple(map(to_torch, outputs)) if as_torch else tuple(outputs)
        return Result(results, structure=self.program.names.structure)

    @clean_floats
    def advance(
        self, arrays: Sequence[Array], look: Callable[[Sequence[Array]], None] | None = None
    ) -> list[Array]:
        """As `run`, on arrays of the program's types; the outputs behind the states. What `look`, which is
        given them once the one to commit after is final, raises leaves the states as they were."""
        self._take()
        try:
            return self._advance(arrays, look)
        finally:
            self._busy.release()

    def _advance(
        self, arrays: Sequence[Array], look: Callable[[Sequence[Array]], None] | None
    ) -> list[Array]:
        self._must_be_intact()
        frame = self._frame(self.program.bind_symbols(arrays))
        executable, n = frame.executable, len(self._types)
        in_place = executable.recipe.in_place
        for i in range(n):
            if i not in in_place and i not in self._next:
                self._next[i] = _empty(self._types[i])
                self._spans = _spans([*self._state, *self._next.values()])
        # a run writes over its states while it still reads its inputs
        arrays = [a.copy() if self._is_mine(*_bounds(a)) else a for a in arrays]
        fresh = [np.empty(dims, dtype) for dims, dtype in executable.out_types[n:]]
        frame.bind("input", arrays)
        frame.bind("state", self._state)
        frame.bind("output", [*(self._next.get(i, _NONE) for i in range(n)), *fresh])
        pool, last = settings.pool(self._threads), len(executable.plans) - 1
        for part in range(last + 1):
            if part == last:
                if look is not None:
                    look(fresh)
                self.intact, self._failed = not in_place, bool(in_place)
            frame.run_part(part, pool)
        for i in range(n):
            if i not in in_place:
                self._state[i], self._next[i] = self._next[i], self._state[i]
        self.intact, self._failed = True, False
        return fresh

    @public
    def trace(self, /, *args: Any, **kwargs: Any) -> Trace:
        """The operator-level trace of a run from the current states, which do not change."""
        return self.trace_of(self.program.arrays(self.program.flat(args, kwargs)))

    def trace_of(self, arrays: Sequence[Array]) -> Trace:
        """As `trace`, on arrays of the program's types."""
        trace = self.traced(arrays).trace
        assert trace is not None
        return trace

    @clean_floats
    def traced(self, arrays: Sequence[Array], keep_values: bool = False) -> Result:
        """As `trace_of`, with the new states and the outputs behind them, and every value that the trace
        hashes if they are to be kept."""
        program = self.program
        env = program.bind_symbols(arrays)
        frame = Frame(
            program.cpu.executable(program, env, self._isa, hash_values=True, keep=keep_values,
                                   fuse=self._fuse)
        )  # fmt: skip
        outputs = [np.empty(dims, dtype) for dims, dtype in frame.executable.out_types]
        self._take()
        try:
            for kind, given in (("input", arrays), ("state", self.state), ("output", outputs)):
                frame.bind(kind, given)
            frame.run_part(0, settings.pool(self._threads))
            trace = program.make_trace(env, [hash_array(x) for x in (*self._state, *arrays)],
                                       [hash_array(x) for x in outputs], frame.digests())  # fmt: skip
        finally:
            self._busy.release()
        return Result(tuple(outputs), trace, frame.kept(outputs))

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise InputError("a session cannot be copied or pickled",
                         "pickle its program and its states; ree.Session(program, states) goes on")  # fmt: skip

    def _must_be_intact(self) -> None:
        if not self.intact:
            raise InputError("a run failed while it changed the state" if self._failed
                             else "there is no state yet", "load a state first")  # fmt: skip

    def _take(self) -> None:
        """Take the lock; InputError while another thread has it."""
        if not self._busy.acquire(blocking=False):
            raise InputError("the session is running in another thread",
                             "one thread at a time, or a session for each")  # fmt: skip

    def _is_mine(self, start: int, end: int) -> bool:
        """Whether memory from start to end touches a state's."""
        i = bisect_left(self._spans, (end, 0)) - 1  # the last that starts before the end
        return start < end and i >= 0 and self._spans[i][1] > start

    def _reserve(self, capacity: Mapping[str, int]) -> None:
        if not isinstance(capacity, Mapping):
            raise InputError(f"capacity: expected a size by dimension, got {type(capacity).__name__}",
                             'as {"s0": 512}')  # fmt: skip
        symbols = {s.name: s for s in self.program.graph.symbols}
        for name, size in capacity.items():
            if name not in symbols:
                known = ", ".join(symbols) or "it has none"
                raise InputError(
                    f"capacity: unknown dimension '{name}'", f"of this program: {known}"
                )
            if type(size) is not int or not symbols[name].low <= size <= symbols[name].high:
                raise InputError(f"capacity of {name}: expected {symbols[name].low} to "
                                 f"{symbols[name].high}, got {size!r:.40}")  # fmt: skip
        missing = [s for s in symbols if s not in capacity]
        if missing:
            raise InputError(f"capacity: nothing for dimension '{missing[0]}'")
        self._frame(capacity)

    def _frame(self, env: Mapping[str, int]) -> Frame:
        return self._frames.get_or_make(self.program.sizes(env), lambda: self._new_frame(env))

    def _new_frame(self, env: Mapping[str, int]) -> Frame:
        executable: Executable = self.program.cpu.executable(
            self.program, env, self._isa, fuse=self._fuse, commit_after=self._commit_after
        )
        wanted = executable.recipe.arena_bytes
        if wanted > len(self._arena):
            self._frames.clear()  # they are of the old memory
            self._arena = aligned(wanted)
        return Frame(executable, self._arena)


_NONE = np.zeros(0, np.float32)  # stands for an output that lies over its state


def _empty(t: TensorType) -> Array:
    return np.empty(t.dims, t.dtype.numpy)


def _bounds(a: Array) -> tuple[int, int]:
    """Where a contiguous array's memory starts and ends."""
    start = _core.address(a)
    return start, start + a.nbytes


def _spans(arrays: Sequence[Array]) -> list[tuple[int, int]]:
    return sorted(_bounds(a) for a in arrays if a.nbytes)
