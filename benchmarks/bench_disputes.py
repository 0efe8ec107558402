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
from typing import Any

import numpy as np

from ree.program import Program
from ree.runtime import settings
from ree.training.step import compile_step
from ree.training.train_file import TrainFile
from ree.verde.fault import Fault
from ree.verde.referee import Referee
from ree.verde.scope import VALUES, ProgramScope
from ree.verde.service import Local, Service, make_service
from ree.verde.transcript import Header, Transcript, timeline
from ree.verde.verdict import Rules, check_verdict_file, write_verdict

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import minilm
from dispute_work import Call, Training

TRAINING = Path(__file__).parent.parent / "examples" / "training"
STEPS, EVERY, LIE_AT = 64, 16, 61  # of training runs: the lie is twelve steps after a checkpoint
EXAMPLES = {
    "digits": ("convolution", "matmul", "mul"),
    "chargpt_tiny": ("matmul", "softmax", "mul"),
    "minilm_lora": ("matmul", "layer_norm", "mul"),
}
WORK = ("embedding", "linear", "attention", "layer_norm", "gelu", "add")
SHAPES = ((6, 12), (1, 128), (32, 128))  # sentences and tokens; the first is the example's


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


NOTE = "CPU seconds of all threads, the least of a few; the machine was shared with other work"


def computed(scope: ProgramScope) -> dict[str, list[int]]:
    """The values of each operator that has leaves of its own."""
    out: dict[str, list[int]] = {}
    for v, n in enumerate(scope.producers):
        if not scope.is_move(VALUES, v):
            out.setdefault(n.op, []).append(v)
    return out


def shares(found: dict[str, Any], seconds: float) -> dict[str, Any]:
    """With the work beyond one re-execution as a share of it."""
    return found | {f"{role} share": round(found[f"{role} seconds"] / seconds, 4)
                    for role in ("challenger", "defender")}  # fmt: skip


def minilm_work(program: Program) -> dict[str, Any]:
    """Work in disputes over calls of several sizes, a lie in the last value of some operators."""
    out = {}
    for sentences, tokens in SHAPES:
        rng = np.random.default_rng(sentences)
        given = {"input_ids": rng.integers(1000, 20000, (sentences, tokens)),
                 "attention_mask": np.ones((sentences, tokens), np.int64)}  # fmt: skip
        if (sentences, tokens) == SHAPES[0]:
            given = dict(program.examples)
        call = Call(program, [given[n] for n in program.names.inputs])
        values = computed(call.honest.scope)
        rows = {op: call.dispute(values[op][-1]) for op in WORK}
        seconds = call.seconds["hashed and kept"]
        out[f"{sentences}x{tokens}"] = {
            "seconds": {k: round(x, 4) for k, x in call.seconds.items()},
            "operators": {op: shares(r, seconds) for op, r in rows.items() if r},
        }
        print(sentences, tokens, json.dumps(out[f"{sentences}x{tokens}"]), file=sys.stderr)
    return out


def training_work() -> dict[str, Any]:
    """Work in disputes over runs of examples/training."""
    out: dict[str, Any] = {}
    for name, ops in EXAMPLES.items():
        file = TrainFile(TRAINING / f"{name}.py")
        model, loss, optimizer, batch = (
            file.names[k] for k in ("model", "loss", "optimizer", "batch")
        )
        step = compile_step(
            model(), loss, optimizer(), batch(1), seed=file.seed, accumulate=file.accumulate
        )
        run = Training(step, batch, file.seed, STEPS, EVERY)
        values = computed(ProgramScope(step.instance.graph))
        out[name] = {}
        for op in ops:
            for value in reversed(values[op][-3:]):
                found = run.dispute(value, LIE_AT)
                if found:
                    out[name][op] = shares(found, found["re-execution seconds"])
                    break
        print(name, json.dumps(out[name]), file=sys.stderr)
    return out


def main() -> None:
    import ree

    program = ree.compile(minilm.model(), minilm.example_inputs(), minilm.dynamic_shapes())
    honest = make_service(program, program.examples)
    call = Call(program, [program.examples[n] for n in program.names.inputs])
    scope = call.honest.scope
    rows: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for op, values in computed(scope).items():
            found = (call.lie(v) for v in reversed(values[-2:]))
            _, liar = next((x for x in found if x is not None), (None, None))
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
        linear = computed(scope)["linear"][0]
        http = over_http(program, Fault(linear, 7, 100, 1 << 20), Path(folder))
    every = [x for row in rows.values() for x in row.values()]  # type: ignore[attr-defined]
    names = ("moves", "bytes", "worst_bytes", "worst_seconds", "seconds", "check_seconds")
    worst = {k: max(x[k] for x in every) for k in names}
    assert worst["worst_bytes"] <= 64 << 10
    assert worst["worst_seconds"] <= 1
    data = {"program": program.program_hash.hex(), "threads": settings.threads(),
            "worst": worst, "http": http, "operators": rows,
            "work": {"note": NOTE, "minilm": minilm_work(program), "training": training_work()}}  # fmt: skip
    print(json.dumps(data, indent=1))


if __name__ == "__main__":
    main()
