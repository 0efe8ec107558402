"""`ree party`: serve a party to disputes, or show its key."""

from __future__ import annotations

import argparse

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser, add_inputs, add_json, add_threads
from ree.cli.loading import load_program, load_token
from ree.cli.output import print_result, progress, stderr_line
from ree.cli.receipt_run import add_model, run_path
from ree.cli.refusals import Rule, refuse_ignored
from ree.errors import InputError, PlatformError

HELP = (
    "serve a party to disputes: it runs an artifact and stands for what came out; or show its key"
)

HOST, PORT = "127.0.0.1", 8650
OF_SERVE = (
    "model",
    "inputs",
    "host",
    "port",
    "token",
    "threads",
    "fault",
    "fault_row",
    "fault_step",
)
RULES: tuple[Rule, ...] = tuple(
    (x, lambda a: a.action == "serve", f"--{x.replace('_', '-')} goes with 'ree party serve'")
    for x in OF_SERVE
)


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("action", choices=("serve", "key"))
    parser.add_argument("artifact", nargs="?", metavar="ART.ree|RUN|RECEIPT", help="of serve")
    add_model(parser)
    parser.add_argument("--key", metavar="FILE", help="that it signs with, made if it is missing; default: "
                        "party.key in ~/.config/ree")  # fmt: skip
    add_inputs(parser)
    parser.add_argument("--host", metavar="ADDRESS", help=f"default {HOST}")
    parser.add_argument("--port", type=int, metavar="P", help=f"default {PORT}; 0 for any")
    parser.add_argument(
        "--token", metavar="TOKEN|@FILE", help="answer only a referee that has this token"
    )
    add_threads(parser)
    parser.add_argument("--fault", metavar="VALUE,ELEMENT,OPERATION[,FLIP]",
                        help="for demonstrations: lie, with FLIP (default 1) xored "
                        "into the result of one operation, consistently")  # fmt: skip
    parser.add_argument(
        "--fault-row", metavar="NODE,ELEMENT", help="where in the row program of a composite"
    )
    parser.add_argument(
        "--fault-step", type=int, metavar="S", help="of a run: the step in which to lie"
    )


def run(args: argparse.Namespace) -> int:
    """Serve a party until interrupted."""
    refuse_ignored(args, RULES)
    from ree.given import named_inputs
    from ree.training.directory import is_run
    from ree.verde.service import make_service, parse_fault, run_service
    from ree.verde.signing import default_path, load_signer

    if args.action == "key":
        if args.artifact:
            raise InputError("'ree party key' takes no artifact", "name a file with --key")
        key = load_signer(args.key or default_path()).key.hex()
        print_result(args, {"key": key}, [key])
        return OK
    try:
        from ree.verde.server import serve
    except ImportError as e:
        raise PlatformError(f"a party needs {e.name}", "pip install 'ree-ml[dispute]'") from e
    if not args.artifact:
        raise InputError("what is served? expected an artifact or a run")
    port = PORT if args.port is None else args.port
    if not 0 <= port < 1 << 16:
        raise InputError(f"--port: expected 0 to 65535, got {port}")
    if args.fault_row and not args.fault:
        raise InputError("--fault-row goes with --fault")
    token = load_token("--token", args.token)
    signer = load_signer(args.key or default_path())
    fault = parse_fault(args.fault, args.fault_row) if args.fault else None
    path = run_path(args)
    if is_run(path):
        if args.inputs or (args.threads is not None and not args.model):
            raise InputError("a run is served without --inputs and --threads")
        if (fault is None) != (args.fault_step is None):
            raise InputError("of a run, --fault goes with --fault-step")
        service = run_service(path, fault, args.fault_step or 0, signer)
    else:
        if args.fault_step is not None:
            raise InputError("--fault-step is of a run")
        program = load_program(path)
        with progress("run"):
            given = named_inputs(program, args.inputs)
            service = make_service(program, given, fault, args.threads, signer)
    commitment = service.terms.commitment.hex()
    if fault is not None:
        stderr_line("this party lies: a fault is planted")

    def ready(url: str) -> None:
        print_result(
            args,
            {"url": url, "commitment": commitment, "key": signer.key.hex()},
            [f"serving {url}", f"commitment {commitment}", f"key {signer.key.hex()}"],
        )

    serve(service, args.host or HOST, port, ready, token)
    return OK
