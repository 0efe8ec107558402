"""A small program with one of everything a descent meets, an honest party to it, and liars."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ree.compiler.ir import Builder
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.verde.fault import Fault
from ree.verde.moves import Phase
from ree.verde.referee import Referee, check_terms
from ree.verde.scope import ROW, VALUES, RowScope
from ree.verde.service import Local, make_service
from ree.verde.signing import Signer, load_signer
from ree.verde.transcript import Header, Transcript
from ree.verde.verdict import Rules

LINEAR, GELU, PERMUTE, SOFTMAX, GREATER, ARGMAX = range(6)  # values of the program
HOME = Path(tempfile.mkdtemp(prefix="ree-parties-"))  # where parties have their key
KEY = HOME / "ree" / "party.key"
NAMES = ["linear", "gelu", "permute", "softmax", "greater", "argmax"]


@pytest.fixture(scope="session")
def program():
    b = Builder()
    x = b.input(TensorType(DType.F32, (40, 200)))
    w = b.weight(TensorType(DType.F32, (9, 200)))
    y = b.add("gelu", b.add("linear", x, w))
    turned = b.add("permute", y, dims=(1, 0))
    s = b.add("softmax", turned, dim=1)
    outs = (s, b.add("gt", turned, s), b.add("argmax", turned, dim=1, keepdim=False))
    rng = np.random.default_rng(5)
    weight = rng.standard_normal((9, 200)).astype(np.float32) / 14
    example = rng.standard_normal((40, 200)).astype(np.float32)
    return Program(b.finish(outs), Names(("x",), ("s", "g", "a"), ("w",)), [weight], {"x": example})


@pytest.fixture(scope="session")
def honest(program):
    return make_service(program, program.examples, threads=1, signer=load_signer(KEY))


def faults(scope):
    """A lie in each operator that changes an output."""
    last = {v: scope.derivation(VALUES, v, 7).count - 1 for v in (GELU, GREATER, ARGMAX)}
    inner = RowScope(scope, (VALUES, SOFTMAX, 45), scope.row_program(VALUES, SOFTMAX))
    row = len(inner.nodes) - 1, inner.element
    at = inner.derivation(ROW, *row).count - 1
    return {
        "linear": Fault(LINEAR, 11, 130, 1 << 20),
        "gelu": Fault(GELU, 7, last[GELU], 1 << 20),
        "softmax": Fault(SOFTMAX, 45, at, 1 << 20, row),
        "greater": Fault(GREATER, 7, last[GREATER]),
        "argmax": Fault(ARGMAX, 7, last[ARGMAX], 3),
    }


@pytest.fixture(scope="session")
def liars(program, honest):
    found = {name: make_service(program, program.examples, f, 1, Signer(bytes(32)))
             for name, f in faults(honest.party.run.scope).items()}  # fmt: skip
    for name, liar in found.items():
        check_terms(liar.terms, honest.terms)
        assert liar.party.fault.value == NAMES.index(name)
    return found


def referee(program, defender, challenger, limit=60.0, transports=None, rules=None, **more):
    """A referee over two services in this process."""
    header = Header(defender.terms, challenger.terms, round(limit * 1e6), round(limit * 1e6))
    ways = {"defender": Local(defender), "challenger": Local(challenger), **(transports or {})}
    return Referee(rules or Rules(program, defender.terms), Transcript(header), ways, **more)


@pytest.fixture(scope="session")
def verdict_of(program):
    return lambda defender, challenger: referee(program, defender, challenger).run()


@pytest.fixture(scope="session")
def referee_of(program):
    return partial(referee, program)


@pytest.fixture(scope="session")
def until(program):
    """The states of a dispute, up to the first one in a given phase where a condition holds."""

    def run(defender, challenger, phase, where=lambda s: True):
        rules = Rules(program, defender.terms)
        s, moves = rules.start(), []
        while not (s.phase is phase and where(s)):
            assert s.phase is not Phase.OVER, f"the dispute ended before {phase}"
            party = defender if s.player == "defender" else challenger
            moves.append(party.party.move(s))
            s = rules.apply(s, moves[-1])
        return rules, s, moves

    return run


class PartyProcess:
    """A party in a process of its own."""

    def __init__(self, artifact, *options, port=0):
        command = [sys.executable, "-P", "-m", "ree.cli", "party", "serve", str(artifact), "--json"]
        env = {**os.environ, "REE_NUM_THREADS": "1", "XDG_CONFIG_HOME": str(HOME)}
        self.process = subprocess.Popen([*command, "--port", str(port), *options], env=env, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("}"):
                break
        self.data = json.loads("".join(lines))
        self.url = self.data["url"]

    def stop(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        code = self.process.wait(10)
        self.process.stdout.close()
        return code


@pytest.fixture(scope="session")
def Served():  # a class, hence the name
    return PartyProcess
