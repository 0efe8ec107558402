"""`ree compile`: a model's file, or a language model as others distribute it, to an artifact."""

from __future__ import annotations

import argparse

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser, add_json
from ree.cli.output import print_result, progress
from ree.errors import InputError, PlatformError

HELP = (
    "compile MODEL.py (it defines model() and example_inputs()), a language model's Hugging Face directory "
    "or its GGUF file, or a sentence encoder's directory to an artifact"
)


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("model", metavar="MODEL.py|DIR|FILE.gguf")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.ree")
    parser.add_argument(
        "--weights",
        choices=("stored", "f32"),
        help="of a language model: as its files keep them (the default), or widened; with the same results",
    )


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from ree.artifact.writing import check_place

    check_place(args.output)
    path = Path(args.model)
    if (path / "modules.json").is_file():
        if args.weights is not None:
            raise InputError(
                f"--weights is for language models, '{args.model}' is a sentence encoder"
            )
        return _encoder(args)
    if path.is_dir() or path.suffix.lower() == ".gguf":
        return _language_model(args)
    if args.weights is not None:
        raise InputError(f"--weights is for language models, '{args.model}' is a MODEL.py")
    from ree.cli.summary import describe_program
    from ree.files.user_file import load_model_file

    with progress("load model"):
        module, inputs, dynamic_shapes = load_model_file(path)
    from ree.compilation import compile

    with progress("compile"):
        program = compile(module, inputs, dynamic_shapes)
    with progress("write"):
        program.save(args.output)
    data = describe_program(program)
    print_result(args, data, [
        f"wrote {args.output}",
        f"program  {data['program']}",
        f"weights  {data['weights_root']} ({data['parameters']:,} parameters)",
        f"nodes    {data['nodes']} in {data['groups']} groups; "
        f"{data['flops'] / 1e9:.3f} Gflop, {data['bytes'] / 1e6:.1f} MB moved on the examples",
        "operators " + ", ".join(f"{k} {v}" for k, v in data["operators"].items()),
    ])  # fmt: skip
    return OK


def _language_model(args: argparse.Namespace) -> int:
    try:
        from ree.generation.model import LanguageModel, compile_model
        from ree.generation.narrow import parameters

        with progress("compile"):
            program = compile_model(args.model, args.weights or "stored")
            model = LanguageModel(program)  # refuses what could not be loaded again
    except ImportError as e:
        raise PlatformError(
            f"to compile a language model needs {e.name}", "pip install 'ree-ml[models]'"
        ) from e
    with progress("write"):
        program.save(args.output)
    s = model.settings
    count = parameters(program)
    data = {
        "program": program.program_hash.hex(), "weights_root": program.weights_root.hex(),
        "parameters": count, "name": s.name, "context": s.context, "layers": model.forward.layers,
        "vocabulary": model.forward.vocabulary, "tokenizer": model.tokenizer.id, "template": model.template_id,
    }  # fmt: skip
    print_result(args, data, [
        f"wrote {args.output}",
        f"model    {s.name}, {count:,} parameters, context of {s.context:,}",
        f"program  {data['program']}",
        f"weights  {data['weights_root']}",
        f"template {'none' if model.template is None else model.template_id}",
    ])  # fmt: skip
    return OK


def _encoder(args: argparse.Namespace) -> int:
    try:
        from ree.embedding.model import EmbeddingModel
        from ree.embedding.source import compile_encoder

        with progress("compile"):
            program = compile_encoder(args.model)
    except ImportError as e:
        raise PlatformError(
            f"to compile a sentence encoder needs {e.name}", "pip install 'ree-ml[models]'"
        ) from e
    with progress("write"):
        program.save(args.output)
    model = EmbeddingModel(program)
    parameters = sum(w.size for w in program.weights)
    data = {
        "program": program.program_hash.hex(), "weights_root": program.weights_root.hex(),
        "parameters": parameters, "name": model.settings.name, "context": model.settings.context,
        "dimensions": model.dimensions, "tokenizer": model.tokenizer.id,
    }  # fmt: skip
    print_result(args, data, [
        f"wrote {args.output}",
        f"encoder  {model.settings.name}, {parameters:,} parameters, {model.dimensions} dimensions, texts of "
        f"up to {model.settings.context} tokens",
        f"program  {data['program']}",
        f"weights  {data['weights_root']}",
    ])  # fmt: skip
    return OK
