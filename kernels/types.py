"""Element types, symbolic dimensions and tensor types.

A dimension is an int or a `Sym`: an integer polynomial over symbols and the atoms floordiv, mod,
max, min. Polynomials are kept canonical, so equal expressions compare, print and hash alike.
"""

from __future__ import annotations

import ast
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ree.kernels.constants import MAX_RANK as MAX_RANK


class DType(enum.Enum):
    """Element type; `code` is its byte in canonical encodings and never changes."""

    F32 = ("f32", 0, 4)
    F16 = ("f16", 1, 2)
    BF16 = ("bf16", 2, 2)
    I64 = ("i64", 3, 8)
    I32 = ("i32", 4, 4)
    I16 = ("i16", 5, 2)
    I8 = ("i8", 6, 1)
    U8 = ("u8", 7, 1)
    BOOL = ("bool", 8, 1)

    def __init__(self, text: str, code: int, size: int) -> None:
        self.text = text
        self.code = code
        self.size = size

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The NumPy storage type (bfloat16 is stored as uint16 bits)."""
        return np.dtype(_NUMPY[self.text])

    @classmethod
    def parse(cls, text: str) -> DType:
        """The type named `text`; ValueError if there is none."""
        for d in cls:
            if d.text == text:
                return d
        raise ValueError(f"unknown dtype '{text}'")

    @classmethod
    def of(cls, dtype: np.dtype[np.generic]) -> DType:
        """The type of a NumPy array; ValueError if unsupported."""
        for d in cls:
            if d.numpy == dtype:
                return d
        raise ValueError(f"unsupported dtype '{dtype}'")


_NUMPY = {
    "f32": "<f4", "f16": "<f2", "bf16": "<u2", "i64": "<i8", "i32": "<i4", "i16": "<i2",
    "i8": "i1", "u8": "u1", "bool": "?",
}  # fmt: skip


@dataclass(frozen=True)
class _Atom:
    """A symbol (op "") or an operation on two dimensions that is not polynomial."""

    op: str
    name: str = ""
    left: Dim = 0
    right: Dim = 0

    def __str__(self) -> str:
        return self.name if not self.op else f"{self.op}({self.left},{self.right})"


_Monomial = tuple[_Atom, ...]


@dataclass(frozen=True)
class Sym:
    """A canonical integer polynomial that is not a constant."""

    terms: tuple[tuple[_Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        return _combine([*_terms(self), *_terms(other)])

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + (-1 * other)

    def __rsub__(self, other: Dim) -> Dim:
        return (-1 * self) + other

    def __mul__(self, other: Dim) -> Dim:
        return _combine(
            [
                (tuple(sorted(m1 + m2, key=str)), c1 * c2)
                for m1, c1 in _terms(self)
                for m2, c2 in _terms(other)
            ]
        )

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)

    def __str__(self) -> str:
        parts = []
        for monomial, c in self.terms:
            factors = [str(a) for a in monomial]
            if c != 1 or not factors:
                factors.insert(0, str(c))
            parts.append("*".join(factors))
        return "+".join(parts).replace("+-", "-")

    def __repr__(self) -> str:
        return f"Sym({self})"


Dim = int | Sym


def symbol(name: str) -> Sym:
    """The dimension that is the symbol `name` alone."""
    return Sym((((_Atom("", name),), 1),))


def _terms(d: Dim) -> Iterable[tuple[_Monomial, int]]:
    if isinstance(d, Sym):
        return d.terms
    return [((), d)] if d else []


def _combine(terms: Iterable[tuple[_Monomial, int]]) -> Dim:
    total: dict[_Monomial, int] = {}
    for monomial, c in terms:
        total[monomial] = total.get(monomial, 0) + c
    kept = sorted(((m, c) for m, c in total.items() if c), key=lambda t: [str(a) for a in t[0]])
    if not kept:
        return 0
    if len(kept) == 1 and kept[0][0] == ():
        return kept[0][1]
    return Sym(tuple(kept))


def _binary(op: str, a: Dim, b: Dim) -> Dim:
    return Sym((((_Atom(op, "", a, b),), 1),))


def floordiv(a: Dim, b: Dim) -> Dim:
    """a // b, simplified where the division is exact term by term."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if a == b:
        return 1
    if b == 1 or a == 0:
        return a
    quotient = _divide_exact(a, b)
    return quotient if quotient is not None else _binary("floordiv", a, b)


def _divide_exact(a: Dim, b: Dim) -> Dim | None:
    divisor = list(_terms(b))
    if len(divisor) != 1:
        return None
    factors, coefficient = divisor[0]
    out = []
    for monomial, c in _terms(a):
        rest = list(monomial)
        for atom in factors:
            if atom not in rest:
                return None
            rest.remove(atom)
        if c % coefficient:
            return None
        out.append((tuple(rest), c // coefficient))
    return _combine(out)


def mod(a: Dim, b: Dim) -> Dim:
    """a mod b (sign of b), 0 where the division is exact term by term."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    return 0 if _divide_exact(a, b) is not None else _binary("mod", a, b)


def dim_max(a: Dim, b: Dim) -> Dim:
    """The larger of two dimensions."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return a if a == b else _binary("max", *sorted((a, b), key=str))


def dim_min(a: Dim, b: Dim) -> Dim:
    """The smaller of two dimensions."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return a if a == b else _binary("min", *sorted((a, b), key=str))


_FUNCTIONS = {"floordiv": floordiv, "mod": mod, "max": dim_max, "min": dim_min}


def evaluate(d: Dim, env: Mapping[str, Dim]) -> Dim:
    """d with symbols replaced by env; an int once every symbol is bound to one."""
    if isinstance(d, int):
        return d
    total: Dim = 0
    for monomial, c in d.terms:
        product: Dim = c
        for atom in monomial:
            if atom.op:
                left, right = evaluate(atom.left, env), evaluate(atom.right, env)
                product = product * _FUNCTIONS[atom.op](left, right)
            else:
                product = product * env.get(atom.name, symbol(atom.name))
        total = total + product
    return total


def affine(d: Dim) -> tuple[str, int, int] | None:
    """(s, a, b) of a dimension a * s + b with one symbol s and a above 0; None for any other."""
    name, a, b = "", 0, 0
    for monomial, c in _terms(d):
        if not monomial:
            b = c
        elif len(monomial) > 1 or monomial[0].op or name:
            return None
        else:
            name, a = monomial[0].name, c
    return (name, a, b) if a > 0 else None


def symbols_of(d: Dim) -> set[str]:
    """Names of the symbols in d."""
    if isinstance(d, int):
        return set()
    names: set[str] = set()
    for monomial, _ in d.terms:
        for atom in monomial:
            names |= symbols_of(atom.left) | symbols_of(atom.right) if atom.op else {atom.name}
    return names


MAX_TERMS, MAX_DEGREE = 256, 16  # of a product of two polynomials


def parse_dim(text: str) -> Dim:
    """A dimension from its text; ValueError if it is malformed, over 1,000 characters, or multiplied out it
    would have over MAX_TERMS terms or a degree over MAX_DEGREE."""
    if len(text) > 1000:
        raise ValueError("dimension expression too long")
    try:
        return _from_ast(ast.parse(text, mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError, ArithmeticError) as e:
        raise ValueError(f"malformed dimension '{text[:40]}'") from e


def _from_ast(node: ast.expr) -> Dim:
    match node:
        case ast.Constant(value=int(v)) if not isinstance(v, bool) and abs(v) < 2**63:
            return v
        case ast.Name(id=name):
            return symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=x):
            return -1 * _from_ast(x)
        case ast.BinOp(left=a, op=ast.Add(), right=b):
            return _from_ast(a) + _from_ast(b)
        case ast.BinOp(left=a, op=ast.Sub(), right=b):
            return _from_ast(a) - _from_ast(b)
        case ast.BinOp(left=a, op=ast.Mult(), right=b):
            return _product(_from_ast(a), _from_ast(b))
        case ast.Call(func=ast.Name(id=f), args=[a, b], keywords=[]) if f in _FUNCTIONS:
            return _FUNCTIONS[f](_from_ast(a), _from_ast(b))
    raise ValueError("malformed dimension")


def _product(a: Dim, b: Dim) -> Dim:
    """a * b where that is small; it is refused before it is multiplied out."""
    left, right = list(_terms(a)), list(_terms(b))
    degree = sum(max((len(m) for m, _ in x), default=0) for x in (left, right))
    if len(left) * len(right) > MAX_TERMS or degree > MAX_DEGREE:
        raise ValueError("dimension expression with too many terms")
    return a * b


LARGEST = (
    2**31 - 1
)  # of a dimension, and of integers in attributes unless an operator says otherwise
MAX_ELEMENTS = LARGEST  # larger tensors are refused

Shape = tuple[Dim, ...]


@dataclass(frozen=True, repr=False)
class TensorType:
    """dtype and shape of a value; shape entries may be symbolic."""

    dtype: DType
    shape: Shape

    def __str__(self) -> str:
        return f"{self.dtype.text}[{','.join(str(d) for d in self.shape)}]"

    __repr__ = __str__

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.shape)

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape as ints; ValueError if a dimension is symbolic."""
        out = []
        for d in self.shape:
            if not isinstance(d, int):
                raise ValueError(f"symbolic dimension {d}")
            out.append(d)
        return tuple(out)

    @property
    def numel(self) -> int:
        n = 1
        for d in self.dims:
            n *= d
        return n

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.size

    def bind(self, env: Mapping[str, Dim]) -> TensorType:
        return TensorType(self.dtype, tuple(evaluate(d, env) for d in self.shape))


def check_extents(t: TensorType) -> None:
    """ValueError unless rank and known dimensions are within limits: no product of them overflows,
    not even that of the strides of a tensor without elements."""
    if t.rank > MAX_RANK:
        raise ValueError(f"{t}: rank at most {MAX_RANK}")
    extent = 1
    for d in t.shape:
        if isinstance(d, int):
            if not 0 <= d <= LARGEST:
                raise ValueError(f"{t}: expected dimensions of 0 to {LARGEST}")
            extent *= max(d, 1)
    if extent > MAX_ELEMENTS:
        raise ValueError(f"{t}: at most {MAX_ELEMENTS} elements, dimensions of size 0 counted as 1")


def product(dims: Iterable[Dim]) -> Dim:
    """Product of dimensions; 1 when empty."""
    total: Dim = 1
    for d in dims:
        total = total * d
    return total


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy broadcasting over possibly symbolic shapes; ValueError when incompatible."""
    rank = max((len(s) for s in shapes), default=0)
    out: list[Dim] = []
    for axis in range(rank):
        size: Dim = 1
        for s in shapes:
            d = s[axis - rank + len(s)] if axis - rank + len(s) >= 0 else 1
            if d == 1:
                continue
            if size != 1 and size != d:
                raise ValueError(f"shapes {[list(map(str, s)) for s in shapes]} do not broadcast")
            size = d
        out.append(size)
    return tuple(out)
