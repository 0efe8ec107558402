"""Small tokenizers, and the real one of SmolLM2."""

import json

import pytest


def alphabet():
    """The 256 characters of byte-level vocabularies."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]


def byte_level_json():
    """A tokenizer.json as an object: bytes, a merge, and three added tokens, one of which is not special."""
    vocab = {c: i for i, c in enumerate(alphabet())}
    vocab["th"] = 256
    added = [
        {
            "id": 257 + i,
            "content": t,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": t != "<tool>",
        }
        for i, t in enumerate(("<s>", "</s>", "<tool>"))
    ]
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": level,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [["t", "h"]],
        },
    }


@pytest.fixture(scope="session")
def byte_level():
    return byte_level_json()


@pytest.fixture(scope="session")
def fallback():
    """A tokenizer.json as Llama 2 has it: a sign for spaces, bytes as <0x0A>, a first space stripped."""
    words = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{b:02X}>" for b in range(256)),
        *"▁abch",
        "▁a",
        "<0xZZ>",
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": words[i],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i in range(3)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {w: i for i, w in enumerate(words)},
            "merges": [["▁", "a"]],
        },
    }


@pytest.fixture(scope="session")
def unigram(fallback):
    """The same with a model of likely pieces in the place of merges, as SentencePiece's default is."""
    words = list(fallback["model"]["vocab"])[:-1]
    pieces = [[w, -20.0] for w in words] + [
        ["ab", -2.5],
        ["▁ab", -3.0],
        ["bc", -2.0],
        ["abc", -4.75],
    ]
    scored = {"▁": -2.0, "a": -1.5, "b": -1.75, "c": -3.0, "h": -3.5, "▁a": -2.25}
    vocab = [[w, scored.get(w, x)] for w, x in pieces]
    return fallback | {
        "model": {"type": "Unigram", "vocab": vocab, "unk_id": 0, "byte_fallback": True}
    }


@pytest.fixture(scope="session")
def metaspace():
    """A tokenizer.json with the sign for spaces in decoder and cut alike."""
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": space,
        "post_processor": None,
        "decoder": space,
        "model": {
            "type": "WordLevel",
            "vocab": {w: i for i, w in enumerate(("▁", "▁▁a", "▁b", "a", "?"))},
            "unk_token": "?",
        },
    }


@pytest.fixture(scope="session")
def smollm2():
    """The tokenizer of SmolLM2-135M-Instruct."""
    from ree.generation.gguf_file import GgufFile
    from ree.generation.gguf_model import GgufModel
    from ree.generation.gguf_tokenizer import tokenizer_json
    from ree.generation.models import smollm2_path
    from ree.generation.tokenizer import Tokenizer

    with GgufFile(smollm2_path()) as file:
        return Tokenizer(tokenizer_json(GgufModel(file)))


@pytest.fixture(scope="session")
def tokenizer_of():
    """From an object to a tokenizer."""
    from ree.generation.tokenizer import Tokenizer

    return lambda whole: Tokenizer(json.dumps(whole).encode())
