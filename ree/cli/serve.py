"""`ree serve`: language models over HTTP, by the endpoints of OpenAI's API."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser, add_json, add_threads
from ree.cli.loading import load_token
from ree.cli.output import print_result
from ree.errors import InputError, PlatformError

if TYPE_CHECKING:
    from ree.serving.embeddings import EncoderService
    from ree.serving.service import ModelService

HELP = "serve language models and sentence encoders over HTTP as OpenAI's API has it, answers with receipts"
HOST, PORT = "127.0.0.1", 8700
SLOTS, QUEUE, PAGES = 4, 64, 512
MOST_SLOTS, MOST_QUEUE, MOST_CONTEXT, MOST_PAGES = 256, 1 << 16, 1 << 20, 1 << 20
EMBEDDING = "embedding.json"  # the file by which a sentence encoder's artifact is known
KEY = "REE_API_KEY"  # of the environment, if --api-key is not given


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("artifact", nargs="+", metavar="[NAME=]ART.ree", help="NAME: what requests call it; "
                        "default: the file's name")  # fmt: skip
    parser.add_argument("--host", default=HOST, metavar="ADDRESS", help=f"default {HOST}")
    parser.add_argument(
        "--port", type=int, default=PORT, metavar="P", help=f"default {PORT}; 0 for any"
    )
    parser.add_argument("--slots", type=int, default=SLOTS, metavar="N",
                        help=f"answers of a model that are under way together; default {SLOTS}")  # fmt: skip
    parser.add_argument("--queue", type=int, default=QUEUE, metavar="N",
                        help=f"answers that may wait beside them; default {QUEUE}")  # fmt: skip
    parser.add_argument("--context", type=int, metavar="N",
                        help="tokens of a prompt with its answer; default: what the model takes")  # fmt: skip
    parser.add_argument("--prefix-cache", type=int, default=PAGES, metavar="MB", help="memory of each model "
                        f"for beginnings that were read before; default {PAGES}, 0 for none")  # fmt: skip
    parser.add_argument("--api-key", action="append", metavar="KEY|@FILE", help="answer only who has this key; "
                        f"may be given several times; default: that in {KEY}")  # fmt: skip
    parser.add_argument("--receipts", metavar="DIR", help="write the receipt of every answer there")
    parser.add_argument("--key", metavar="FILE", help="sign receipts with this key (ree key new)")
    parser.add_argument("--strict", action="store_true", help="refuse fields that are not known")
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    _check(args)
    keys = [k for text in args.api_key or [] if (k := load_token("--api-key", text)) is not None]
    if not args.api_key and os.environ.get(KEY):
        keys = [load_token(KEY, os.environ[KEY]) or ""]
    try:
        from ree.serving.app import Server
        from ree.serving.metrics import ServerMetrics
        from ree.serving.receipts import Receipts
        from ree.serving.running import serve
    except ImportError as e:
        raise PlatformError(f"a server needs {e.name}", "pip install 'ree-ml[serve]'") from e
    receipts, metrics = Receipts(_directory(args.receipts), _signer(args.key)), ServerMetrics()
    services: dict[str, ModelService] = {}
    encoders: dict[str, EncoderService] = {}
    for text in args.artifact:
        name, path = _named(text)
        if name in services or name in encoders:
            raise InputError(
                f"two models are called '{name}'", "NAME=ART.ree gives one another name"
            )
        if (Path(path) / EMBEDDING).is_file():
            encoders[name] = _encoder(args, name, path, metrics)
        else:
            services[name] = _service(args, name, path, receipts.keep, metrics)
    local = not keys and is_loopback(args.host)
    server = Server(services, receipts, metrics, keys, args.strict, encoders=encoders, local=local)
    names = [*services, *encoders]

    def ready(url: str) -> None:
        data = {"url": url, "models": names, "keys": len(keys)}
        print_result(args, data, [f"serving {', '.join(names)} at {url}/v1"])

    serve(server, args.host, args.port, ready)
    return OK


def _check(args: argparse.Namespace) -> None:
    for name, value, low, high in (
        ("port", args.port, 0, (1 << 16) - 1), ("slots", args.slots, 1, MOST_SLOTS),
        ("queue", args.queue, 0, MOST_QUEUE), ("context", args.context, 2, MOST_CONTEXT),
        ("prefix-cache", args.prefix_cache, 0, MOST_PAGES),
    ):  # fmt: skip
        if value is not None and not low <= value <= high:
            raise InputError(f"--{name}: expected {low} to {high}, got {value}")


def _named(text: str) -> tuple[str, str]:
    name, sign, path = text.partition("=")
    if not sign or "/" in name:
        name, path = Path(text).name.removesuffix(".ree"), text
    if not name or not Path(path).exists():
        raise InputError(f"no artifact '{path}'" if name else f"'{text}' names no model")
    return name, path


def _service(
    args: argparse.Namespace, name: str, path: str, keep: Any, metrics: Any
) -> ModelService:
    from ree.generation.model import LanguageModel
    from ree.serving.service import ModelService

    return ModelService(
        name, lambda: LanguageModel.load(path), slots=args.slots, queue=args.queue, positions=args.context,
        pages=args.prefix_cache << 20, threads=args.threads, warm=True, keep=keep, metrics=metrics,
    )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _encoder(args: argparse.Namespace, name: str, path: str, metrics: Any) -> EncoderService:
    from ree.embedding.model import EmbeddingModel
    from ree.serving.embeddings import EncoderService

    return EncoderService(
        name, lambda: EmbeddingModel.load(path, args.threads), queue=args.queue, metrics=metrics
    )


def _directory(path: str | None) -> Path | None:
    if path is None:
        return None
    try:
        Path(path).mkdir(exist_ok=True)
    except OSError as e:
        raise InputError(f"--receipts: cannot make '{path}': {e.strerror or e}") from e
    return Path(path)


def _signer(path: str | None) -> Any:
    if path is None:
        return None
    from ree.signing import SigningKey, load_seed

    return SigningKey(load_seed(path))
