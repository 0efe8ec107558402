"""What a job asks for, computed: facts of a call or a training run, and roots by independent ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ree import _core
from ree.compiler.instance import Instance
from ree.kernels.opdef import Array
from ree.program import Program
from ree.runtime import settings
from ree.runtime.hashing import hash_array
from ree.settlement.gate import admit
from ree.settlement.terms import OneRun, TrainingRun
from ree.traces.encoding import ZERO
from ree.traces.trace import tensors_root
from ree.verde.moves import RunStatement
from ree.verde.party import Run, run_of


def instance_of(program: Program, inputs: Mapping[str, Array]) -> Instance:
    """The instance of a call; InputError if it does not pass the gate."""
    return admit(program.instance(program.bind_symbols(arrays_of(program, inputs))))


def arrays_of(program: Program, inputs: Mapping[str, Array]) -> list[Array]:
    """The inputs of a call in the program's order, as they are hashed and used."""
    return program.arrays([inputs[n] for n in program.names.inputs])


def call_facts(program: Program, inputs: Mapping[str, Array]) -> OneRun:
    """Facts of a job over one call."""
    hashes = [hash_array(x) for x in arrays_of(program, inputs)]
    instance = instance_of(program, inputs)
    return OneRun(instance.encoded, tensors_root(hashes), program.weights_root, ZERO)


def run_facts(instance: Instance, run: RunStatement) -> TrainingRun:
    """Facts of a job over a training run; its root of the history is the claim."""
    return TrainingRun(instance.encoded, run.weights, run.initial, run.steps, run.batches)


def independent(program: Program, inputs: Mapping[str, Array]) -> Sequence[Callable[[], bytes]]:
    """Two computations of a call's root of outputs that share little: the portable instruction set on one
    thread, unfused, and the best one fused on all threads."""

    given = arrays_of(program, inputs)

    def root(**how: Any) -> bytes:
        result = program.run(*given, **how)
        return tensors_root([hash_array(x) for x in result.outputs])

    best = _core.isa_names()[0]
    return (
        lambda: root(isa="portable", threads=1, fuse=False),
        lambda: root(isa=best, threads=max(2, settings.threads())),
    )


def memory_run(program: Program, inputs: Mapping[str, Array]) -> tuple[Run, Instance]:
    """A call with every value kept, as a party needs it."""
    instance_of(program, inputs)  # refused before anything is executed
    return run_of(program, arrays_of(program, inputs))
