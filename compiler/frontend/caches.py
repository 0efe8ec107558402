"""The caches of keys and values that transformers models return, as tuples of tensors.

torch.export takes only containers that it knows. A hook on the module, for the length of the export, puts in a
cache's place what it holds: a tuple per layer, usually (keys, values); two such tuples for an encoder with a
decoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree


@contextmanager
def caches_as_tuples(module: torch.nn.Module) -> Iterator[None]:
    """While this lasts, the module returns tuples instead of caches."""

    def convert(module: torch.nn.Module, args: Any, output: Any) -> Any:
        leaves = pytree.tree_leaves(output, is_leaf=_is_cache)
        if not any(map(_is_cache, leaves)):
            return output
        return pytree.tree_map(_contents, output, is_leaf=_is_cache)

    handle = module.register_forward_hook(convert)
    try:
        yield
    finally:
        handle.remove()


def _is_cache(x: Any) -> bool:
    return any((c.__module__, c.__name__) == ("transformers.cache_utils", "Cache")
               for c in type(x).__mro__)  # fmt: skip


def _contents(x: Any) -> Any:
    if not _is_cache(x):
        return x
    if hasattr(x, "self_attention_cache"):
        return _contents(x.self_attention_cache), _contents(x.cross_attention_cache)
    public = ({k: v for k, v in vars(layer).items() if k[0] != "_"} for layer in x.layers)
    return tuple(tensors_of(layer) for layer in public)


def tensors_of(output: Any) -> tuple[torch.Tensor, ...]:
    """All tensors of what a model returns, of its caches too, in order."""
    leaves = pytree.tree_leaves(pytree.tree_map(_contents, output, is_leaf=_is_cache))
    return tuple(x for x in leaves if isinstance(x, torch.Tensor))
