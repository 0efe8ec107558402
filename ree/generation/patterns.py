"""The regular expressions by which tokenizers of known families cut text; no other is admitted.

A backtracking engine runs them, and one of an unknown file could take it for ever.
"""

from __future__ import annotations

_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = _WORD + r"\p{N}{1,3}" + _REST
QWEN2 = _WORD + r"\p{N}" + _REST
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_REST_SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = "|".join(c + _SHORT for c in _CASED) + r"|\p{N}{1,3}" + _REST_SLASH
TEKKEN = "|".join(_CASED) + r"|\p{N}" + _REST_SLASH

ADMITTED = frozenset({GPT2, LLAMA3, QWEN2, O200K, TEKKEN})
