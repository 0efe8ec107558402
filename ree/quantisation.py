"""A program with its linear layers in 8-bit integers, and how far its results are from the given one's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ree.compiler.ir import Kind
from ree.compiler.passes.load_time import Prelude, further, prelude_graph, without_prelude
from ree.compiler.passes.quantise import (
    Made,
    What,
    column_maxima,
    factors,
    linear_layers,
    quantise_weight,
    quantised,
    quantised_layers,
    with_weights,
)
from ree.compiler.plan.stored import stored_matrices
from ree.errors import InputError
from ree.kernels.numerics import F32
from ree.kernels.opdef import Array
from ree.program import Program
from ree.result import Names


@dataclass(frozen=True)
class OutputError:
    """How far one output is from the given program's, over its elements that are finite in both.

    greatest: of the differences; relative: that over the greatest magnitude; cosine: least of the rows along
    the last axis; None without such elements.
    """

    greatest: float | None
    relative: float | None
    cosine: float | None
    not_finite: int  # elements that are finite in one of the two alone


@dataclass(frozen=True)
class Quantisation:
    """A quantised program, and what was done. layers: in bytes; kept: those that are not, and why; smoothed:
    whether columns were evened out; errors: by output, none without inputs."""

    program: Program
    layers: int
    kept: tuple[str, ...]
    smoothed: bool
    errors: Mapping[str, OutputError]

    def data(self) -> dict[str, Any]:
        """As plain values."""
        return {"layers": self.layers, "kept": list(self.kept), "smoothed": self.smoothed,
                "errors": {k: asdict(e) for k, e in self.errors.items()}}  # fmt: skip


def quantise(program: Program, inputs: Mapping[str, Any] | None = None) -> Quantisation:
    """Every linear layer of a program in 8-bit integers: weights by row, activations by row in every run.

    inputs: by name, those on which columns are evened out and errors are measured; by default the program's
    examples. Without any, and in a program with states, neither is done. InputError if there is no such layer.
    """
    program = _with_matrices(program)
    g = program.graph
    layers = linear_layers(g, [_is_finite(w) for w in program.weights])
    if not layers.chosen:
        reasons = list(dict.fromkeys(reason for _, reason in layers.kept))
        in_bytes, _ = quantised_layers(g)
        why = "; ".join([*[f"{in_bytes} are in 8-bit integers already"] * (in_bytes > 0), *reasons])
        raise InputError(f"no linear layer to quantise{': ' + why if why else ''}",
                         "one whose weight is a matrix of float32 or half precision")  # fmt: skip
    given = dict(program.examples if inputs is None else inputs)
    runs = not g.states and (bool(given) or not g.inputs)
    maxima: dict[Any, F32] = {}
    if runs:
        names = Names(program.names.inputs, tuple(f"x{i}" for i in range(len(layers.sources))),
                      program.names.weights)  # fmt: skip
        probe = program.sibling(column_maxima(g, layers.sources), names)
        found = probe.run_named(given).outputs
        maxima = dict(zip(layers.sources, map(np.asarray, found), strict=True))
    graph, made = quantised(g, layers, runs)
    by_source: dict[Any, list[F32]] = {}
    if runs:
        for x in layers.chosen:
            by_source.setdefault(x.source, []).append(_rows(program, x.weight.index, x.turned))
    factor = {s: factors(maxima[s], w) for s, w in by_source.items()}
    arrays, named = _weights(program, made, factor)
    order = sorted(range(len(named)), key=named.__getitem__)  # as artifacts have them
    graph, arrays = with_weights(graph, order), [arrays[i] for i in order]
    p = program.names
    names = Names(p.inputs, p.outputs, tuple(named[i] for i in order), p.states, p.structure)
    out = Program(graph, names, arrays, program.examples, program.initial, program.files)
    errors = {}
    if runs:
        want, got = program.run_named(given).outputs, out.run_named(given).outputs
        for name, a, b in zip(p.outputs, map(np.asarray, want), map(np.asarray, got), strict=True):
            if a.dtype.kind == "f":
                errors[name] = output_error(a, b)
    kept = tuple(
        f"{n.origin.location or n.origin.name or 'unknown line'}: {why}" for n, why in layers.kept
    )
    return Quantisation(out, len(layers.chosen), kept, runs, errors)


def _with_matrices(program: Program) -> Program:
    """The program with matrices that it keeps in blocks as float32: their values are rounded anew."""
    g, p = program.graph, program.names
    stored = {r: s for r, s in stored_matrices(g).items() if s.scale is not None}
    if not stored:
        return program
    made = Prelude((), stored)
    names = Names((), tuple(f"w{i}" for i in range(len(stored))), p.weights)
    values = program.sibling(prelude_graph(g, further(made)), names).run_named({}).outputs
    wide, arrays = without_prelude(g, made), [*program.weights, *map(np.asarray, values)]
    named = [*p.weights, *(p.weights[s.elements.index].removesuffix(".q") for s in stored.values())]
    read = {s.index for n in wide.nodes for s in n.sources if s.kind is Kind.WEIGHT}
    read |= {r.index for r in wide.outputs if r.kind is Kind.WEIGHT}
    order = sorted(read, key=named.__getitem__)
    names = Names(p.inputs, p.outputs, tuple(named[i] for i in order), p.states, p.structure)
    return Program(with_weights(wide, order), names, [arrays[i] for i in order], program.examples,
                   program.initial, program.files)  # fmt: skip


def _weights(
    program: Program, made: tuple[Made, ...], factor: Mapping[Any, F32]
) -> tuple[list[Array], tuple[str, ...]]:
    """The quantised program's weights and their names."""
    arrays: list[Array] = []
    names: list[str] = []
    done: dict[Made, dict[What, Array]] = {}
    for m in made:
        name = "factors" if m.weight < 0 else program.names.weights[m.weight]
        if m.what is What.GIVEN:
            arrays.append(program.weights[m.weight])
        elif m.what is What.FACTORS:
            arrays.append(factor[m.source])
        else:
            key = Made(What.BYTES, m.weight, m.source, m.turned)
            if key not in done:
                w = _rows(program, m.weight, m.turned)
                w = w / factor[m.source] if m.source in factor else w
                made_of = zip((What.BYTES, What.SCALES, What.SUMS), quantise_weight(w), strict=True)
                done[key] = dict(made_of)
            arrays.append(done[key][m.what])
            name += f".{m.what.value}"
        at, n = name, 1
        while at in names:
            at, n = f"{name}.{n}", n + 1
        names.append(at)
    return arrays, tuple(names)


def _rows(program: Program, weight: int, turned: bool) -> F32:
    """A matrix of a program as float32 [N, K]."""
    w = _f32(program.weights[weight])
    return w.T if turned else w


def output_error(want: Array, got: Array) -> OutputError:
    """The error of one output."""
    a, b = _f32(want).astype(np.float64), _f32(got).astype(np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    alone = int((np.isfinite(a) != np.isfinite(b)).sum())
    if not both.any():
        return OutputError(None, None, None, alone)
    a, b = np.where(both, a, 0), np.where(both, b, 0)
    greatest, size = float(np.abs(a - b).max()), float(np.abs(a).max())
    rows = (x.reshape(-1, x.shape[-1] if x.ndim else 1) for x in (a, b))
    x, y = rows
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    some = lengths > 0
    cosine = float(((x * y).sum(1)[some] / lengths[some]).min()) if some.any() else None
    return OutputError(greatest, greatest / size if size else None, cosine, alone)


def _f32(x: Array) -> F32:
    """A float array as float32, exactly."""
    if x.dtype == np.uint16:  # bfloat16
        return (x.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(x, np.float32)


def _is_finite(x: Array) -> bool:
    return x.dtype.kind not in "fu" or x.dtype.itemsize == 1 or bool(np.isfinite(_f32(x)).all())


__all__ = ["OutputError", "Quantisation", "output_error", "quantise"]
