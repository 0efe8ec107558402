"""What must hold of everything that is made at random, for tests: of programs, altered artifacts, training runs
and terms of jobs. AssertionError where something does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from ree import _core
from ree.compiler.interp import outputs
from ree.errors import InputError, ReeError
from ree.kernels.canonical import canonical
from ree.program import Program
from ree.settlement.evidence import Evidence
from ree.settlement.gate import admit
from ree.settlement.proof_size import refusals
from ree.settlement.testing.random_programs import Case, Maker, Nothing
from ree.settlement.testing.referee import play, step
from ree.settlement.work import call_facts
from ree.verde.game import Game
from ree.verde.party import Party, run_of
from ree.verde.rehearsal import borders, picked, prove
from ree.verde.scope import VALUES, ProgramScope, computed
from ree.verde.testing import dispute


def check(seed: int, large: bool = False) -> str:
    """What a seed's program came to: nothing, refused, or played with its lies. AssertionError if compiled
    code, interpreter and contracts differ, an honest party loses, or a lie stands."""
    try:
        case = Maker(seed, large).make()
    except Nothing:
        return "nothing"
    except Exception as e:
        e.add_note(f"seed {seed}: no program")
        raise
    return examined(case, np.random.default_rng(seed), f"seed {seed}")


def examined(case: Case, rng: np.random.Generator, name: str) -> str:
    """What a program came to, as `check` says."""
    try:
        if not _same_bits(case, rng):
            return "no such index"
        _one_pattern(case)
        return _disputed(case, rng)
    except Exception as e:
        e.add_note(f"{name}: {case.text}")
        raise


def _same_bits(case: Case, rng: np.random.Generator) -> bool:
    """Compiled code on every instruction set gives the interpreter's bytes, or all say that an index does not
    exist; whether there are bytes."""
    p, given = case.program, case.program.arrays(case.given)
    try:
        want: list[bytes] | None = [
            np.ascontiguousarray(y).tobytes() for y in outputs(p.graph, given, p.weights)
        ]
    except IndexError:
        want = None
    for isa in _core.isa_names():
        threads, fuse = int(rng.integers(1, 3)), bool(rng.integers(2))
        try:
            result = p.run(*case.given, isa=isa, threads=threads, fuse=fuse)
            got: list[bytes] | None = [np.ascontiguousarray(y).tobytes() for y in result.outputs]
        except ReeError as e:
            if "index" not in str(e):
                raise
            got = None
        assert got == want, f"{isa}, {threads} threads, fuse={fuse}: other bytes"
    return want is not None


def _one_pattern(case: Case) -> None:
    """Inputs and weights with other bits of the same values make the same program and the same job."""
    p = case.program
    same = Program(p.graph, p.names, [canonical(w) for w in p.weights])
    assert same.weights_root == p.weights_root, "other bits of a weight are another weight"
    try:
        facts = [call_facts(q, dict(zip(p.names.inputs, x, strict=True)))
                 for q, x in ((p, case.given), (same, [canonical(x) for x in case.given]))]  # fmt: skip
    except InputError:
        return
    assert facts[0] == facts[1], "other bits of an input are another job"


def _disputed(case: Case, rng: np.random.Generator) -> str:
    instance = case.program.instance(case.program.bind_symbols(case.program.arrays(case.given)))
    evidence = Evidence(Game(ProgramScope(instance.graph)), instance)
    if found := refusals(evidence):
        _refused(case, found)
        return "refused"
    run, instance = run_of(case.program, case.given)
    party = Party(run, instance.digest)
    scope = run.scope
    on_chain = partial(step, Evidence(party.game, instance))
    open_ = computed(scope, VALUES)
    for v in open_:
        size = scope.type(VALUES, v).numel
        for e in {0, size - 1, int(rng.integers(size))}:
            there = picked(party, on_chain, v, e, rng)
            d = party.game.derivation(there)
            at = rng.permutation(borders(d.count, d.width))[:4]
            for i, end in prove(party, on_chain, there, map(int, at)):
                assert end.winner == "defender", (
                    f"operation {i} of element {e} of %{v}: {end.reason}"
                )
    if open_:
        value = int(rng.choice(open_))
        dispute(run, instance, value, rng, partial(play, Evidence(Game(run.scope), instance)))
    return "played"


def _refused(case: Case, found: list[str]) -> None:
    """Neither facts nor a party can be had of it, and one line says why."""
    try:
        admit(case.program.instance(case.program.bind_symbols(case.program.arrays(case.given))))
    except InputError as e:
        text = one_line(e)
    else:
        raise AssertionError(f"admitted in spite of {found[0]}")
    assert found[0] in text, f"{text} instead of {found[0]}"


def one_line(e: BaseException) -> str:
    """The message of an error that a user sees; AssertionError unless it is one line for people, and a hint."""
    text = e.message if isinstance(e, ReeError) else str(e)
    assert text, f"{type(e).__name__} without a word"
    assert text.isprintable(), f"{type(e).__name__} of several lines: {text!r:.200}"
    assert len(text) < 1000, f"{type(e).__name__} of {len(text)} characters: {text!r:.200}"
    return text


def kinds() -> Mapping[str, Callable[[int], str]]:
    """What is tried, by name: a function from a seed to what it came to."""
    from ree.settlement.testing.altered_artifacts import check_artifact
    from ree.settlement.testing.random_runs import check_run
    from ree.settlement.testing.random_terms import check_terms

    return {
        "program": check,
        "large": partial(check, large=True),
        "artifact": check_artifact,
        "terms": check_terms,
        "run": check_run,
    }
