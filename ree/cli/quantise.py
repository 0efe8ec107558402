"""`ree quantise`: an artifact with its linear layers in 8-bit integers."""

from __future__ import annotations

import argparse
from codecs import getincrementaldecoder
from typing import TYPE_CHECKING, Any

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser, add_inputs, add_json
from ree.cli.output import print_result, progress

if TYPE_CHECKING:
    from ree.program import Program

HELP = (
    "write an artifact whose linear layers compute in 8-bit integers, and say how far its results are from "
    "the given one's"
)

BYTES = 64  # of a text that are read for each of its tokens


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("artifact", metavar="ART.ree")
    add_inputs(parser)
    parser.add_argument("-o", "--output", required=True, metavar="OUT.ree")
    parser.add_argument(
        "--text", metavar="FILE", help="of a language model: say how well both foretell this text"
    )


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from ree.artifact import load
    from ree.artifact.writing import check_place
    from ree.errors import InputError

    check_place(args.output)
    if Path(args.output).resolve() == Path(args.artifact).resolve():
        raise InputError("--output: expected another artifact than the one to quantise")
    from ree.given import named_inputs
    from ree.quantisation import quantise

    program = load(args.artifact)
    inputs = named_inputs(program, args.inputs)
    foretold = _Text(args.text, program) if args.text is not None else None
    with progress("quantise"):
        done = quantise(program, inputs)
    said = {} if foretold is None else {"perplexity": foretold.of_both(program, done.program)}
    with progress("write"):
        done.program.save(args.output)
    before, after = (sum(w.nbytes for w in p.weights) for p in (program, done.program))
    data = {"program": done.program.program_hash.hex(), "weights_root": done.program.weights_root.hex(),
            "bytes_before": before, "bytes_after": after, **done.data(), **said}  # fmt: skip
    lines = [
        f"wrote {args.output}",
        f"program  {data['program']}",
        f"weights  {data['weights_root']} ({before / 1e6:.1f} MB, now {after / 1e6:.1f} MB)",
        f"layers   {done.layers} in 8-bit integers, {len(done.kept)} as they were",
        *(f"kept     {k}" for k in done.kept),
    ]
    for name, e in done.errors.items():
        found = {"greatest": e.greatest, "relative": e.relative, "cosine": e.cosine}
        parts = [f"{k} {v:.6g}" for k, v in found.items() if v is not None]
        parts += [f"{e.not_finite} finite in one alone"] * (e.not_finite > 0)
        lines.append(f"error    {name}: {', '.join(parts) or 'nothing to compare'}")
    for told in said.values():
        lines.append("perplexity {before:.4f}, now {after:.4f}, of {tokens} tokens".format(**told))
    if not done.errors and not said:
        lines.append("error    not measured: no inputs, or states")
    print_result(args, data, lines)
    return OK


class _Text:
    """A text that a language model and what becomes of it are to foretell."""

    def __init__(self, path: str, program: Program) -> None:
        from ree.errors import ArtifactError, InputError, PlatformError

        try:
            from ree.generation.model import LanguageModel
            from ree.generation.perplexity import MOST
        except ImportError as e:
            raise PlatformError(f"--text needs {e.name}", "pip install 'ree-ml[models]'") from e
        try:
            model = LanguageModel(program)
        except ArtifactError as e:
            raise InputError("--text is for language models", e.message) from e
        try:
            with open(path, "rb") as f:
                raw = f.read(MOST * BYTES)
                # a character may be cut where reading ends, not where the file does
                text = getincrementaldecoder("utf-8")().decode(raw, final=not f.read(1))
        except OSError as e:
            raise InputError(f"--text '{path}': {e.strerror or e}") from e
        except UnicodeDecodeError as e:
            raise InputError(f"--text '{path}': not UTF-8") from e
        self.tokens = model.text_prompt(text)[: min(MOST, model.settings.context)]
        if len(self.tokens) < 2:
            raise InputError(f"--text '{path}': expected 2 or more tokens, got {len(self.tokens)}")

    def of_both(self, before: Program, after: Program) -> dict[str, Any]:
        from ree.cli.output import progress
        from ree.generation.model import LanguageModel
        from ree.generation.perplexity import perplexity

        with progress("read the text"):
            found = [perplexity(LanguageModel(p), self.tokens) for p in (before, after)]
        return {"tokens": len(self.tokens), "before": found[0], "after": found[1]}
