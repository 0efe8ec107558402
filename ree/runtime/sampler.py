"""Drawing tokens from rows of logits by the operator `sample`."""

from __future__ import annotations

from ree.compiler.ir import Builder
from ree.kernels.opdef import Array
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.runtime.cache import LeastRecent

PROGRAMS = 16
NAMES = ("logits", "temperature", "top_p", "min_p", "top_k", "seed", "position", "choice")
_TYPES = (*[DType.F32] * 4, *[DType.I64] * 4)


class Sampler:
    """Draws a token from each row of logits f32 [rows, vocabulary], at most `rows` at once."""

    def __init__(
        self, rows: int, vocabulary: int, *, threads: int | None = None, isa: str | None = None
    ) -> None:
        self.rows, self._vocabulary = rows, vocabulary
        self._threads, self._isa = threads, isa
        self._programs: LeastRecent[int, Program] = LeastRecent(PROGRAMS)

    def __call__(self, logits: Array, *parameters: Array) -> Array:
        """i64 [rows]: the tokens, given the logits and for each row a number of what NAMES names."""
        n = len(logits)
        program = self._programs.get_or_make(n, lambda: self._program(n))
        result = program.run(logits, *parameters, threads=self._threads, isa=self._isa)
        tokens: Array = result.outputs[0]
        return tokens

    def _program(self, n: int) -> Program:
        b = Builder()
        shapes = [(n, self._vocabulary), *[(n,)] * (len(NAMES) - 1)]
        inputs = [b.input(TensorType(t, s)) for t, s in zip(_TYPES, shapes, strict=True)]
        return Program(b.finish((b.add("sample", *inputs),)), Names(NAMES, ("token",), ()), ())
