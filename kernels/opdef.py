"""What an operator is: one record that says everything, checked when it is registered.

Shape rules see symbolic types; everything else sees a `Bound` node, whose shapes are ints. Opcode
ranges, attribute conventions and the primitives of row programs: docs/adding-an-operator.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ree.kernels.abi import Tile, Value
from ree.kernels.forms import Form as Form
from ree.kernels.forms import Variant as Variant
from ree.kernels.index import IndexRule
from ree.kernels.rowprogram import RowProgram
from ree.kernels.scalar.language import Function
from ree.kernels.schema import Attrs as Attrs
from ree.kernels.schema import AttrValue as AttrValue
from ree.kernels.schema import Schema, check_attrs
from ree.kernels.types import Dim, DType, TensorType, check_extents, evaluate

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Bound:
    """An operator applied to sources of known shapes."""

    op: str
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    attrs: Attrs

    @property
    def out(self) -> TensorType:
        return self.outputs[0]

    def int_attr(self, name: str) -> int:
        v = self.attrs[name]
        if not isinstance(v, int):
            raise TypeError(f"attribute {name} of {self.op} is not an int")
        return int(v)

    def f32_attr(self, name: str) -> float:
        v = self.attrs[name]
        if not isinstance(v, float):
            raise TypeError(f"attribute {name} of {self.op} is not a float")
        return v


@dataclass(frozen=True)
class Cost:
    """Floating-point operations and bytes that must move (sources read once, results written)."""

    flops: int
    bytes: int


@dataclass(frozen=True)
class Sample:
    """One case of an operator: a name, source arrays and attributes."""

    name: str
    inputs: tuple[Array, ...]
    attrs: Attrs = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """A source or result as a kernel sees it: a buffer slot, and strides in elements."""

    slot: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: DType


@dataclass(frozen=True)
class StoredOperand:
    """A packed matrix that is not float32: slots, and the parameters `storage` and `block` of `gemm`."""

    packed: int
    scale: int | None
    offset: int | None
    storage: int
    block: int


class Lowering(Protocol):
    """What `lower` may ask of the planner, for one bound node."""

    node: Bound

    def source(self, i: int) -> View:
        """Source i as it lies in memory (any strides, 0 where broadcast)."""

    def dense(self, i: int, trailing: int | None = None) -> View:
        """Source i with its last `trailing` dimensions contiguous (all by default), copying if
        it is not."""

    def result(self, i: int = 0) -> View:
        """Result i, contiguous."""

    def offset(self, slot: int, nbytes: int) -> int:
        """A slot `nbytes` into the buffer of another."""

    def scratch(self, nbytes: int) -> int:
        """A slot for temporary memory that lives for this node only."""

    def is_weight(self, i: int) -> bool:
        """Whether source i is a weight as it is stored, which `packed` lays out once, at load."""

    def packed(self, i: int, k: int, n: int, stride_k: int, stride_n: int) -> int:
        """A slot with source i in the panel layout of `gemm`; weights are packed once, at load."""

    def stored_operand(self, i: int, k: int, n: int) -> StoredOperand | None:
        """Source i, a matrix [n, k], in the panel layout of `gemm` as it is kept, if that is not float32."""

    def packed_i8(self, i: int, k: int, n: int, stride_k: int, stride_n: int) -> tuple[int, int]:
        """(slot, group) of source i in the layout of `gemm_i8`, and how many k lie together in it; weights are
        packed once, at load."""

    def table(self, i: int) -> tuple[int, int]:
        """(slot, panel) of source i, a table of rows; above 1, so many lie in a panel, as in `packed`."""

    def epilogue(self, rows: int, cols: int) -> Tile:
        """The pointwise work fused onto the result of a contraction of rows x cols, as the argument
        `tile` of its kernel."""

    def emit(self, kernel: str, /, **arguments: Value) -> None:
        """Call a kernel with its arguments by name (abi.py); TypeError for a name it does not have."""


Infer = Callable[[Sequence[TensorType], Attrs], tuple[TensorType, ...]]
Reference = Callable[[Sequence[Array], Bound], tuple[Array, ...]]


@dataclass(frozen=True)
class OpDef:
    """An operator of the contract.

    name and opcode: identity, stable for ever. form: how an element comes about, and so how a dispute
    opens it (forms.py); variant: which of its form. rule: the numeric rule in one line. infer: shape
    rule, symbolic; raises ValueError, also for attributes that are not those of the schema and for
    types beyond the limits. schema: the attributes. reference: slow meaning in NumPy. index_rule: see
    index.py.
    scalar: for pointwise operators, the function (may depend on dtypes and attributes). lower: emits
    csrc kernel calls (pointwise and move operators are lowered by the planner instead).
    row_program: for composites, one output element in primitive operators. bound: error against
    float64, as text for the documentation. samples: cases, the nasty ones included.
    """

    name: str
    opcode: int
    form: Form
    rule: str
    infer: Infer
    cost: Callable[[Bound], Cost]
    samples: Callable[[], Iterable[Sample]]
    bound: str
    reference: Reference | None = None
    index_rule: Callable[[Bound], IndexRule] | None = None
    scalar: Callable[[Sequence[DType], Attrs], Function] | None = None
    lower: Callable[[Lowering], None] | None = None
    row_program: Callable[[Bound], RowProgram] | None = None
    schema: Schema | None = None
    variant: Variant = Variant.PLAIN

    def __post_init__(self) -> None:
        if not isinstance(self.form, Form) or self.form is Form.OUTPUT:
            raise TypeError(
                f"operator '{self.name}' does not say how an element comes about: {self.form}"
            )
        needed = {
            Form.POINTWISE: ("scalar", "reference", "index_rule"),
            Form.MOVEMENT: ("reference", "index_rule"),
            Form.COMPOSITE: ("reference", "index_rule", "lower", "row_program"),
            Form.CREATE: ("reference", "lower"),
        }.get(self.form, ("reference", "index_rule", "lower"))
        missing = [f for f in needed if getattr(self, f) is None]
        missing += [f for f in ("rule", "bound") if not getattr(self, f)]
        schema = self.schema
        if missing or schema is None:
            missing += ["schema"] if schema is None else []
            raise TypeError(f"operator '{self.name}' ({self.form.text}) lacks {', '.join(missing)}")
        if list(schema) != sorted(schema):
            raise TypeError(f"operator '{self.name}': the schema's names are not in order")
        object.__setattr__(self, "infer", within_limits(self.name, schema, self.infer))

    @property
    def closed_schema(self) -> Schema:
        """The attributes, all of them."""
        assert self.schema is not None  # checked at registration
        return self.schema


def within_limits(name: str, schema: Schema, infer: Infer) -> Infer:
    """The shape rule, once attributes and types are known to be within their limits."""

    def checked(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        check_attrs(name, schema, attrs)
        for t in types:
            check_extents(t)
        out = infer(types, attrs)
        for t in out:
            check_extents(t)
        return out

    return checked


class Typed(Protocol):
    """What a node of a program may be: an operator, or a macro (macro.py)."""

    @property
    def name(self) -> str: ...

    @property
    def closed_schema(self) -> Schema: ...

    @property
    def infer(self) -> Infer: ...


_BY_NAME: dict[str, OpDef] = {}
_BY_CODE: dict[int, OpDef] = {}
_TYPED: dict[str, Typed] = {}


def register_typed(x: Typed) -> None:
    """Take a name; TypeError if it is taken."""
    if x.name in _TYPED:
        raise TypeError(f"operator '{x.name}' is registered twice")
    _TYPED[x.name] = x


def register(op: OpDef) -> OpDef:
    """Add an operator; TypeError if its name or opcode is taken."""
    if op.opcode in _BY_CODE:
        raise TypeError(f"operator '{op.name}' (opcode {op.opcode}) is registered twice")
    register_typed(op)
    _BY_NAME[op.name] = op
    _BY_CODE[op.opcode] = op
    return op


def get(name: str) -> OpDef:
    """The operator called `name`; KeyError if there is none."""
    return _BY_NAME[name]


def typed(name: str) -> Typed | None:
    """The operator or macro called `name`, or None."""
    return _TYPED.get(name)


def form_of(name: str) -> Form | None:
    """The form of the operator called `name`, None of a macro; KeyError if there is neither."""
    op = _TYPED[name]
    return op.form if isinstance(op, OpDef) else None


def names() -> tuple[str, ...]:
    """Names of all operators, by opcode."""
    return tuple(_BY_CODE[c].name for c in sorted(_BY_CODE))


def bind(op: str, inputs: Sequence[TensorType], attrs: Attrs, env: Mapping[str, Dim]) -> Bound:
    """The node with symbols replaced by env; its result types are inferred again."""
    types = tuple(t.bind(env) for t in inputs)
    bound_attrs = {k: bind_attr(v, env) for k, v in attrs.items()}
    return Bound(op, types, _TYPED[op].infer(types, bound_attrs), bound_attrs)


def bind_attr(v: AttrValue, env: Mapping[str, Dim]) -> AttrValue:
    """An attribute with symbols replaced."""
    if isinstance(v, tuple):
        return tuple(bind_attr(x, env) for x in v)
    if isinstance(v, bool | float | str | DType):
        return v
    return evaluate(v, env)


def apply(op: str, inputs: Sequence[Array], attrs: Attrs | None = None) -> tuple[Array, ...]:
    """Run an operator's reference on arrays."""
    types = tuple(TensorType(DType.of(x.dtype), x.shape) for x in inputs)
    node = bind(op, types, attrs or {}, {})
    reference = get(op).reference
    assert reference is not None  # checked at registration
    return reference(inputs, node)


def bytes_moved(node: Bound) -> int:
    """Bytes of all sources and results, each once."""
    return sum(t.nbytes for t in node.inputs) + sum(t.nbytes for t in node.outputs)
