"""The table of commands, in the order of `ree --help`."""

from __future__ import annotations

from collections.abc import Mapping

from ree.cli import (
    audit,
    claim,
    compile,
    completion,
    conformance,
    demo,
    diff,
    dispute,
    doctor,
    export,
    generate,
    help,
    inspect,
    job,
    key,
    party,
    quantise,
    run,
    serve,
    trace,
    train,
    verdict,
    verify,
)
from ree.cli.grammar import Command

COMMANDS: Mapping[str, Command] = {
    "compile": compile,
    "run": run,
    "generate": generate,
    "serve": serve,
    "verify": verify,
    "diff": diff,
    "train": train,
    "export": export,
    "quantise": quantise,
    "trace": trace,
    "inspect": inspect,
    "audit": audit,
    "conformance": conformance,
    "party": party,
    "dispute": dispute,
    "verdict": verdict,
    "job": job,
    "claim": claim,
    "key": key,
    "demo": demo,
    "doctor": doctor,
    "completion": completion,
    "help": help,
}
