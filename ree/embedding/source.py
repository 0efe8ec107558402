"""Sentence encoders from disk: a sentence-transformers directory, read without trust, to a program.

    tokens i64[b,t], lengths i64[b] -> embedding f32[b,d]

What lies behind a text's length is masked: padding on the right changes no bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ree.artifact.format import EMBEDDING, TOKENIZER
from ree.embedding.model import INPUTS, OUTPUT, EmbeddingSettings
from ree.errors import CaptureError, ReeError
from ree.generation.source import ModelDirectory, check_sizes, context_of, load_module
from ree.program import Names, Program
from ree.traces.strict_json import strict_json

# model_type of config.json -> class of transformers; each is tested to compile and to give its vectors
ENCODERS = {
    "bert": "BertModel",
    "distilbert": "DistilBertModel",
    "mpnet": "MPNetModel",
    "roberta": "RobertaModel",
}
# which count positions from behind the padding token's number on, by default or always 1
OFFSET = {"mpnet": None, "roberta": "pad_token_id"}
MODULES = "modules.json"
MEAN, CLS = "mean", "cls"
TOLERANCE = 1e-4  # between the program's vectors and the model's, of the greatest element
TEXTS = 1024  # that one call takes, at most
_FLAG = "pooling_mode_"  # of older files: one flag for each way


def compile_encoder(path: str | PathLike[str]) -> Program:
    """The program of a sentence-transformers directory, with its tokenizer and settings.

    ReeError, one line, for what is missing, malformed or asks for more than token states that are averaged, or
    taken at the first token, and then scaled to length 1; CaptureError where its vectors are not the model's.
    """
    source = _Encoder(Path(path))
    module, context = source.module()
    import torch

    from ree.compilation import compile

    tokens, lengths = torch.full((3, 7), source.token), torch.tensor([7, 4, 1])
    b, t = torch.export.Dim("b", max=TEXTS), torch.export.Dim("t", max=context)
    shapes = {"tokens": {0: b, 1: t}, "lengths": {0: b}}
    captured = compile(module, (tokens, lengths), dynamic_shapes=shapes)
    settings = EmbeddingSettings(source.directory.path.resolve().name[:200], context)
    files = {EMBEDDING: settings.to_json(), TOKENIZER: source.tokenizer_json}
    names = Names(INPUTS, (OUTPUT,), captured.names.weights)
    program = Program(captured.graph, names, captured.weights, files=files)
    _compare(program, module, context, source.token)
    return program


class _Encoder:
    """What the files of a directory say."""

    def __init__(self, path: Path) -> None:
        self.directory = ModelDirectory(path)
        kinds, folders = self._modules()
        if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
            raise ReeError(
                f"'{path}': {MODULES} has {', '.join(kinds)[:100] or 'nothing'}",
                "supported: Transformer, Pooling, and Normalize or nothing behind them",
            )
        self.unit = len(kinds) == 3
        self.pooling = self._pooling(folders[1])
        config = self.directory.json("config.json")
        if folders[0] or config is None:
            raise ReeError(f"'{path}' has no config.json beside {MODULES}")
        self.config = config
        check_sizes(config, str(path), ENCODERS)
        if config.get("is_decoder") or config.get("add_cross_attention"):
            raise ReeError(f"'{path}': is_decoder is not supported in an encoder")
        tokenizer_json = self.directory.read(TOKENIZER)
        if tokenizer_json is None:
            raise ReeError(f"'{path}' has no {TOKENIZER}")
        self.tokenizer_json = tokenizer_json
        self._check_case()
        prompts = self.directory.json("config_sentence_transformers.json") or {}
        if prompts.get("default_prompt_name"):
            raise ReeError(f"'{path}': default_prompt_name is not supported",
                           "texts are embedded as they are given")  # fmt: skip
        pad = config.get("pad_token_id")
        self.token = 1 if pad == 0 else 0  # any but the padding, for the capture

    def _modules(self) -> tuple[list[str], list[str]]:
        raw, path = self.directory.read(MODULES), self.directory.path / MODULES
        try:
            listed = strict_json(raw or b"")
            pairs = [(m["type"].rpartition(".")[2], m["path"]) for m in listed]
            good = all(isinstance(p, str) and p in ("", Path(p).name) for _, p in pairs)
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise ReeError(f"'{path}' is not a list of modules: {str(e)[:80]}") from e
        if not good:
            raise ReeError(f"'{path}': a module's path is not a folder beside it")
        return [k for k, _ in pairs], [p for _, p in pairs]

    def _pooling(self, folder: str) -> str:
        name = f"{folder}/config.json"
        told = self.directory.json(name)
        if told is None:
            raise ReeError(f"'{self.directory.path}' has no {name}")
        ways = {k.removeprefix(_FLAG) for k, x in told.items() if k.startswith(_FLAG) and x}
        ways = {w.removesuffix("_tokens").removesuffix("_token") for w in ways}
        if "pooling_mode" in told:
            ways = {str(told["pooling_mode"])[:60]}
        if len(ways) != 1 or not ways <= {MEAN, CLS}:
            raise ReeError(f"'{self.directory.path}': pooling by {', '.join(sorted(ways)) or 'nothing'}",
                           f"supported: {MEAN}, {CLS}")  # fmt: skip
        return ways.pop()

    def _check_case(self) -> None:
        """What is asked of the tokenizer beside its file is what the file does."""
        path = self.directory.path
        if (self.directory.json("sentence_bert_config.json") or {}).get("do_lower_case"):
            raise ReeError(f"'{path}': do_lower_case of sentence_bert_config.json is not supported")
        told = self.directory.json("tokenizer_config.json") or {}
        try:
            normalizer = strict_json(self.tokenizer_json)["normalizer"]
        except (ValueError, KeyError, TypeError) as e:
            raise ReeError(f"'{path}': {TOKENIZER} has no normalizer: {str(e)[:80]}") from e
        if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
            return
        for key, part in (("do_lower_case", "lowercase"), ("strip_accents", "strip_accents"),
                          ("tokenize_chinese_chars", "handle_chinese_chars")):  # fmt: skip
            if key in told and told[key] != normalizer.get(part):
                raise ReeError(f"'{path}': tokenizer_config.json has {key} {str(told[key])[:20]}, {TOKENIZER} "
                               f"has {part} {str(normalizer.get(part))[:20]}")  # fmt: skip

    def _context(self) -> int:
        context = context_of(self.config)
        if self.config["model_type"] in OFFSET:
            pad = self.config.get(OFFSET[self.config["model_type"]] or "", 1)
            context -= (pad if type(pad) is int else 1) + 1
        most = (self.directory.json("sentence_bert_config.json") or {}).get("max_seq_length")
        if most is not None and (type(most) is not int or most < 1):
            raise ReeError(f"'{self.directory.path}': max_seq_length is {str(most)[:40]}")
        context = context if most is None else min(context, most)
        if context < 3:
            raise ReeError(f"'{self.directory.path}' takes {context} tokens, expected at least 3")
        return context

    def module(self) -> tuple[Any, int]:
        """(a torch module from tokens and lengths to vectors, how many tokens it takes)."""
        from ree.embedding.pooled import Pooled

        name = str(self.directory.path)
        weights = {k: w for k, w in self.directory.weights().items() if not k.startswith("pooler.")}
        options: Mapping[str, Any] = {"add_pooling_layer": False}
        if self.config["model_type"] == "distilbert":
            options = {}
        transformer = load_module(self.config, weights, name, ENCODERS, **options)
        return Pooled(transformer, self.pooling == MEAN, self.unit).eval(), self._context()


def _compare(program: Program, module: Any, context: int, token: int) -> None:
    """CaptureError unless the program gives the model's vectors for some tokens, but for rounding."""
    import torch

    width, rng = min(context, 11), np.random.default_rng(0)
    vocabulary = module.transformer.get_input_embeddings().weight.shape[0]
    tokens = rng.integers(0, vocabulary, (3, width))
    lengths = np.array([width, width - 2, 1])
    tokens[tokens == module.padding] = token
    tokens[np.arange(width)[None] >= lengths[:, None]] = max(module.padding, 0)
    got = program.run(tokens, lengths).outputs[0]
    with torch.no_grad():
        want = module(torch.from_numpy(tokens), torch.from_numpy(lengths)).numpy()
    if not np.abs(got - want).max() <= TOLERANCE * np.abs(want).max():
        raise CaptureError(
            f"the program's vectors are not the model's: they differ by {np.abs(got - want).max():.3g}"
        )
