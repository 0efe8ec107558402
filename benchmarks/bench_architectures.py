"""Models of four layers at a realistic width against torch eager; JSON on stdout.

Interleaved in one process with the same number of threads; `ratio` is time of REE / time of torch.
"""

from __future__ import annotations

import argparse
import json
import warnings
from statistics import median

import torch
from architectures import model_and_inputs
from turns import interleaved, ratio

import ree

WIDE = {"hidden_size": 768, "num_hidden_layers": 4, "num_attention_heads": 12, "intermediate_size": 3072,
        "vocab_size": 8000, "max_position_embeddings": 512}  # fmt: skip
SIZES = {
    "bert": WIDE,
    "gpt2": {"n_embd": 768, "n_layer": 4, "n_head": 12, "vocab_size": 8000, "n_positions": 512},
    "llama": {**WIDE, "intermediate_size": 2048, "num_key_value_heads": 12},
    "qwen2": {**WIDE, "intermediate_size": 2048, "num_key_value_heads": 4},
    "vit": {"hidden_size": 768, "num_hidden_layers": 4, "num_attention_heads": 12, "intermediate_size": 3072,
            "image_size": 224, "patch_size": 16},
    "resnet": {"embedding_size": 64, "hidden_sizes": [256, 512, 1024, 2048], "depths": [1, 1, 1, 1]},
    "convnext": {"hidden_sizes": [96, 192, 384, 768], "depths": [1, 1, 1, 1], "image_size": 224},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(SIZES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8, help="per model")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.names:
        module, inputs = model_and_inputs(name, **SIZES[name])
        if "input_ids" in inputs:
            ids = torch.randint(3, 8000, (4, 128))
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        else:
            inputs = {"pixel_values": torch.randn(2, 3, 224, 224)}
        program = ree.compile(module, inputs)
        with torch.no_grad():
            s = interleaved({"torch": lambda m=module, x=inputs: m(**x),
                             "ree": lambda p=program, x=inputs: p.run(**x, threads=args.threads)},
                            args.seconds)  # fmt: skip
        milliseconds = {f"{side}_ms": round(1e3 * median(s[side]), 1) for side in ("torch", "ree")}
        rows.append({"model": name, "threads": args.threads, **milliseconds,
                     "ratio": ratio(s["ree"], s["torch"])})  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
