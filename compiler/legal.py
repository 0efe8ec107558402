"""Legality: what every graph must satisfy, checked after capture, after each pass and on load."""

from __future__ import annotations

from ree.compiler.ir import Graph, Kind, Ref
from ree.compiler.layout import MAX_SOURCES
from ree.compiler.text import print_attrs
from ree.kernels import macro, opdef
from ree.kernels.canonical import is_canonical
from ree.kernels.numerics import CONTRACT
from ree.kernels.schema import check_attrs
from ree.kernels.types import DType, TensorType, affine, check_extents, symbols_of


class IllegalGraph(ValueError):
    """A graph that breaks a rule; the message names the node and the rule."""


def check(g: Graph) -> None:
    """Raise IllegalGraph unless g is well formed.

    1. The contract is one this build knows. 2. Symbols are distinct, their ranges sane, and each is
    what a dimension of some input gives, as a * s + b. 3. Sources exist and precede their use. 4. Operators are
    registered, have at most four sources (a macro may have more) and the attributes of their schema, and
    their stated results are what the shape rule infers. 5. Ranks and static sizes are within limits, constants
    in canonical bits. 6. Outputs exist.
    7. Output i has the type of state i.
    """
    if g.contract != CONTRACT:
        raise IllegalGraph(f"numeric contract: expected {CONTRACT}, got {g.contract[:40]}")
    names = {s.name for s in g.symbols}
    if len(names) != len(g.symbols):
        raise IllegalGraph("a symbol is declared twice")
    for s in g.symbols:
        if not 0 <= s.low <= s.high:
            raise IllegalGraph(f"symbol {s.name}: empty range [{s.low}, {s.high}]")
    given = {form[0] for t in g.inputs for d in t.shape if (form := affine(d))}
    if names - given:
        raise IllegalGraph(
            f"symbol {min(names - given)} does not follow from a dimension of any input"
        )
    for t in (*g.inputs, *g.weights, *g.states, *(c.type for c in g.consts)):
        _check_type(t, names)
    for i, c in enumerate(g.consts):
        if not is_canonical(c.array()):
            raise IllegalGraph(f"constant @c{i}: its bits are not canonical")
    defined: list[TensorType] = []
    known: dict[tuple[object, ...], tuple[TensorType, ...]] = {}  # most nodes are like others
    for n in g.nodes:
        line = n.origin.location if n.origin is not None else ""
        where = f"%{n.first} = {n.op}" + (f" at {line}" if line else "")
        op, stands = opdef.typed(n.op), macro.get(n.op)
        if op is None:
            raise IllegalGraph(f"{where}: unknown operator")
        most = MAX_SOURCES if stands is None else stands.most_sources
        if len(n.sources) > most:
            raise IllegalGraph(f"{where}: {len(n.sources)} sources, at most {most}")
        types = [_source_type(g, s, defined, where) for s in n.sources]
        if n.first != len(defined):
            raise IllegalGraph(f"{where}: expected first value %{len(defined)}")
        keys = [k for k, _ in n.attrs]
        if keys != sorted(set(keys)):
            raise IllegalGraph(f"{where}: attributes are not sorted, or one stands twice")
        try:
            check_attrs(n.op, op.closed_schema, n.attr_map)  # their text may look alike
            key = (n.op, tuple(types), print_attrs(n))
            if key not in known:
                known[key] = op.infer(types, n.attr_map)
        except (ValueError, KeyError, TypeError, IndexError) as e:
            raise IllegalGraph(f"{where}: {e}") from e
        inferred = known[key]
        if inferred != n.results:
            raise IllegalGraph(
                f"{where}: expected results {', '.join(map(str, inferred))}, "
                f"got {', '.join(map(str, n.results))}"
            )
        for t in n.results:
            _check_type(t, names)
        defined.extend(n.results)
    if not g.outputs:
        raise IllegalGraph("a program needs at least one output")
    found = [_source_type(g, ref, defined, "return") for ref in g.outputs]
    for i, t in enumerate(g.states):
        if i >= len(found) or found[i] != t:
            raise IllegalGraph(f"state @s{i}: expected output {i} to be {t}")


def _source_type(g: Graph, ref: Ref, defined: list[TensorType], where: str) -> TensorType:
    if ref.kind is Kind.VALUE:
        if ref.index >= len(defined):
            raise IllegalGraph(f"{where}: {ref} is used before it is defined")
        return defined[ref.index]
    try:
        return g.type_of(ref)
    except IndexError as e:
        raise IllegalGraph(f"{where}: {ref} does not exist") from e


def _check_type(t: TensorType, names: set[str]) -> None:
    try:
        check_extents(t)
    except ValueError as e:
        raise IllegalGraph(str(e)) from e
    for d in t.shape:
        if symbols_of(d) - names:
            raise IllegalGraph(f"{t}: undeclared symbol {min(symbols_of(d) - names)}")


COMPUTE_DTYPES = (DType.F32, DType.I64, DType.BOOL)  # what operators of this contract compute on
