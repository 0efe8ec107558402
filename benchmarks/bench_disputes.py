"""Disputes over MiniLM inference: moves, bytes and seconds, a lie in each of its operators.

One bit of one operation is flipped, all that follows is recomputed, and the dispute is played both ways
through the messages, with the transcript on disk. Prints JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ree import settings
from ree.kernels.types import DType
from ree.program import Program
from ree.verde.fault import Fault
from ree.verde.referee import DisputeError, Referee, check_terms
from ree.verde.scope import ROW, VALUES, ProgramScope, RowScope
from ree.verde.service import Local, Service, check_fault, make_service
from ree.verde.transcript import Header, Transcript, timeline
from ree.verde.verdict import Rules, check_verdict_file, write_verdict

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import minilm

TRIES = 12


def fault_in(scope: ProgramScope, value: int, rng: np.random.Generator) -> Fault:
    """A flipped bit in the last operation of an element, or of a node of its row program."""
    t = scope.type(VALUES, value)
    element = int(rng.integers(t.numel))
    flip = 1 << 22 if t.dtype is DType.F32 else 1
    program = scope.row_program(VALUES, value)
    if program is None:
        d = scope.derivation(VALUES, value, element)
        return Fault(value, element, int(rng.integers(d.count)), flip)
    inner = RowScope(scope, (VALUES, value, element), program)
    nodes = [i for i, n in enumerate(inner.nodes) if not inner.is_move(ROW, i) and n.out.numel]
    node = int(rng.choice(nodes))
    at = int(rng.integers(inner.nodes[node].out.numel))
    count = inner.derivation(ROW, node, at).count
    return Fault(value, element, int(rng.integers(count)), flip, (node, at))


def liar_in(program: Program, honest: Service, value: int) -> Service | None:
    """A liar whose lie in this value reaches the outputs; None if none of a few does."""
    rng = np.random.default_rng(value)
    scope = honest.party.run.scope  # type: ignore[attr-defined]
    for _ in range(TRIES):
        fault = fault_in(scope, value, rng)
        check_fault(scope, fault)
        liar = make_service(program, program.examples, fault)
        try:
            check_terms(liar.terms, honest.terms)
        except DisputeError:
            continue
        return liar
    return None


def played(
    program: Program, defender: Service, challenger: Service, folder: Path
) -> dict[str, object]:
    """One dispute, and the figures of it."""
    rules = Rules(program, defender.terms)
    header = Header(defender.terms, challenger.terms, 600 * 10**6, 120 * 10**6)
    transcript = Transcript.open(folder / "transcript", header)
    start = time.perf_counter()
    verdict = Referee(
        rules, transcript, {"defender": Local(defender), "challenger": Local(challenger)}
    ).run()
    seconds = time.perf_counter() - start
    lines = timeline(transcript, rules.start(), rules.apply)
    transcript.close()
    (folder / "transcript").unlink()
    write_verdict(folder / "verdict", verdict)
    start = time.perf_counter()
    found = check_verdict_file(folder / "verdict", program)
    check = time.perf_counter() - start
    assert found.follows, found.text
    assert verdict.reason.startswith("executed"), verdict.reason
    worst = max(lines, key=lambda x: x.bytes)
    return {
        "winner": verdict.winner,
        "moves": len(lines),
        "bytes": sum(x.bytes for x in lines),
        "worst_bytes": worst.bytes,
        "worst_bytes_move": worst.phase,
        "worst_seconds": round(max(x.seconds for x in lines), 4),
        "seconds": round(seconds, 4),
        "verdict_bytes": (folder / "verdict").stat().st_size,
        "check_seconds": round(check, 4),
    }


def over_http(program: Program, fault: Fault, folder: Path) -> dict[str, object]:
    """One dispute between two processes, refereed by a third."""
    program.save(str(folder / "minilm.ree"))
    ree = [sys.executable, "-P", "-m", "ree.cli"]
    text = f"--fault={fault.value},{fault.element},{fault.operation},{fault.flip}"
    serve = [*ree, "party", "serve", str(folder / "minilm.ree"), "--port", "0"]
    parties = [subprocess.Popen([*serve, *more], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
               for more in ([text], [])]  # fmt: skip
    try:
        urls = [p.stdout.readline().split()[-1] for p in parties if p.stdout]
        command = [*ree, "dispute", "--defender", urls[0], "--challenger", urls[1], "--json"]
        command += ["--artifact", str(folder / "minilm.ree"), "-o", str(folder / "verdict")]
        start = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        seconds = time.perf_counter() - start
        assert done.returncode == 1, "the lie stands"
        check = [*ree, "verdict", str(folder / "verdict"), "--artifact", str(folder / "minilm.ree")]
        start = time.perf_counter()
        subprocess.run(check, stdout=subprocess.DEVNULL, check=True)
        checked = time.perf_counter() - start
    finally:
        for p in parties:
            p.kill()
            p.wait()
    lines = json.loads(done.stdout)["timeline"]
    return {"moves": len(lines), "worst_bytes": max(x["bytes"] for x in lines),
            "worst_seconds": max(x["seconds"] for x in lines), "seconds": round(seconds, 2),
            "verdict_seconds": round(checked, 2)}  # fmt: skip


def main() -> None:
    import ree

    program = ree.compile(minilm.model(), minilm.example_inputs(), minilm.dynamic_shapes())
    honest = make_service(program, program.examples)
    start = time.perf_counter()
    program.run(**program.examples, trace="ops")
    run_seconds = time.perf_counter() - start
    scope = honest.party.run.scope  # type: ignore[attr-defined]
    rows: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for op in dict.fromkeys(n.op for n in scope.producers):
            values = [
                v
                for v, n in enumerate(scope.producers)
                if n.op == op and not scope.is_move(VALUES, v)
            ]
            found = (liar_in(program, honest, v) for v in reversed(values[-2:]))
            liar = next((x for x in found if x is not None), None)
            if liar is None:
                continue
            refuted = played(program, liar, honest, Path(folder))
            stands = played(program, honest, liar, Path(folder))
            assert (refuted["winner"], stands["winner"]) == ("challenger", "defender")
            rows[op] = {"refuted": refuted, "stands": stands}
            print(
                op,
                refuted["moves"],
                refuted["worst_bytes"],
                refuted["worst_seconds"],
                file=sys.stderr,
            )
        linear = next(v for v, n in enumerate(scope.producers) if n.op == "linear")
        http = over_http(program, Fault(linear, 7, 100, 1 << 20), Path(folder))
    every = [x for row in rows.values() for x in row.values()]  # type: ignore[attr-defined]
    names = ("moves", "bytes", "worst_bytes", "worst_seconds", "seconds", "check_seconds")
    worst = {k: max(x[k] for x in every) for k in names}
    assert worst["worst_bytes"] <= 64 << 10
    assert worst["worst_seconds"] <= 1
    data = {"program": program.program_hash.hex(), "threads": settings.threads(),
            "run_seconds": round(run_seconds, 4), "worst": worst, "http": http,
            "operators": rows}  # fmt: skip
    print(json.dumps(data, indent=1))


if __name__ == "__main__":
    main()
