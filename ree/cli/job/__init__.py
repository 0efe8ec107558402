"""`ree job`: a job on a chain. An action is a module here, with its help, its arguments and what it does."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ree.cli.exit_codes import OK
from ree.cli.grammar import Described, Misplaced, Parser, add_json
from ree.cli.job import accept, challenge, claim, commit, post, respond, reveal, status
from ree.cli.output import print_result
from ree.cli.refusals import Rule, refuse_ignored
from ree.errors import PlatformError

if TYPE_CHECKING:
    from ree.settlement.client import Court

HELP = "a job on a chain: offer it, provide, challenge, answer, collect"


class Action(Described, Protocol):
    def act(self, args: argparse.Namespace, court: Court, /) -> dict[str, Any]:
        """Do it, once or again; what to print."""
        ...


ACTIONS: Mapping[str, Action] = {
    "post": post,
    "accept": accept,
    "commit": commit,
    "reveal": reveal,
    "challenge": challenge,
    "respond": respond,
    "claim": claim,
    "status": status,
}
RULES: tuple[Rule, ...] = (
    ("inputs", lambda a: a.artifact, "--inputs goes with --artifact"),
    ("model", lambda a: a.artifact, "--model goes with --artifact"),
)
MISPLACED = {  # what is said of an argument where the action has none of this name
    "job": "job post names the job itself: give none",
    "--terms": "--terms is for job post",
    "--provider": "--provider is for job challenge and job respond",
    "--allow-short-windows": "--allow-short-windows is for what puts money on terms",
    "--prices": "--prices is for what puts money on terms",
    "--dry-run": "--dry-run is for job accept",
    "--watch": "--watch is for job respond",
    "--artifact": "--artifact has no effect on job claim and job status",
    "--inputs": "--inputs goes with --artifact",
    "--model": "--model goes with a receipt as --artifact",
}


def add_arguments(parser: Parser) -> None:
    parser.add_actions(ACTIONS)
    for action in parser.actions.values():
        add_json(action)
        action.add_argument("--rpc", required=True, metavar="URL", help="of an Ethereum node")
        action.add_argument("--court", required=True, metavar="ADDRESS")
        action.add_argument("--key", metavar="FILE", help="hex or an encrypted keystore (REE_KEY_PASSWORD); "
                            "default: the hex in REE_KEY")  # fmt: skip
        action.add_argument("--since", type=int, default=0, metavar="BLOCK",
                            help="look for events from this block (default 0)")  # fmt: skip
        own = {a.dest for a in action._actions}
        for name, text in MISPLACED.items():
            if name.removeprefix("--").replace("-", "_") not in own:
                action.add_argument(name, nargs="?", action=Misplaced, text=text)


def run(args: argparse.Namespace) -> int:
    """One action on a job."""
    refuse_ignored(args, RULES)
    try:
        import web3  # noqa: F401
    except ImportError as e:
        raise PlatformError(f"jobs need '{e.name}'", "pip install 'ree-ml[settlement]'") from e
    from dataclasses import replace

    from ree.settlement.bonds import Prices
    from ree.settlement.client import Court
    from ree.settlement.keys import load_key
    from ree.settlement.node import Node
    from ree.settlement.policy import DEVELOPMENT, Policy

    key = None if args.action == "status" and not args.key else load_key(args.key)
    policy = DEVELOPMENT if args.allow_short_windows else Policy()
    if args.prices is not None:
        policy = replace(policy, prices=Prices(*args.prices))
    court = Court(Node.connect(args.rpc, key), args.court, args.since, policy)
    data = ACTIONS[args.action].act(args, court)
    receipts = [r.__dict__ for r in court.node.receipts]
    lines = [f"{k:11} {v}" for k, v in data.items()]
    lines += [f"{r['function']:11} {r['gas']:,} gas, block {r['block']}" for r in receipts]
    print_result(args, {**data, "transactions": receipts}, lines or ["done already"])
    return OK
