"""The commands of disputes: party, dispute, verdict."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ree.cli import DIFFERS, OK
from ree.cli.commands import progress
from ree.cli.output import emit, say
from ree.errors import DisputeError, EnvironmentError_, InputError, ReeError

if TYPE_CHECKING:
    from ree.program import Program
    from ree.verde.http_client import HttpTransport
    from ree.verde.messages import Terms
    from ree.verde.referee import Limits
    from ree.verde.transcript import Transcript
    from ree.verde.verdict import Rules

MAX_SECONDS = 10**8
LEAST_TOKEN, MAX_TOKEN = 16, 256  # characters


def _load(path: str) -> Program:
    """The program of an artifact or of a training run."""
    from ree.artifact import load
    from ree.training.directory import RunReader, is_run

    return RunReader(Path(path)).step.program if is_run(path) else load(path)


def _token(option: str, text: str | None) -> str | None:
    """A token from the command line, or from a file that @ names; InputError."""
    if text is None:
        return None
    if text.startswith("@"):
        try:
            with open(text[1:], encoding="ascii") as f:
                text = f.read(MAX_TOKEN + 2).strip()
        except (OSError, ValueError) as e:
            raise InputError(f"{option}: cannot read '{text[1:]}'") from e
    if not LEAST_TOKEN <= len(text) <= MAX_TOKEN or not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", text):
        raise InputError(f"{option}: expected {LEAST_TOKEN} to {MAX_TOKEN} letters, digits or ._~+/=-",
                         "openssl rand -hex 16")  # fmt: skip
    return text


def party_command(args: argparse.Namespace) -> int:
    """Serve a party until interrupted."""
    from ree.given import named_inputs
    from ree.training.directory import is_run
    from ree.verde.service import make_service, parse_fault, run_service
    from ree.verde.signing import default_path, load_signer

    if args.action == "key":
        if args.artifact:
            raise InputError("'ree party key' takes no artifact", "name a file with --key")
        key = load_signer(args.key or default_path()).key.hex()
        emit(args, {"key": key}, [key])
        return OK
    try:
        from ree.verde.server import serve
    except ImportError as e:
        raise EnvironmentError_(f"a party needs {e.name}", "pip install 'ree-ml[dispute]'") from e
    if not args.artifact:
        raise InputError("what is served? expected an artifact or a run")
    if not 0 <= args.port < 1 << 16:
        raise InputError(f"--port: expected 0 to 65535, got {args.port}")
    if args.fault_row and not args.fault:
        raise InputError("--fault-row goes with --fault")
    token = _token("--token", args.token)
    signer = load_signer(args.key or default_path())
    fault = parse_fault(args.fault, args.fault_row) if args.fault else None
    if is_run(args.artifact):
        if args.inputs or args.threads:
            raise InputError("a run is served without --inputs and --threads")
        if (fault is None) != (args.fault_step is None):
            raise InputError("of a run, --fault goes with --fault-step")
        service = run_service(args.artifact, fault, args.fault_step or 0, signer)
    else:
        if args.fault_step is not None:
            raise InputError("--fault-step is of a run")
        program = _load(args.artifact)
        with progress("run"):
            given = named_inputs(program, args.inputs)
            service = make_service(program, given, fault, args.threads, signer)
    commitment = service.terms.commitment.hex()
    if fault is not None:
        say("this party lies: a fault is planted")

    def ready(url: str) -> None:
        emit(
            args,
            {"url": url, "commitment": commitment, "key": signer.key.hex()},
            [f"serving {url}", f"commitment {commitment}", f"key {signer.key.hex()}"],
        )

    serve(service, args.host, args.port, ready, token)
    return OK


def _terms_of(name: str, transport: HttpTransport, seconds: float) -> Terms:
    from ree.verde.referee import Garbled, Silent

    try:
        return transport.terms(seconds)
    except Silent as e:
        raise DisputeError(f"{name}: {e}") from e
    except Garbled as e:
        raise DisputeError(f"{name}: not a party: {e}") from e


def _transcript(
    path: Path, transports: dict[str, HttpTransport], limits: Limits, seconds: float
) -> Transcript:
    """The transcript of the dispute: a new one, or that of an earlier start. Once a dispute has begun, a
    party that is gone, or another than it was, costs nobody but itself."""
    from ree.verde.referee import check_terms
    from ree.verde.transcript import Header, Transcript

    if not path.exists():
        terms = {k: _terms_of(k, t, seconds) for k, t in transports.items()}
        check_terms(terms["defender"], terms["challenger"])
        header = Header(terms["defender"], terms["challenger"], round(limits.player * 1e6),
                        round(limits.move * 1e6))  # fmt: skip
        return Transcript.open(path, header)
    header, there = Transcript.read(path).header, 0
    for name, transport in transports.items():
        try:
            known = _terms_of(name, transport, seconds)
        except DisputeError as e:
            problem = e.message
        else:
            problem = (
                ""
                if known == getattr(header, name)
                else f"{name}: it stands for something else now"
            )
        there += not problem
        if problem:
            say(f"{problem}; its clock runs")
    if not there:  # a wrong path, or the referee's own network
        raise DisputeError(f"'{path}' is the transcript of a dispute between other parties, or of none that "
                           "can be reached", "write the verdict elsewhere, or try again")  # fmt: skip
    transcript = Transcript.open(path, header)
    say(f"resuming after {len(transcript.moves)} moves")
    return transcript


def dispute_command(args: argparse.Namespace) -> int:
    """Referee a dispute between two parties."""
    from ree.verde.http_client import HttpTransport
    from ree.verde.referee import Limits, Referee
    from ree.verde.transcript import PLAYERS, timeline
    from ree.verde.verdict import Rules, write_verdict

    for option in ("time_limit", "move_limit"):
        if not 0 < getattr(args, option) <= MAX_SECONDS:
            raise InputError(f"--{option.replace('_', '-')}: expected seconds above 0")
    transports = {
        who: HttpTransport(
            getattr(args, who), _token(f"--{who}-token", getattr(args, f"{who}_token"))
        )
        for who in PLAYERS
    }
    program = _load(args.artifact)
    out = Path(args.output)
    if not out.parent.is_dir():
        raise ReeError(f"cannot write '{out}': no folder '{out.parent}'")
    limits = Limits(args.time_limit, args.move_limit)
    transcript = _transcript(out.with_name(f"{out.name}.transcript"), transports, limits,
                             min(30.0, limits.move))  # fmt: skip
    try:
        rules: Rules = Rules(program, transcript.header.defender)
        with progress("dispute"):
            verdict = Referee(rules, transcript, transports).run()
        write_verdict(out, verdict)
        lines = timeline(transcript, rules.start(), rules.apply)
    finally:
        transcript.close()
    data: dict[str, Any] = {
        "winner": verdict.winner,
        "reason": verdict.reason,
        "moves": len(verdict.moves),
        "seconds": {p: transcript.used(p) / 1e6 for p in PLAYERS},
        "verdict": str(out),
        "timeline": [vars(line) for line in lines],
    }
    text = [str(line) for line in lines]
    emit(args, data, [*text, f"the {verdict.winner} wins after {len(verdict.moves)} moves: {verdict.reason}",
                      f"wrote {out}"])  # fmt: skip
    return OK if verdict.winner == "defender" else DIFFERS


def verdict_command(args: argparse.Namespace) -> int:
    """Check a verdict offline."""
    from ree.verde.verdict import check_verdict, read_verdict

    verdict, same = read_verdict(args.verdict)
    program = _load(args.artifact)
    if not same:
        follows, text = False, "the file has been altered: its digest is not that of its content"
    else:
        found = check_verdict(verdict, program, _inputs_root(program, args.inputs))
        follows, text = found.follows, found.text
    keys = {"defender": verdict.terms.key.hex(),
            "challenger": verdict.challenger.key.hex() if verdict.challenger else ""}  # fmt: skip
    for who, key in keys.items():
        expected = getattr(args, f"{who}_key")
        if expected and follows and expected.lower() != key:
            follows, text = False, f"the {who}'s key is not {expected}"
    data = {"follows": follows, "winner": verdict.winner, "reason": verdict.reason, "finding": text,
            "moves": len(verdict.moves), "commitment": verdict.terms.commitment.hex(),
            "keys": keys}  # fmt: skip
    emit(args, data, [f"{'follows' if follows else 'does not follow'}: {text}",
                      f"defender's commitment {data['commitment']}",
                      *(f"{who}'s key {key or 'none'}" for who, key in keys.items())])  # fmt: skip
    return OK if follows else DIFFERS


def _inputs_root(program: Program, path: str | None) -> bytes | None:
    """Root of the inputs of a file."""
    from ree.files.inputs import read_inputs
    from ree.runtime.hashing import hash_array
    from ree.traces.trace import tensors_root

    if path is None:
        return None
    inputs = read_inputs(path, program.names.inputs)
    missing = [n for n in program.names.inputs if n not in inputs]
    if missing:
        raise InputError(f"missing input '{missing[0]}'")
    arrays = program.arrays([inputs[n] for n in program.names.inputs])
    return tensors_root([hash_array(x) for x in arrays])
