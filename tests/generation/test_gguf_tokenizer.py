"""Vocabularies of GGUF files: SentencePiece's tokens by scores, cut and first tokens as the file says."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ree.generation.gguf_file import GgufFile
from ree.generation.gguf_model import GgufModel
from ree.generation.gguf_tokenizer import tokenizer_json
from ree.generation.testing import gguf
from ree.generation.tokenizer import Tokenizer

PIECES = ["ab", "bc", "abc", "▁a", "aa", "aaa", "▁▁", "cab", "ca", "b▁", "▁ab", "aab"]
LETTERS = ["a", "b", "c", "▁"]
SPECIAL = ["<unk>", "<s>", "</s>", "<x>", "\n\n"]
TOKENS = [*SPECIAL, *(f"<0x{b:02X}>" for b in range(256)), *PIECES, *LETTERS]
KINDS = [2, 3, 3, 4, 4] + [6] * 256 + [1] * (len(PIECES) + len(LETTERS))
SCORES = (
    [-1000.0] * 261 + [-float(7 * i % 12) - 1 for i in range(len(PIECES))] + [-50.0] * len(LETTERS)
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """From keys of the metadata to a tokenizer."""
    path = tmp_path_factory.mktemp("gguf") / "t.gguf"

    def make(tokens=TOKENS, **keys):
        metadata = {
            "general.architecture": "llama", "llama.embedding_length": 8, "llama.attention.head_count": 1,
            "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.unknown_token_id": 0,
        }  # fmt: skip
        path.write_bytes(gguf(metadata | {f"tokenizer.ggml.{k}": v for k, v in keys.items()}, {}))
        with GgufFile(path) as file:
            return Tokenizer(tokenizer_json(GgufModel(file)))

    return make


def sentencepiece(text):
    """By the definition: of all neighbours whose union is a token, join the best score, the first of equals."""
    parts = list(text)
    scores = dict(zip(TOKENS, SCORES, strict=True))
    while True:
        found = [(-scores[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in PIECES]
        if not found:
            return parts
        _, i = min(found)
        parts[i : i + 2] = ["".join(parts[i : i + 2])]


@settings(deadline=None, max_examples=500)
@given(text=st.text("abc ", max_size=14), prefix=st.booleans())
def test_tokens_are_joined_by_their_scores(made, text, prefix):
    t = made(model="llama", token_type=KINDS, scores=SCORES, add_space_prefix=prefix)
    ids = t.encode(text)
    want = sentencepiece(("▁" if prefix and text else "") + text.replace(" ", "▁"))
    assert [t.piece(i) for i in ids] == want
    assert t.decode(ids) == text


def test_bytes_users_tokens_and_the_first(made):
    t = made(model="llama", token_type=KINDS, scores=SCORES, add_space_prefix=False)
    assert [t.piece(i) for i in t.encode("aé\n\nb<x></s>")] == [
        "a",
        "<0xC3>",
        "<0xA9>",
        "\n\n",
        "b",
        "<x>",
        "</s>",
    ]
    assert t.decode(t.encode("é<x></s>")) == "é<x>"  # </s> alone is special
    assert t.encode("a", add_special=True) == [1, t.encode("a")[0]]  # as SentencePiece has it
    without = made(
        model="llama", token_type=KINDS, scores=SCORES, add_space_prefix=False, add_bos_token=False
    )
    assert without.encode("a", add_special=True) == without.encode("a")


@pytest.mark.parametrize(
    ("pre", "cut"),
    [("gpt-2", ["In", "Ġ2024", "..."]), ("smollm", ["In", "Ġ", "2", "0", "2", "4", "..."]),
     ("qwen2", ["In", "Ġ", "2", "0", "2", "4", "..."]), ("llama-bpe", ["In", "Ġ", "202", "4", "..."])],
)  # fmt: skip
def test_texts_are_cut_as_the_file_says(made, byte_level, pre, cut):
    """Every token that could be joined is there, so that the cut alone decides."""
    letters = sorted(byte_level["model"]["vocab"], key=byte_level["model"]["vocab"].get)[:256]
    whole = ["In", "Ġ2024", "202", "Ġ202", "2024", "Ġ2", "20", "24", "..", "...", "n.", "4.", "Ġ20"]
    merges = [
        "I n",
        "Ġ 2",
        "Ġ2 0",
        "Ġ20 2",
        "Ġ202 4",
        "2 0",
        "20 2",
        "202 4",
        ". .",
        ".. .",
        "n .",
        "4 .",
    ]
    tokens = ["<s>", *letters, *whole]
    t = made(
        tokens,
        model="gpt2",
        pre=pre,
        token_type=[3] + [1] * (len(tokens) - 1),
        merges=merges,
        bos_token_id=0,
    )
    assert [t.piece(i) for i in t.encode("In 2024...")] == cut
    assert t.encode("I", add_special=True) == t.encode(
        "I"
    )  # no first token unless the file says so
    first = made(tokens, model="gpt2", pre=pre, token_type=[3] + [1] * (len(tokens) - 1), merges=merges,
                 bos_token_id=0, add_bos_token=True)  # fmt: skip
    assert first.encode("I", add_special=True) == [0, *t.encode("I")]
