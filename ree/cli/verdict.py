"""`ree verdict`: replay a verdict offline."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ree.cli.exit_codes import DIFFERS, OK
from ree.cli.grammar import Parser, add_json
from ree.cli.loading import load_program
from ree.cli.output import print_result
from ree.cli.receipt_run import add_model, claim_program
from ree.errors import InputError

if TYPE_CHECKING:
    from ree.program import Program

HELP = "replay a verdict offline: 0 it follows from its moves, 1 it does not, 2 error"


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("verdict", metavar="VERDICT")
    parser.add_argument("--artifact", required=True, metavar="ART.ree|RUN|RECEIPT")
    add_model(parser)
    parser.add_argument(
        "--inputs", metavar="IN.safetensors", help="check that it is about these inputs"
    )
    for who in ("defender", "challenger"):
        parser.add_argument(
            f"--{who}-key", metavar="KEY", help=f"check that the {who}'s moves are signed with it"
        )


def run(args: argparse.Namespace) -> int:
    """Check a verdict offline."""
    from ree.verde.verdict import check_verdict, read_verdict

    verdict, same = read_verdict(args.verdict)
    program = claim_program(args) or load_program(args.artifact)
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
    print_result(args, data, [f"{'follows' if follows else 'does not follow'}: {text}",
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
