"""Models whose layers are alike: three of them are captured, the others are written as the third is.

Capture takes time with the number of layers. The third layer's nodes, with the weights and caches of layer i,
are those of layer i, if the layers are built alike (`layers_of`) and the third follows the second as a copy
would (checked); whoever captures compares logits with the model's at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from ree.compiler.frontend.capture import to_array
from ree.compiler.ir import Builder, Graph, Kind, Node, Ref
from ree.compiler.passes.canonical import canonicalise
from ree.generation.layout import CACHES, INPUTS
from ree.kernels.opdef import Array

CAPTURED = 3
_OF_ITSELF = frozenset({"layer_idx", "layer_id", "training", "_modules", "_parameters", "_buffers"})


class NotAlike(ValueError):
    """The layers are not written the same way, so that all have to be captured."""


def layers_of(model: torch.nn.Module) -> tuple[str, torch.nn.ModuleList] | None:
    """Name and list of a model's layers; None if they are few, or not alike."""
    count = model.config.num_hidden_layers
    found = [(n, m) for n, m in model.named_modules()
             if isinstance(m, torch.nn.ModuleList) and len(m) == count]  # fmt: skip
    kinds = getattr(model.config, "layer_types", None) or ()  # they decide on a layer's mask
    if len(found) != 1 or count <= CAPTURED or len(set(kinds)) > 1:
        return None
    name, layers = found[0]
    first = _built(layers[0])
    return (name, layers) if all(_built(x) == first for x in layers[1:]) else None


def _built(module: torch.nn.Module) -> list[Any]:
    """What a module is made of, but for the values of its tensors and its number."""
    out: list[Any] = []
    for name, m in module.named_modules():
        own = {k: repr(v) if not callable(v) else getattr(v, "__qualname__", type(v).__name__)
               for k, v in vars(m).items() if k not in _OF_ITSELF and k != "config"}  # fmt: skip
        tensors = [(n, t.shape, t.dtype) for kind in (m._parameters, m._buffers)
                   for n, t in kind.items() if t is not None]  # fmt: skip
        out.append((name, type(m), id(vars(m).get("config")), sorted(own.items()), tensors))
    return out


@contextmanager
def only_first(model: torch.nn.Module, name: str) -> Iterator[None]:
    """While this lasts, the model has CAPTURED layers."""
    parent, _, attribute = name.rpartition(".")
    owner, config = model.get_submodule(parent), model.config
    layers, count = getattr(owner, attribute), config.num_hidden_layers
    try:
        setattr(owner, attribute, torch.nn.ModuleList(list(layers)[:CAPTURED]))
        config.num_hidden_layers = CAPTURED
        yield
    finally:
        setattr(owner, attribute, layers)
        config.num_hidden_layers = count


def repeated(
    g: Graph,
    weights: Mapping[str, Array],
    tensors: Mapping[str, torch.Tensor],
    prefix: str,
    count: int,
) -> tuple[Graph, dict[str, Array]]:
    """The graph of `count` layers from that of CAPTURED ones, with its weights by name; NotAlike.

    weights: of g, in its order, by name. tensors: of the whole model by name. prefix: of the layers' names.
    """
    return _Repeat(g, dict(weights), tensors, prefix, count).run()


class _Repeat:
    def __init__(
        self, g: Graph, weights: dict[str, Array], tensors: Mapping[str, torch.Tensor], prefix: str, count: int
    ) -> None:  # fmt: skip
        self.g, self.weights, self.tensors, self.count = g, weights, tensors, count
        self.names = list(weights)
        self.pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
        self.layer = [self._layer(n) for n in g.nodes]
        self.parts = [[n for n, i in zip(g.nodes, self.layer, strict=True) if i == k]
                      for k in range(CAPTURED)]  # fmt: skip
        # of the second and third layer: the value of each that corresponds to one of the other
        second, third = self.parts[1:]
        if [n.op for n in second] != [n.op for n in third]:
            raise NotAlike("the second and third layer have other operators")
        self.before = {Ref(Kind.VALUE, b.first + i): Ref(Kind.VALUE, a.first + i)
                       for a, b in zip(second, third, strict=True) for i in range(len(b.results))}  # fmt: skip

    def _layer(self, n: Node) -> int:
        found = self.pattern.search(f"{n.origin.module}.")
        return int(found[1]) if found else -1

    def run(self) -> tuple[Graph, dict[str, Array]]:
        self._check()
        g, b = self.g, Builder(self.g.contract)
        arrays = self._all_weights()
        b.symbols = list(g.symbols)
        n = len(INPUTS)
        per_layer = g.inputs[n + CACHES * (CAPTURED - 1) :]
        for t in (*g.inputs, *per_layer * (self.count - CAPTURED)):
            b.input(t)
        place: dict[Ref, Ref] = {
            Ref(Kind.INPUT, i): Ref(Kind.INPUT, i) for i in range(len(g.inputs))
        }
        where = {}
        for name in sorted(arrays):
            where[name] = b.weight(self._type(name))
        place |= {Ref(Kind.WEIGHT, i): where[name] for i, name in enumerate(self.names)}
        place |= {Ref(Kind.CONST, i): b.const(c) for i, c in enumerate(g.consts)}
        last = max(i for i, k in enumerate(self.layer) if k == CAPTURED - 1)
        caches = list(g.outputs[:-1])
        made_caches: list[Ref] = []
        for at, x in enumerate(g.nodes):
            b.add_again(x, place)
            if at == last:
                made_caches = [place[r] for r in caches]
                current = dict(place)  # of the layer before, in the places of the third layer's
                for i in range(CAPTURED, self.count):
                    current = self._write(b, place, current, where, i)
                    made_caches += [current[r] for r in caches[-CACHES:]]
                place |= {v: current[v] for v in self.before}
        out = canonicalise(b.finish((*made_caches, place[g.outputs[-1]])))
        return out, {name: arrays[name] for name in sorted(arrays)}

    def _write(
        self,
        b: Builder,
        place: Mapping[Ref, Ref],
        last: Mapping[Ref, Ref],
        where: Mapping[str, Ref],
        i: int,
    ) -> dict[Ref, Ref]:
        """Layer i, as the third one; where the third one's values stand in it."""
        now = dict(place)
        now |= {
            a: last[b_] for b_, a in self.before.items()
        }  # the second layer's values are the last one's
        n, third = len(INPUTS), CAPTURED - 1
        for c in range(CACHES):
            now[Ref(Kind.INPUT, n + CACHES * third + c)] = Ref(Kind.INPUT, n + CACHES * i + c)
        for k, name in enumerate(self.names):
            if (found := self.pattern.search(name)) and int(found[1]) == third:
                now[Ref(Kind.WEIGHT, k)] = where[self._renamed(name, i)]
        for x in self.parts[third]:
            origin = replace(
                x.origin, module=self._renamed(f"{x.origin.module}.", i).removesuffix(".")
            )
            b.add_again(x, now, origin)
        return now

    def _renamed(self, name: str, i: int) -> str:
        return self.pattern.sub(lambda m: m[0].replace(f".{m[1]}.", f".{i}."), name)

    def _type(self, name: str) -> Any:
        found = self.pattern.search(name)
        known = name if not found or int(found[1]) < CAPTURED else self._renamed(name, CAPTURED - 1)
        return self.g.weights[self.names.index(known)]

    def _all_weights(self) -> dict[str, Array]:
        out = dict(self.weights)
        for name in self.names:
            found = self.pattern.search(name)
            if found and int(found[1]) == CAPTURED - 1:
                for i in range(CAPTURED, self.count):
                    new = self._renamed(name, i)
                    out[new] = to_array(self.tensors[new], new, "")
        return out

    def _check(self) -> None:
        """NotAlike unless the third layer is to the second as a copy of it would be."""
        second, third = self.parts[1:]
        back = dict(self.before)
        inner = set(self.before)
        for a, b in zip(second, third, strict=True):
            if a.attrs != b.attrs or a.results != b.results or len(a.sources) != len(b.sources):
                raise NotAlike(f"{b.op} of the third layer is another")
            for s, t in zip(a.sources, b.sources, strict=True):
                self._check_source(s, t, back, inner)
        readers = [n for n, k in zip(self.g.nodes, self.layer, strict=True) if k < 0]
        for n in readers:  # what is outside reads the last layer alone
            if any(s in set(self.before.values()) for s in n.sources):
                raise NotAlike("the second layer is read from outside of the layers")

    def _check_source(self, s: Ref, t: Ref, back: Mapping[Ref, Ref], inner: set[Ref]) -> None:
        """Whether the third layer's source t is what s is to the second."""
        if t in inner:
            ok = back[t] == s
        elif t.kind is Kind.WEIGHT:
            ok = self._renamed(self.names[s.index], 2) == self._renamed(self.names[t.index], 2)
        elif t.kind is Kind.INPUT and t.index >= len(INPUTS):
            ok = t.index - s.index == CACHES
        elif (
            t in back.values()
        ):  # the second layer's value: s is the first layer's at the same place
            first = self.parts[0]
            ok = s.kind is Kind.VALUE and any(
                n.first <= s.index < n.first + len(n.results) for n in first
            )
        else:
            ok = s == t
        if not ok:
            raise NotAlike(f"the third layer reads {t} where the second reads {s}")
