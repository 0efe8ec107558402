"""`ree dispute`: referee a dispute between two parties."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ree.cli.exit_codes import DIFFERS, OK
from ree.cli.grammar import Parser, add_json
from ree.cli.loading import load_program, load_token
from ree.cli.output import print_result, progress, stderr_line
from ree.cli.receipt_run import add_model, claim_program
from ree.errors import DisputeError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    from ree.verde.http_client import HttpTransport
    from ree.verde.messages import Terms
    from ree.verde.referee import Limits
    from ree.verde.transcript import Transcript
    from ree.verde.verdict import Rules

HELP = (
    "referee a dispute between two parties: 0 the defender's claim stands, 1 it is refuted, 2 error"
)
MAX_SECONDS = 10**8


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("--defender", required=True, type=str, metavar="URL")
    parser.add_argument("--challenger", required=True, type=str, metavar="URL")
    for who in ("defender", "challenger"):
        parser.add_argument(
            f"--{who}-token", metavar="TOKEN|@FILE", help=f"what the {who} is served with"
        )
    parser.add_argument("--artifact", required=True, metavar="ART.ree|RUN|RECEIPT")
    add_model(parser)
    parser.add_argument("-o", "--output", required=True, metavar="VERDICT",
                        help="beside it, VERDICT.transcript is what the same command resumes from")  # fmt: skip
    parser.add_argument("--time-limit", type=float, default=600.0, metavar="S",
                        help="seconds for all moves of a party (default 600)")  # fmt: skip
    parser.add_argument("--move-limit", type=float, default=120.0, metavar="S",
                        help="seconds for one move (default 120)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Referee a dispute between two parties."""
    from pathlib import Path

    from ree.files.atomic import check_file_place
    from ree.verde.http_client import HttpTransport
    from ree.verde.referee import Limits, Referee
    from ree.verde.transcript import PLAYERS, timeline
    from ree.verde.verdict import Rules, write_verdict

    for option in ("time_limit", "move_limit"):
        if not 0 < getattr(args, option) <= MAX_SECONDS:
            raise InputError(f"--{option.replace('_', '-')}: expected seconds above 0")
    transports = {
        who: HttpTransport(
            getattr(args, who), load_token(f"--{who}-token", getattr(args, f"{who}_token"))
        )
        for who in PLAYERS
    }
    program = claim_program(args) or load_program(args.artifact)
    out = Path(args.output)
    check_file_place(out)
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
    text.append(
        f"the {verdict.winner} wins after {len(verdict.moves)} moves: {verdict.reason}",
    )
    print_result(args, data, [*text, f"wrote {out}"])
    return OK if verdict.winner == "defender" else DIFFERS


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
            stderr_line(f"{problem}; its clock runs")
    if not there:  # a wrong path, or the referee's own network
        raise DisputeError(f"'{path}' is the transcript of a dispute between other parties, or of none that "
                           "can be reached", "write the verdict elsewhere, or try again")  # fmt: skip
    transcript = Transcript.open(path, header)
    stderr_line(f"resuming after {len(transcript.moves)} moves")
    return transcript


def _terms_of(name: str, transport: HttpTransport, seconds: float) -> Terms:
    from ree.verde.referee import InvalidResponse, NoResponse

    try:
        return transport.terms(seconds)
    except NoResponse as e:
        raise DisputeError(f"{name}: {e}") from e
    except InvalidResponse as e:
        raise DisputeError(f"{name}: not a party: {e}") from e
