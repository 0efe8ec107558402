"""Tokenizers: the library's results, and what of a hostile tokenizer.json is refused."""

import copy
import gc
import hashlib
import itertools
import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ree.errors import ReeError
from ree.generation import patterns
from ree.generation.tokenizer import MAX_TEXT, Tokenizer
from ree.generation.tokenizer_json import MAX_PIECE, read_tokenizer


def test_smollm2_reads_digits_singly_and_special_tokens_whole(smollm2):
    ids = smollm2.encode("In 2024, it’s 😀<|im_end|>")
    assert [smollm2.piece(i) for i in ids[2:6]] == ["2", "0", "2", "4"]
    assert ids[-1] == 2
    assert smollm2.decode(ids) == "In 2024, it’s 😀"
    assert smollm2.decode(ids, skip_special=False) == "In 2024, it’s 😀<|im_end|>"
    assert smollm2.size == 49152


def test_the_id_is_that_of_the_bytes(byte_level):
    raw = json.dumps(byte_level).encode()
    assert Tokenizer(raw).id == hashlib.sha256(raw).hexdigest()


def test_garbage_is_collected_again_after_a_tokenizer_was_made_or_refused(byte_level):
    Tokenizer(json.dumps(byte_level).encode())
    assert gc.isenabled()
    with pytest.raises(ReeError):
        Tokenizer(b"{}")
    assert gc.isenabled()


def test_special_tokens_are_added_on_request(byte_level, tokenizer_of):
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [257], "tokens": ["<s>"]}},
    }
    t = tokenizer_of(byte_level | {"post_processor": template})
    assert t.encode("th") == [256]
    assert t.encode("th", add_special=True) == [257, 256]


def test_a_files_own_truncation_and_padding_are_not_applied(byte_level, tokenizer_of):
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    pad = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "!",
    }
    assert len(tokenizer_of(byte_level | {"truncation": cut}).encode("abcdef")) == 6
    assert len(tokenizer_of(byte_level | {"padding": pad}).encode("abcdef")) == 6


@pytest.mark.parametrize("ids", [[300], [-1], [1 << 40]])
def test_a_token_that_there_is_not_is_refused(byte_level, tokenizer_of, ids):
    t = tokenizer_of(byte_level)
    with pytest.raises(ReeError, match="there is no token"):
        t.decode(ids)
    with pytest.raises(ReeError, match="there is no token"):
        t.piece(ids[0])


@pytest.mark.parametrize("text", ["a" * (MAX_TEXT + 1), "\ud800"])
def test_a_text_that_cannot_be_read_is_refused(byte_level, tokenizer_of, text):
    with pytest.raises(ReeError, match="the text"):
        tokenizer_of(byte_level).encode(text)


EVIL = {
    "a regular expression": (
        "pre_tokenizer",
        {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False},
    ),
    "one in a normalizer": (
        "normalizer",
        {"type": "Replace", "pattern": {"Regex": "(a|a)*b"}, "content": ""},
    ),
    "one in the decoder": (
        "decoder",
        {"type": "Replace", "pattern": {"Regex": "(a|a)*b"}, "content": ""},
    ),
    "growth": (
        "normalizer",
        {
            "type": "Sequence",
            "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 12,
        },
    ),
    "growth at once": (
        "normalizer",
        {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 500},
    ),
    "many parts": ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 100}),
    "an empty pattern": (
        "normalizer",
        {"type": "Replace", "pattern": {"String": ""}, "content": "a"},
    ),
    "a type": ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "a list for a type": ("normalizer", {"type": ["NFC"]}),
    "a field": ("pre_tokenizer", {"type": "Digits", "individual_digits": True, "more": 1}),
    "a text for a part": ("decoder", "ByteLevel"),
    "a decoder's order": (
        "decoder",
        {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]},
    ),
    "the end stripped": (
        "decoder",
        {
            "type": "Sequence",
            "decoders": [
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 0, "stop": 1},
            ],
        },
    ),
    "no decoder": ("decoder", None),
    "no model": ("model", None),
    "a model": ("model", {"type": "Likely", "vocab": [["a", 0.0]], "unk_id": None}),
    "a part": ("evil", {}),
    "added twice": ("added_tokens", [{"id": 0, "content": "x"}, {"id": 1, "content": "x"}]),
    "added, empty": ("added_tokens", [{"id": 0, "content": ""}]),
    "added at another id": ("added_tokens", [{"id": 77777, "content": "<x>"}]),
    "added, half a pair": ("added_tokens", [{"id": 259, "content": "\ud800"}]),
}


@pytest.mark.parametrize("what", EVIL)
def test_what_is_not_admitted_is_one_line(byte_level, tokenizer_of, what):
    part, value = EVIL[what]
    with pytest.raises(ReeError) as e:
        tokenizer_of(byte_level | {part: value})
    assert "\n" not in e.value.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dropout", 0.1),
        ("vocab", {"a": -1}),
        ("vocab", {"a": 1 << 31}),
        ("vocab", {"a": 0, "b": 0}),
        ("vocab", []),
        ("merges", [["a", "never"]]),
        ("merges", ["a b c"]),
        ("merges", 3),
        ("unk_token", 3),
        ("byte_fallback", None),
    ],
)
def test_a_malformed_model_is_one_line(byte_level, tokenizer_of, field, value):
    with pytest.raises(ReeError) as e:
        tokenizer_of(byte_level | {"model": byte_level["model"] | {field: value}})
    assert "\n" not in e.value.message


def likeliest(text, scores):
    """The cut of a text into pieces whose scores have the greatest sum, by trying all; bytes cost the least."""
    if not text:
        return 0.0, []
    best = -float("inf"), []
    for n in range(1, len(text) + 1):
        if text[:n] in scores:
            rest, cut = likeliest(text[n:], scores)
            best = max(best, (scores[text[:n]] + rest, [text[:n], *cut]), key=lambda x: x[0])
    return best


@pytest.mark.parametrize("length", range(1, 7))
def test_unigram_takes_the_likeliest_pieces(unigram, tokenizer_of, length):
    t, scores = tokenizer_of(unigram), dict(unigram["model"]["vocab"])
    for text in map("".join, itertools.product("abc", repeat=length)):
        got = [t.piece(i) for i in t.encode(text)]
        score, _ = likeliest("▁" + text, scores)
        assert "".join(got) == "▁" + text
        assert math.isclose(sum(map(scores.__getitem__, got)), score), text
        assert t.decode(t.encode(text)) == text


def test_unigram_writes_the_rest_in_bytes(unigram, tokenizer_of):
    t = tokenizer_of(unigram)
    assert [t.piece(i) for i in t.encode("€ab")] == ["▁", "<0xE2>", "<0x82>", "<0xAC>", "ab"]
    for text in ("€", "a😀b", " a  h", "z"):
        assert t.decode(t.encode(text)) == text
    assert t.decode(t.encode("€")[:-1]) == "\ufffd" * 2  # a character cut short


@pytest.mark.parametrize(
    ("field", "value"),
    [("vocab", []), ("vocab", {"a": 0}), ("vocab", [["a", 0.0], ["a", 1.0]]), ("vocab", [["a"]]),
     ("vocab", ["ab"]), ("vocab", [["a", "0"]]), ("vocab", [["a", True]]), ("vocab", [["a", 1e300]]),
     ("vocab", [["a" * 65, 0.0]]), ("vocab", [["\ud800", 0.0]]), ("vocab", [[3, 0.0]]), ("unk_id", 1 << 20),
     ("unk_id", -1), ("unk_id", "a"), ("byte_fallback", 1), ("alpha", 0.5)],
)  # fmt: skip
def test_a_malformed_unigram_is_one_line(unigram, tokenizer_of, field, value):
    with pytest.raises(ReeError) as e:
        tokenizer_of(unigram | {"model": unigram["model"] | {field: value}, "added_tokens": []})
    assert "\n" not in e.value.message


def test_the_longest_pieces_of_unigram_take_seconds_at_most(unigram, tokenizer_of):
    """Every piece is tried at every place, so that their length is bounded."""
    vocab = [["a" * n, -float(n)] for n in range(1, MAX_PIECE + 1)]
    model = {"type": "Unigram", "vocab": vocab, "unk_id": 0}
    t = tokenizer_of(unigram | {"model": model, "normalizer": None, "added_tokens": []})
    start = time.process_time()
    assert len(t.encode("a" * 100_000)) == -(-100_000 // MAX_PIECE)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b"\xff", b"[" * 100000, b'{"a":1,"a":2}', b'{"version":NaN}']
)
def test_what_is_not_a_tokenizer_is_one_line(raw):
    with pytest.raises(ReeError):
        Tokenizer(raw)


@pytest.mark.parametrize("pattern", sorted(patterns.ADMITTED))
@pytest.mark.parametrize("text", ["a", " ", "\n", "1", "!", " a", "A", "'s", "é\u0301"])
def test_admitted_expressions_take_linear_time(byte_level, tokenizer_of, pattern, text):
    cut = {
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {"Regex": pattern},
                "behavior": "Isolated",
                "invert": False,
            },
            {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": True,
                "use_regex": False,
            },
        ],
    }
    t = tokenizer_of(byte_level | {"pre_tokenizer": cut})
    start = time.process_time()
    t.encode(text * (100_000 // len(text)))
    assert time.process_time() - start < 5  # 0.1 s; quadratic would be minutes


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_an_altered_file_gives_a_tokenizer_or_one_line(byte_level, data):
    """Any value of the file replaced by any small JSON: never a panic, never another exception."""
    whole = copy.deepcopy(byte_level)
    whole["model"]["vocab"] = {c: whole["model"]["vocab"][c] for c in "abth"} | {"th": 4}
    whole["added_tokens"] = [t | {"id": 5 + i} for i, t in enumerate(whole["added_tokens"])]
    places = []

    def walk(x):
        for k in x if isinstance(x, dict) else range(len(x)):
            places.append((x, k))
            if isinstance(x[k], dict | list):
                walk(x[k])

    walk(whole)
    holder, key = data.draw(st.sampled_from(places))
    json_values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-2, 1 << 65)
        | st.floats(allow_nan=False)
        | st.text(max_size=4),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=4), x, max_size=3),
        max_leaves=4,
    )
    holder[key] = data.draw(json_values)
    try:
        t = Tokenizer(json.dumps(whole).encode())
        # a text of what the vocabulary lacks is one line too, where the token for that is not in it
        line = t.decode(t.encode("the abc <s> th"), skip_special=False)
    except ReeError as e:
        line = e.message
    assert "\n" not in line


def test_checking_does_not_change_the_file(byte_level):
    assert read_tokenizer(json.dumps(byte_level).encode()) == byte_level
