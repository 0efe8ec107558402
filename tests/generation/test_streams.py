"""Text as tokens come: the same text, nothing taken back, nothing of a stop string given out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ree.errors import ReeError
from ree.generation.streams import StopStrings, TextStream


def streamed(tokenizer, ids, skip):
    stream = TextStream(tokenizer, skip_special=skip)
    return "".join(stream.push(i) for i in ids) + stream.finish()


@pytest.mark.parametrize("skip", [False, True])
def test_every_token_alone(smollm2, skip):
    for i in range(smollm2.size):
        assert streamed(smollm2, [i], skip) == smollm2.decode([i], skip)


@settings(deadline=None, max_examples=300)
@given(ids=st.lists(st.integers(0, 49151), max_size=40), skip=st.booleans())
def test_a_stream_is_the_decoded_whole(smollm2, ids, skip):
    assert streamed(smollm2, ids, skip) == smollm2.decode(ids, skip)


@settings(deadline=None, max_examples=500)
@given(
    raw=st.binary(max_size=12)
    | st.lists(st.sampled_from([0x41, 0x80, 0xC3, 0xE2, 0xED, 0xA0, 0xF0, 0x9F, 0xF5]))
)
def test_bytes_that_are_not_utf8(byte_level, tokenizer_of, raw):
    """Every byte is a token of its own: sequences cut short, too long, and surrogates in UTF-8."""
    t = tokenizer_of(byte_level)
    ids = {byte: t.encode(bytes([byte]).decode("latin-1"))[-1] for byte in range(0x80)}
    ids |= {0x80 + i: t.encode(chr(0x80 + i))[-1] for i in range(0x40)}  # the last byte of two
    ids |= {
        byte: t.encode(chr(at))[0]
        for byte, at in ((0xC3, 0xC3), (0xE2, 0x2020), (0xED, 0xD7FF), (0xF0, 0x1F600))
    }
    chosen = [ids.get(b, b % 256) for b in raw]
    assert streamed(t, chosen, False) == t.decode(chosen, False)


@settings(deadline=None, max_examples=300)
@given(
    data=st.data(),
    which=st.sampled_from(["byte_level", "fallback", "unigram", "metaspace"]),
    skip=st.booleans(),
)
def test_other_decoders(byte_level, fallback, unigram, metaspace, tokenizer_of, data, which, skip):
    all_of_them = {
        "byte_level": byte_level,
        "fallback": fallback,
        "unigram": unigram,
        "metaspace": metaspace,
    }
    t = tokenizer_of(all_of_them[which])
    ids = data.draw(st.lists(st.integers(0, t.size - 1), max_size=12))
    assert streamed(t, ids, skip) == t.decode(ids, skip)


def test_a_character_comes_when_its_last_byte_does(smollm2):
    ids = smollm2.encode("😀")
    assert len(ids) > 1
    stream = TextStream(smollm2)
    assert [stream.push(i) for i in ids] == [""] * (len(ids) - 1) + ["😀"]


def test_a_run_of_bytes_is_held_until_it_ends(fallback, tokenizer_of):
    t = tokenizer_of(fallback)
    stream = TextStream(t)
    euro = [t.encode("€")[i] for i in (1, 2, 3)]  # after the sign for a space
    assert [stream.push(i) for i in euro] == ["", "", ""]
    assert stream.push(euro[0]) == ""  # the run goes on, and all of it may yet be wrong
    assert stream.finish() == "\ufffd" * 4


def test_stop_strings_across_pieces():
    stops = StopStrings(["\n\n", "END"])
    assert [stops.push(x) for x in ("a\n", "b\n", "\nc")] == [
        ("a", False),
        ("\nb", False),
        ("", True),
    ]
    assert (stops.matched, stops.push("more"), stops.finish()) == ("\n\n", ("", True), "")
    kept = StopStrings(["END"], include=True)
    assert [kept.push(x) for x in ("xE", "ND!")] == [("x", False), ("END", True)]
    none = StopStrings(["END"])
    assert (none.push("xEN"), none.finish()) == (("x", False), "EN")


@pytest.mark.parametrize("stops", [[""], ["a"] * 5, ["a" * 2000]])
def test_stop_strings_that_are_refused(stops):
    with pytest.raises(ReeError, match="stop string"):
        StopStrings(stops)


def cut(text, stops, include):
    """By the definition: the end of the first match to end, the longest of those."""
    for end in range(len(text) + 1):
        ending = [s for s in stops if text[:end].endswith(s)]
        if ending:
            longest = max(ending, key=len)
            return text[: end if include else end - len(longest)], longest
    return text, None


SMALL = st.text("ab", min_size=1, max_size=4)


@settings(max_examples=1000)
@given(
    pieces=st.lists(st.text("abc", max_size=4), max_size=8),
    stops=st.lists(SMALL, max_size=4),
    include=st.booleans(),
)
def test_however_it_is_cut_the_text_is_that_of_the_whole(pieces, stops, include):
    seen, given_out = StopStrings(stops, include), ""
    want, matched = cut("".join(pieces), stops, include)
    for piece in pieces:
        text, stopped = seen.push(piece)
        given_out += text
        assert want.startswith(given_out)  # nothing that belongs to a match has left
        if stopped:
            break
    else:
        given_out += seen.finish()
    assert (given_out, seen.matched) == (want, matched)
