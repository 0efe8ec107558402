"""`ree export`: the model that a training run has made."""

from __future__ import annotations

import argparse

from ree.cli.exit_codes import OK
from ree.cli.grammar import Parser, add_json
from ree.cli.output import print_result, progress
from ree.errors import InputError

HELP = "write the model that a training run has made: its weights, or an artifact"


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.safetensors|OUT.ree")
    parser.add_argument("--script", metavar="TRAIN.py", help="for an artifact: model() and example_inputs() "
                        "(default: the model called with the first tensor of the batch)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """The last checkpoint's parameters and buffers by torch's names, or the model compiled with them."""
    from pathlib import Path

    from ree.training.trained import load_into, run_model, run_state

    out = Path(args.output)
    artifact = out.suffix == ".ree"
    if not artifact and out.suffix != ".safetensors":
        raise InputError(
            f"output: expected a name that ends in .safetensors or .ree, got '{out.name[:80]}'"
        )
    if artifact and not args.script:
        raise InputError("an artifact needs the model's code", "give it: --script TRAIN.py")
    if not artifact and args.script:
        raise InputError("--script is for an artifact", "weights need no code")
    state, weights, step, program = run_state(Path(args.run))
    if artifact:
        module, inputs = run_model(Path(args.script), state)
        load_into(state, module)
        from ree.compilation import compile

        with progress("compile"):
            compile(module.eval(), inputs).save(str(out))
    else:
        from ree.files.atomic import atomic_file
        from ree.files.safetensors import write_tensors_to
        from ree.training.trained import torch_tensors

        tensors = torch_tensors(state) | weights
        with atomic_file(out) as f:
            write_tensors_to(f, tensors, {"program": program, "step": str(step)})
    print_result(
        args,
        {"output": str(out), "step": step, "program": program},
        [f"wrote {out}: the model after step {step}"],
    )
    return OK
