"""Names and sizes that the programs of generation share."""

from __future__ import annotations

NO_MODEL = "the artifact is not a language model's"
EXPECTED = "expected one that ree compile made of a model's directory or GGUF file"
CHUNK = 128  # positions that one step of a claim covers
CACHES = 2  # tensors of a layer: keys, values
MOST_LAYERS = 1000
INPUTS = ("tokens", "positions", "rows", "limit")  # of the forward program, ahead of the caches


def cache_names(layers: int) -> tuple[str, ...]:
    """Names of the caches, by layer; also their alphabetic order."""
    return tuple(f"cache.{i:03}.{part}" for i in range(layers) for part in ("key", "value"))


def capacity_for(positions: int) -> int:
    """The capacity of the caches for so many positions: 128 times a power of two."""
    chunks = -(-max(positions, 1) // CHUNK)
    return CHUNK << (chunks - 1).bit_length()
