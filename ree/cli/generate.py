"""`ree generate`: what a language model says to a prompt or in a conversation, with a receipt."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser, add_json, add_threads
from ree.cli.output import print_result, progress, stderr_line, stdout_text
from ree.cli.refusals import Rule, refuse_ignored
from ree.errors import InputError, PlatformError

if TYPE_CHECKING:
    from ree.generation.generator import Request
    from ree.generation.grammar import Grammar
    from ree.generation.receipt import Receipt
    from ree.generation.request import Sampling

HELP = "let a language model answer, token by token, with a receipt that anyone can verify"
MAX_MESSAGES = 16 << 20  # bytes of a file
NUMBERS = (("temperature", float, "0 (default) takes the likeliest token"), ("top_p", float, "default 1"),
           ("min_p", float, "default 0"), ("top_k", int, "default 0: all"),
           ("seed", int, "default: a fresh one, which the receipt holds"),
           ("min_tokens", int, "draw no stop token before"),
           ("repetition_penalty", float, "default 1: logits of tokens that occurred, prompt included, over it"),
           ("presence_penalty", float, "default 0: off the logits of tokens that were drawn"),
           ("frequency_penalty", float, "default 0: the same for each time"))  # fmt: skip
RULES: tuple[Rule, ...] = (
    ("system", lambda a: a.chat, "--system goes with --chat"),
    ("date", lambda a: a.chat or a.messages, "--date goes with --chat or --messages"),
    ("key", lambda a: a.receipt, "--key goes with --receipt"),
    ("account", lambda a: a.receipt, "--account goes with --receipt"),
    ("previous", lambda a: a.receipt, "--previous goes with --receipt"),
)


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("artifact", metavar="ART.ree")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--chat", metavar="TEXT", help="what the user says")
    given.add_argument("--prompt", metavar="TEXT", help="a text to go on with")
    given.add_argument(
        "--messages", metavar="FILE", help="a conversation: JSON, role and content of each"
    )
    parser.add_argument(
        "--system", metavar="TEXT", help="with --chat: what the model is told first"
    )
    parser.add_argument(
        "--date", metavar="YYYY-MM-DD", help="what the model's template takes for today"
    )
    parser.add_argument("--max-tokens", type=int, metavar="N", help="default 256")
    for name, kind, text in NUMBERS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="X", help=text)
    parser.add_argument(
        "--stop", action="append", metavar="TEXT", help="end before this; up to 4 times"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json-schema", metavar="FILE", help="answer with JSON of this schema")
    form.add_argument("--regex", metavar="RE", help="answer with a text of this form")
    parser.add_argument("--receipt", metavar="FILE", help="write the receipt")
    parser.add_argument(
        "--previous",
        metavar="RECEIPT",
        help="of the answer before this one: the new receipt names it",
    )
    parser.add_argument("--account", metavar="FILE", help="sign also as an Ethereum account: hex, or keystore "
                        "(REE_KEY_PASSWORD)")  # fmt: skip
    parser.add_argument("--key", metavar="FILE", help="sign the receipt with this key (ree key new); default: "
                        "receipt.key in ~/.config/ree, if it is there")  # fmt: skip
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    refuse_ignored(args, RULES)
    from ree.files.atomic import atomic_file, check_file_place

    try:
        from ree.generation.generator import Generator
    except ImportError as e:
        raise PlatformError(f"generation needs {e.name}", "pip install 'ree-ml[generate]'") from e
    if args.receipt:
        check_file_place(args.receipt)
    key, account = _key(args), _account(args)
    request = request_of(args)
    with progress("load"):
        generator = Generator(args.artifact, threads=args.threads)
    got: list[Receipt] = []
    start, times = time.perf_counter(), []
    for piece in generator.stream(request, got.append):
        times.append(time.perf_counter() - start)
        if not args.json:
            stdout_text(piece.text)
    receipt = got[0] if key is None else got[0].signed(key)
    receipt = receipt if account is None else receipt.signed_by_account(account)
    if args.receipt:
        with atomic_file(args.receipt) as f:
            f.write(receipt.to_json())
    drawn = len(receipt.completion_tokens)
    rate = (drawn - 1) / (times[-1] - times[0]) if drawn > 1 else None
    data: dict[str, Any] = {
        "text": receipt.text, "finish": receipt.finish, "prompt_tokens": list(receipt.prompt_tokens),
        "completion_tokens": list(receipt.completion_tokens), "seed": receipt.sampling.seed,
        "digest": receipt.digest.hex(), "signed_by": [s.key for s in receipt.signatures],
        "seconds_to_first_token": times[0], "tokens_per_second": rate,
    }  # fmt: skip
    if args.json:
        print_result(args, data, [])
    elif not receipt.text.endswith("\n"):
        stdout_text("\n")
    speed = "" if rate is None else f", {rate:.1f} tokens/s"
    stderr_line(f"{len(receipt.prompt_tokens)} tokens read, {drawn} drawn ({receipt.finish}), first after "
                f"{times[0]:.2f} s{speed}; seed {receipt.sampling.seed}")  # fmt: skip
    if args.receipt:
        keys = ", ".join(s.key for s in receipt.signatures)
        by = f"signed by {keys}" if keys else "unsigned (ree key new makes a key)"
        stderr_line(f"receipt {receipt.digest.hex()} in {args.receipt}, {by}")
    return OK


def request_of(args: argparse.Namespace) -> Request:
    """The request that the arguments say; InputError."""
    from ree.generation.generator import MAX_TOKENS, Request

    messages = None
    if args.chat:
        messages = [{"role": "user", "content": args.chat}]
        if args.system:
            messages.insert(0, {"role": "system", "content": args.system})
    elif args.messages:
        messages = _messages(args.messages)
    most = MAX_TOKENS if args.max_tokens is None else args.max_tokens
    if most < 1:
        raise InputError(f"max_tokens: expected at least 1, got {most}")
    return Request(messages=messages, prompt=args.prompt, date=args.date, sampling=_sampling(args),
                   max_tokens=most, stop=tuple(args.stop or ()), grammar=_grammar(args),
                   previous=_previous(args))  # fmt: skip


def _sampling(args: argparse.Namespace) -> Sampling:
    from ree.generation.request import Sampling

    given = {n: getattr(args, n) for n, *_ in NUMBERS if getattr(args, n) is not None}
    return Sampling(**{"temperature": 0.0, **given})


def _grammar(args: argparse.Namespace) -> Grammar | None:
    from ree.generation.grammar import REGEX, Grammar

    if args.json_schema:
        return Grammar.json_schema(_json(args.json_schema, "--json-schema"))
    return None if args.regex is None else Grammar(REGEX, args.regex)


def _messages(path: str) -> list[Any]:
    found = _json(path, "--messages")
    if not isinstance(found, list):
        raise InputError(f"--messages: '{path}': expected a list of messages")
    return found


def _json(path: str, option: str) -> Any:
    from ree.traces.strict_json import strict_json

    try:
        with open(path, "rb") as f:
            raw = f.read(MAX_MESSAGES + 1)
    except OSError as e:
        raise InputError(f"{option}: cannot read '{path}': {e.strerror or e}") from e
    try:
        if len(raw) > MAX_MESSAGES:
            raise ValueError(f"over {MAX_MESSAGES} bytes")
        return strict_json(raw)
    except (ValueError, RecursionError) as e:
        raise InputError(f"{option}: '{path}' is not JSON: {str(e)[:80]}") from e


def _account(args: argparse.Namespace) -> Any:
    """The account that signs, or None."""
    if not args.account:
        return None
    try:
        from ree.settlement.keys import load_key

        return load_key(args.account)
    except ImportError as e:
        raise PlatformError(
            f"an account needs '{e.name}'", "pip install 'ree-ml[settlement]'"
        ) from e


def _previous(args: argparse.Namespace) -> str:
    from ree.cli.receipt_checked import read_receipt
    from ree.generation.receipt import NOTHING

    return read_receipt(args.previous).digest.hex() if args.previous else NOTHING


def _key(args: argparse.Namespace) -> Any:
    """The key that signs, or None."""
    if not args.receipt:
        return None
    from ree.cli.key import NAME
    from ree.signing import SigningKey, default_path, load_seed

    path = args.key or default_path(NAME)
    if not args.key and not path.exists():
        return None
    return SigningKey(load_seed(path))
