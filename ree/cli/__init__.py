"""The command line: thin, stdout is data, stderr is talk.

Exit codes: 0 success, 1 the check says no, 2 an error, 70 a fault of this program, 130 interrupted (143 by
SIGTERM).
Heavy modules are imported inside commands, so that --help is fast.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ree import __version__
from ree.cli.completion import SHELLS, commands, script
from ree.cli.output import say
from ree.errors import InternalError, ReeError

OK, DIFFERS, ERROR, INTERNAL = 0, 1, 2, 70


class Parser(argparse.ArgumentParser):
    """A parser that takes no empty argument and prints what is wrong with one escaped."""

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        if options.get("action", "store") == "store" and "choices" not in options:
            options.setdefault("type", _given)
        return super().add_argument(*names, **options)

    def error(self, message: str) -> NoReturn:
        raise ReeError(message, f"{self.prog} --help")


def _given(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected a value, got an empty one")
    return text


def _prices(text: str) -> tuple[int, int]:
    """GAS:RUN, whole numbers above 0."""
    gas, colon, run = text.partition(":")
    if not (colon and all(x.isdecimal() and len(x) <= 40 and int(x) > 0 for x in (gas, run))):
        raise argparse.ArgumentTypeError(f"expected GAS:RUN, such as 1000:500, got {text[:40]!r}")
    return int(gas), int(run)


def parser() -> Parser:
    """The command-line grammar."""
    p = Parser(
        prog="ree",
        description="Compile a PyTorch program once; get the same bits on every machine.",
    )
    p.add_argument("-V", "--version", action="version", version=f"ree {__version__}")
    sub = p.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, json: bool = True) -> argparse.ArgumentParser:
        c = sub.add_parser(name, help=help, description=help)
        if json:
            c.add_argument("--json", action="store_true", help="print JSON on stdout")
        return c

    def device(c: argparse.ArgumentParser) -> None:
        c.add_argument("--device", default="cpu", metavar="DEVICE",
                       help="cpu (default), cuda, cuda:N, or interpret: GPU kernels without a GPU, "
                       "slowly")  # fmt: skip

    def batches(c: argparse.ArgumentParser) -> None:
        c.add_argument("--script", metavar="TRAIN.py", help="make the batches with this file's batch() "
                       "(default: those that the run keeps)")  # fmt: skip

    c = command(
        "compile", "compile MODEL.py (it defines model() and example_inputs()) to an artifact"
    )
    c.add_argument("model", metavar="MODEL.py")
    c.add_argument("-o", "--output", required=True, metavar="OUT.ree")

    c = command("run", "run an artifact")
    c.add_argument("artifact", metavar="ART.ree")
    c.add_argument("--inputs", metavar="IN.safetensors", help="default: the stored examples")
    c.add_argument("-o", "--output", metavar="OUT.safetensors", help="write the outputs here")
    c.add_argument("--trace", metavar="FILE", help="write a trace here")
    c.add_argument("--trace-level", choices=("io", "ops"),
                   help="io: inputs and outputs (default); ops: every value")  # fmt: skip
    c.add_argument("--max-values", type=int, metavar="MIB",
                   help="an ops trace carries its values, for naming a differing element, when they "
                   "fit in MIB mebibytes (default 256)")  # fmt: skip
    c.add_argument("--threads", type=int, metavar="N")
    device(c)

    c = command("verify", "replay an artifact and compare with a trace, or a training run and compare "
                "with its history: 0 same, 1 differs, 2 error")  # fmt: skip
    c.add_argument("artifact", metavar="ART.ree|RUN")
    c.add_argument("--trace", metavar="FILE", help="of the artifact")
    c.add_argument(
        "--steps", metavar="A:B", help="steps of the run, both ends included (default: all)"
    )
    c.add_argument("--sample", type=int, metavar="N", help="N randomly chosen steps of the run")
    c.add_argument("--seed", type=int, metavar="S", help="of --sample (default: a fresh one)")
    batches(c)
    c.add_argument("--inputs", metavar="IN.safetensors", help="default: the stored examples")
    c.add_argument("--threads", type=int, metavar="N")
    device(c)

    c = command("diff", "compare two traces without the model, or two training runs: 0 same, 1 differ, "
                "2 error")  # fmt: skip
    c.add_argument("left", metavar="A.trace|RUN1")
    c.add_argument("right", metavar="B.trace|RUN2")
    c.add_argument("--threads", type=int, metavar="N")
    batches(c)

    c = command(
        "train", "train TRAIN.py (it defines model(), loss(), optimizer() and batch()) into a run"
    )
    c.add_argument("script", metavar="TRAIN.py")
    c.add_argument("-o", "--output", required=True, metavar="RUN")
    c.add_argument(
        "--steps", type=int, required=True, metavar="N", help="in all, with those resumed"
    )
    c.add_argument(
        "--checkpoint-every",
        type=int,
        metavar="K",
        help="steps (default 100); fixed when the run begins",
    )
    c.add_argument("--validate-every", type=int, metavar="K", help="steps between losses of "
                   "TRAIN.py's validation() batches (default 100)")  # fmt: skip
    c.add_argument("--tensorboard", metavar="DIR", help="write TensorBoard files there")
    c.add_argument("--resume", action="store_true", help="continue from the run's last checkpoint")
    c.add_argument("--no-keep-batches", action="store_true",
                   help="store digests of the batches only: verifying then needs --script")  # fmt: skip
    c.add_argument("--threads", type=int, metavar="N")
    c.add_argument("--isa", metavar="ISA", help="instruction set (default: the best there is)")

    c = command(
        "export", "write the model that a training run has made: its weights, or an artifact"
    )
    c.add_argument("run", metavar="RUN")
    c.add_argument("-o", "--output", required=True, metavar="OUT.safetensors|OUT.ree")
    c.add_argument("--script", metavar="TRAIN.py", help="for an artifact: model() and example_inputs() "
                   "(default: the model called with the first tensor of the batch)")  # fmt: skip

    c = command("trace", "trace one step of a training run, every operator of it")
    c.add_argument("run", metavar="RUN")
    c.add_argument("--step", type=int, required=True, metavar="S")
    c.add_argument("-o", "--output", required=True, metavar="FILE")
    c.add_argument("--threads", type=int, metavar="N")
    batches(c)

    c = command("inspect", "describe an artifact, a trace or a training run")
    c.add_argument("file", metavar="FILE")

    c = command(
        "audit", "check a program's machine code: 0 clean, 1 a forbidden instruction, 2 error"
    )
    c.add_argument("artifact", metavar="ART.ree")
    c.add_argument("--target", default="cpu,sm_80,sm_90,sm_120", metavar="LIST",
                   help="of cpu, sm_80, sm_90, sm_120, gfx942 (default cpu,sm_80,sm_90,sm_120); "
                   "no GPU is needed")  # fmt: skip

    c = command("conformance", "compare this machine's bits with the contract's: 0 same, 1 differ")
    device(c)
    c.add_argument("-o", "--output", metavar="REPORT.json", help="write the report here")

    c = command(
        "party",
        "serve a party to disputes: it runs an artifact and stands for what came out; or show its key",
    )
    c.add_argument("action", choices=("serve", "key"))
    c.add_argument("artifact", nargs="?", metavar="ART.ree", help="of serve")
    c.add_argument("--key", metavar="FILE", help="that it signs with, made if it is missing; default: "
                   "party.key in ~/.config/ree")  # fmt: skip
    c.add_argument("--inputs", metavar="IN.safetensors", help="default: the stored examples")
    c.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default 127.0.0.1")
    c.add_argument("--port", type=int, default=8650, metavar="P", help="default 8650; 0 for any")
    c.add_argument(
        "--token", metavar="TOKEN|@FILE", help="answer only a referee that has this token"
    )
    c.add_argument("--threads", type=int, metavar="N")
    c.add_argument("--fault", metavar="VALUE,ELEMENT,OPERATION[,FLIP]", help="for demonstrations: lie, with "
                   "FLIP (default 1) xored into the result of one operation, consistently")  # fmt: skip
    c.add_argument(
        "--fault-row", metavar="NODE,ELEMENT", help="where in the row program of a composite"
    )

    c.add_argument("--fault-step", type=int, metavar="S", help="of a run: the step in which to lie")

    c = command("dispute", "referee a dispute between two parties: 0 the defender's claim stands, "
                "1 it is refuted, 2 error")  # fmt: skip
    c.add_argument("--defender", required=True, type=str, metavar="URL")
    c.add_argument("--challenger", required=True, type=str, metavar="URL")
    for who in ("defender", "challenger"):
        c.add_argument(
            f"--{who}-token", metavar="TOKEN|@FILE", help=f"what the {who} is served with"
        )
    c.add_argument("--artifact", required=True, metavar="ART.ree|RUN")
    c.add_argument("-o", "--output", required=True, metavar="VERDICT", help="beside it, VERDICT.transcript "
                   "is what the same command resumes from")  # fmt: skip
    c.add_argument("--time-limit", type=float, default=600.0, metavar="S",
                   help="seconds for all moves of a party (default 600)")  # fmt: skip
    c.add_argument("--move-limit", type=float, default=120.0, metavar="S",
                   help="seconds for one move (default 120)")  # fmt: skip

    c = command(
        "verdict", "replay a verdict offline: 0 it follows from its moves, 1 it does not, 2 error"
    )
    c.add_argument("verdict", metavar="VERDICT")
    c.add_argument("--artifact", required=True, metavar="ART.ree|RUN")
    c.add_argument("--inputs", metavar="IN.safetensors", help="check that it is about these inputs")
    for who in ("defender", "challenger"):
        c.add_argument(
            f"--{who}-key", metavar="KEY", help=f"check that the {who}'s moves are signed with it"
        )

    c = command("job", "a job on a chain: offer it, provide, challenge, answer, collect")
    c.add_argument("action", choices=("post", "accept", "commit", "reveal", "challenge", "respond", "claim",
                   "status"))  # fmt: skip
    c.add_argument("job", nargs="?", metavar="JOB", help="its name, as post has printed it")
    c.add_argument("--rpc", required=True, metavar="URL", help="of an Ethereum node")
    c.add_argument("--court", required=True, metavar="ADDRESS")
    c.add_argument("--key", metavar="FILE", help="hex or an encrypted keystore (REE_KEY_PASSWORD); default: "
                   "the hex in REE_KEY")  # fmt: skip
    c.add_argument("--artifact", metavar="ART.ree|RUN", help="what the job is about")
    c.add_argument("--inputs", metavar="IN.safetensors", help="default: the stored examples")
    c.add_argument(
        "--terms", metavar="TERMS.json", help="of post: token, amounts, windows in seconds"
    )
    c.add_argument("--provider", metavar="ADDRESS", help="of challenge: whose claim")
    c.add_argument("--allow-short-windows", action="store_true",
                   help="on a chain for development: terms that leave no time for censorship")  # fmt: skip
    c.add_argument("--prices", type=_prices, metavar="GAS:RUN", help="refuse bonds that do not cover costs: "
                   "units of the job's token for a million gas, and for computing the run again")  # fmt: skip
    c.add_argument("--dry-run", action="store_true", help="of accept: show what a dispute would need and what "
                   "there is; bond nothing")  # fmt: skip
    c.add_argument("--watch", action="store_true", help="of respond: play until the job is over")
    c.add_argument("--since", type=int, default=0, metavar="BLOCK",
                   help="look for events from this block (default 0)")  # fmt: skip

    c = command(
        "demo", "a dispute from one wrong bit to the verdict, on a chain inside this process"
    )
    c.add_argument("what", choices=("dispute",))
    c.add_argument("artifact", nargs="?", metavar="ART.ree", help="default: a small program")
    c.add_argument("--training", action="store_true", help="a false step of a training run instead")
    c.add_argument("--inputs", metavar="IN.safetensors", help="default: the stored examples")

    command("doctor", "describe this machine: instruction set, float mode, threads, versions")

    c = command("completion", "print a completion script for a shell", json=False)
    c.add_argument("shell", choices=SHELLS)
    c = command("help", "describe a command, or all of them", json=False)
    c.add_argument("topic", nargs="?", metavar="COMMAND", choices=tuple(sub.choices))
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    _open_streams()
    try:
        return _main(argv)
    except KeyboardInterrupt as e:
        from ree.training.interrupts import Interrupted

        if isinstance(e, Interrupted):
            say(f"{e}; its state is kept: the same command with --resume goes on from there")
            return 128 + e.number
        say("interrupted")
        return 130
    except SystemExit as e:  # argparse's
        return _flushed(e.code if isinstance(e.code, int) else ERROR)


def _main(argv: Sequence[str] | None) -> int:
    try:
        grammar = parser()
        args = grammar.parse_args(argv)
        if args.command == "help":
            (commands(grammar)[args.topic] if args.topic else grammar).print_help()
            return _flushed(OK)
        if args.command == "completion":
            sys.stdout.write(script(grammar, args.shell))
            return _flushed(OK)
        from ree.cli.commands import COMMANDS
        from ree.cli.options import refuse_ignored

        refuse_ignored(args)
        return _flushed(COMMANDS[args.command](args))
    except ReeError as e:
        for line in f"error: {e}".splitlines():
            say(line)
        return INTERNAL if isinstance(e, InternalError) else ERROR
    except BrokenPipeError:
        return _no_reader()
    except MemoryError:
        say("error: out of memory")
        return ERROR
    except OSError as e:
        say(f"error: {e.filename or 'file'}: {e.strerror or e}")
        return ERROR
    except Exception as e:  # the interpreter would exit with 1, which says that a check failed
        if os.environ.get("REE_DEBUG"):
            import traceback

            traceback.print_exc()
        text = " ".join(str(e).split())[:300]
        say(f"internal error: {type(e).__name__}: {text}")
        say("hint: REE_DEBUG=1 shows where; please report it")
        return INTERNAL


def _open_streams() -> None:
    """Stand-ins for standard streams that were closed, so that talk and data have somewhere to go."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (for the process's life)


def _flushed(code: int) -> int:
    """The exit code, once all of stdout is written; that of an error if it cannot be."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _no_reader(code)
    except OSError as e:
        _discard()
        say(f"error: cannot write to stdout: {e.strerror or e}")
        return ERROR
    return code


def _no_reader(code: int = OK) -> int:
    """The reader of stdout left: that is no error, and no verdict is lost that it wanted."""
    _discard()
    return code


def _discard() -> None:
    """Let what stdout still holds go nowhere; the interpreter flushes it at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
