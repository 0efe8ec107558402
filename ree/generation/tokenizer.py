"""Text to tokens and back, by the `tokenizers` library over a tokenizer.json that was checked first."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from ree.errors import ReeError
from ree.generation.token_text import TokenText
from ree.generation.tokenizer_json import MAX_IDS, read_tokenizer

MAX_TEXT = 1 << 20  # bytes of UTF-8 that are encoded at once


@contextmanager
def _no_collection() -> Iterator[None]:
    """A million new objects, none of them garbage, are not looked through again and again."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


class Tokenizer:
    """A tokenizer; `id` is the SHA-256 of its tokenizer.json, hexadecimal, `size` one over its highest id.

    ReeError, one line, for a tokenizer.json that is malformed or not admitted (tokenizer_json.py).
    """

    @_no_collection()
    def __init__(self, tokenizer_json: bytes) -> None:
        import tokenizers

        whole = read_tokenizer(tokenizer_json)
        self.id = hashlib.sha256(tokenizer_json).hexdigest()
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(tokenizer_json)
        except BaseException as e:
            raise _from_library(e) from e
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        vocab = self._tokenizer.get_vocab(with_added_tokens=True)
        pieces = {i: t for t, i in vocab.items()}
        if not pieces or max(pieces) >= MAX_IDS or len(pieces) != len(vocab):
            raise ReeError(
                f"tokenizer.json has no tokens, two with one id, or an id over {MAX_IDS - 1}"
            )
        for t in whole["added_tokens"]:  # the library renumbers what does not fit
            if self._tokenizer.token_to_id(t["content"]) != t["id"]:
                raise ReeError(
                    f"tokenizer.json: added token {t['content'][:40]!r} does not have id {t['id']}"
                )
        self.size = max(pieces) + 1
        self._pieces = pieces
        special = frozenset(t["id"] for t in whole["added_tokens"] if t.get("special"))
        self.text = TokenText(whole["decoder"], pieces, special)

    def encode(self, text: str, add_special: bool = False) -> list[int]:
        """Token ids of a text; special tokens written in it are recognised; with add_special, those of
        the tokenizer's own template (a first token, say) are added. ReeError over MAX_TEXT bytes."""
        try:
            length = len(text.encode())
        except UnicodeEncodeError as e:
            raise ReeError(
                f"the text is not valid Unicode: half a surrogate pair at {e.start}"
            ) from e
        if length > MAX_TEXT:
            raise ReeError(f"the text has {length} bytes, expected at most {MAX_TEXT}")
        try:
            return list(self._tokenizer.encode(text, add_special_tokens=add_special).ids)
        except BaseException as e:
            raise _from_library(e) from e

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of token ids; ReeError for an id that there is not."""
        self.check(ids)
        try:
            return str(self._tokenizer.decode(ids, skip_special_tokens=skip_special))
        except BaseException as e:
            raise _from_library(e) from e

    def check(self, ids: Iterable[int]) -> None:
        """ReeError unless each is the id of a token."""
        wrong = next((i for i in ids if i not in self._pieces), None)
        if wrong is not None:
            raise ReeError(f"there is no token {wrong}", f"expected 0 to {self.size - 1}")

    def piece(self, token_id: int) -> str:
        """A token as the vocabulary writes it."""
        self.check((token_id,))
        return self._pieces[token_id]


def _from_library(e: BaseException) -> BaseException:
    """What to raise for an exception of the library, whose panics are no Exceptions."""
    if isinstance(e, Exception) or type(e).__name__ == "PanicException":
        return ReeError(
            f"the tokenizer failed: {str(e).splitlines()[0][:200] if str(e) else type(e).__name__}"
        )
    return e
