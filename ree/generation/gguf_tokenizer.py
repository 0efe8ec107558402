"""The vocabulary of a GGUF file as tokenizer.json: byte-level BPE (gpt2), or SentencePiece (llama)."""

from __future__ import annotations

import json
from typing import Any

from ree.errors import ReeError
from ree.generation.gguf_model import GgufModel
from ree.generation.patterns import LLAMA3, QWEN2

_CONTROL, _USER = 3, 4  # types of tokens
_KEY = "tokenizer.ggml."
_SPACE = "▁"
MAX_PIECE = 64  # characters of a token that merges make
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def _split(pattern: str) -> dict[str, Any]:
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [cut, _BYTES | {"use_regex": False}]}


# how a text is cut before tokens are sought, by `tokenizer.ggml.pre`
_CUTS: dict[str, dict[str, Any]] = {
    "gpt-2": {"normalizer": None, "pre_tokenizer": _BYTES | {"use_regex": True}},
    "smollm": {
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                _BYTES | {"use_regex": True},
            ],
        },
    },
    "llama-bpe": {"normalizer": None, "pre_tokenizer": _split(LLAMA3)},
    "qwen2": {"normalizer": {"type": "NFC"}, "pre_tokenizer": _split(QWEN2)},
}


def tokenizer_json(model: GgufModel) -> bytes:
    """tokenizer.json of a GGUF file; ReeError for a vocabulary that is malformed or of another kind."""
    kind, cut = model.get(_KEY + "model", str), model.get(_KEY + "pre", str, "default")
    if kind != "llama" and (kind != "gpt2" or cut not in _CUTS):
        raise ReeError(
            f"{model.name}: a tokenizer of model {kind}, cut as {cut}, is not supported in GGUF",
            f"supported: llama; gpt2, cut as {', '.join(_CUTS)}",
        )
    for key in ("add_eos_token", "add_sep_token", "remove_extra_whitespaces"):
        if model.get(_KEY + key, bool, False):
            raise ReeError(f"{model.name}: key {_KEY}{key} is not supported")
    if _KEY + "precompiled_charsmap" in model.file.metadata:
        raise ReeError(f"{model.name}: key {_KEY}precompiled_charsmap is not supported")
    kinds = model.get(_KEY + "token_type", list)
    if len(kinds) != len(model.tokens):
        raise ReeError(f"{model.name}: {len(kinds)} token types for {len(model.tokens)} tokens")
    if not all(isinstance(t, str) for t in model.tokens) or len(set(model.tokens)) != len(
        model.tokens
    ):
        raise ReeError(f"{model.name}: tokens are no texts, or one stands in the vocabulary twice")
    added = [
        {"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": kind == _CONTROL}
        for i, (t, kind) in enumerate(zip(model.tokens, kinds, strict=True)) if kind in (_CONTROL, _USER)
    ]  # fmt: skip
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
             **(_by_scores(model) if kind == "llama" else _by_merges(model, cut))}  # fmt: skip
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def _by_merges(model: GgufModel, cut: str) -> dict[str, Any]:
    merges = model.get(_KEY + "merges", list)
    pairs = [m.split(" ") if isinstance(m, str) else [] for m in merges]
    if wrong := next((m for m, p in zip(merges, pairs, strict=True) if len(p) != 2), None):
        raise ReeError(f"{model.name}: merge {str(wrong)[:40]!r} is not of two tokens")
    level = _BYTES | {"use_regex": True}
    return {**_CUTS[cut], "post_processor": _first_token(model) or level, "decoder": level,
            "model": _bpe(model, pairs, ignore_merges=cut == "llama-bpe")}  # fmt: skip


def _by_scores(model: GgufModel) -> dict[str, Any]:
    """A pair is merged whose token has the highest score: a list of merges in the order of scores."""
    scores = model.get(_KEY + "scores", list)
    if len(scores) != len(model.tokens) or not all(isinstance(x, float) and x == x for x in scores):
        raise ReeError(
            f"{model.name}: {len(scores)} scores for {len(model.tokens)} tokens, or one is no number"
        )
    place = {t: i for i, t in enumerate(model.tokens)}
    pairs = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        t = model.tokens[i]
        if len(t) > MAX_PIECE:
            continue  # a run of one sign, added as it is
        cuts = ((t[:k], t[k:]) for k in range(1, len(t)))
        pairs += sorted(
            (c for c in cuts if c[0] in place and c[1] in place),
            key=lambda c: (place[c[0]], place[c[1]]),
        )
    prefix = model.get(_KEY + "add_space_prefix", bool, True)
    space: dict[str, Any] = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    first = {"type": "Prepend", "prepend": _SPACE}
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = model.token_id("unknown")
    return {
        "normalizer": {"type": "Sequence", "normalizers": [first, space]} if prefix else space,
        "pre_tokenizer": None, "post_processor": _first_token(model),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _bpe(model, pairs, byte_fallback=True, fuse_unk=True,
                      unk_token=None if unknown is None else model.tokens[unknown]),
    }  # fmt: skip


def _bpe(model: GgufModel, merges: list[Any], **more: Any) -> dict[str, Any]:
    vocab = {t: i for i, t in enumerate(model.tokens)}
    absent = dict.fromkeys(
        ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    )
    off = dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False)
    plain: dict[str, Any] = {"type": "BPE", **absent, **off}
    return plain | more | {"vocab": vocab, "merges": merges}


def _first_token(model: GgufModel) -> dict[str, Any] | None:
    """What puts the first token before a text, or None. By default only SentencePiece has one."""
    bos = model.token_id("bos")
    default = model.get(_KEY + "model", str) == "llama"
    if bos is None or not model.get(_KEY + "add_bos_token", bool, default):
        return None
    text = model.tokens[bos]
    first = {"SpecialToken": {"id": text, "type_id": 0}}
    a, b = ({"Sequence": {"id": x, "type_id": i}} for i, x in enumerate("AB"))
    return {"type": "TemplateProcessing", "single": [first, a], "pair": [first, a, b],
            "special_tokens": {text: {"id": text, "ids": [bos], "tokens": [text]}}}  # fmt: skip
