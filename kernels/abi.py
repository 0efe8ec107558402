"""The signatures of kernels: names, types and order of what each is given, said once.

A call is two flat lists, buffers (slots of a recipe, addresses in C++) and 64-bit parameters. Lowering
writes them by name (`Signature.pack`), GPU schedules read them by name (`Signature.read`), and C++ has a
struct of the same names for each kernel, which the build writes from this table (kernels/abi_cpp.py). Only
the standard library may be imported here.
"""

from __future__ import annotations

import ctypes
import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import SimpleNamespace

from ree.kernels.constants import CPP, STORED_F32

# what a caller gives: an int, a float, a sequence of ints, a slot, slots, a Tile, None
Value = object


@dataclass(frozen=True)
class BufferArg:
    """A buffer, or as many as the parameter `count` says.

    element: f32, i64, u32, u64, i32, i8; bytes where the kernel takes any. nullable: a call may leave it out.
    """

    name: str
    element: str
    written: bool
    nullable: bool = False
    count: str = ""


@dataclass(frozen=True)
class Param:
    """A parameter; with a shape an array in row-major order. An entry of the shape is a number or the
    name of a parameter; f32 travels as its bits."""

    name: str
    element: str = "i64"
    shape: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class Tile:
    """A tile function as an argument: its index in the recipe (-1: none), its buffers and parameters."""

    index: int = -1
    slots: tuple[int, ...] = ()
    params: tuple[int, ...] = ()


NO_TILE = Tile()
Argument = BufferArg | Param


@dataclass(frozen=True)
class Signature:
    """Buffers and parameters of a kernel in order.

    takes_tile: behind its parameters come a tile function's address (0: none) and that function's own
    parameters, behind its buffers that function's. Parameters whose number varies come last.
    """

    name: str
    buffers: tuple[BufferArg, ...]
    params: tuple[Param, ...]
    takes_tile: bool = False

    def __post_init__(self) -> None:
        names = [*(b.name for b in self.buffers), *(p.name for p in self.params)]
        if len({*names, "tile"}) != len(names) + 1:
            raise TypeError(f"kernel {self.name}: two arguments have one name")
        varies = [not all(isinstance(n, int) for n in p.shape) for p in self.params]
        if sorted(varies) != varies or (self.takes_tile and any(varies)):
            raise TypeError(f"kernel {self.name}: a parameter follows one whose number varies")
        known = {p.name for p in self.params if not p.shape and p.element == "i64"}
        used = {n for p in self.params for n in p.shape if isinstance(n, str)}
        used |= {b.count for b in self.buffers if b.count}
        if not used <= known:
            raise TypeError(f"kernel {self.name}: no count is called {sorted(used - known)[0]}")

    @property
    def fixed(self) -> int:
        """Parameters before the first whose number varies, and before a tile function's address."""
        return sum(prod(n for n in p.shape if isinstance(n, int)) for p in self.params
                   if all(isinstance(n, int) for n in p.shape))  # fmt: skip

    def pack(self, arguments: Mapping[str, Value]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(buffers, parameters) of a call with these arguments by name; the address of a tile function is
        left 0, see `with_tile`. TypeError for a name that is unknown or missing, and for a wrong number of
        values."""
        self._check_names(arguments)
        slots: list[int] = []
        for b in self.buffers:
            given = arguments[b.name]
            each = self._list(b.name, given) if b.count else [given]
            self._expect(b.name, len(each), self._extent(b.count, arguments) if b.count else 1)
            for x in each:
                if x is None and not b.nullable:
                    raise TypeError(f"kernel {self.name}: buffer {b.name} is missing")
                slots.append(-1 if x is None else _whole(x))
        params: list[int] = []
        for p in self.params:
            given = arguments[p.name]
            if p.element == "f32":
                params.append(f32_bits(given))
            elif not p.shape:
                params.append(_whole(given))
            else:
                values = self._list(p.name, given)
                self._expect(p.name, len(values), prod(self._extent(n, arguments) for n in p.shape))
                params += map(_whole, values)
        if self.takes_tile:
            tile = arguments["tile"]
            assert isinstance(tile, Tile)
            slots += tile.slots
            params += [0, *tile.params]
        return tuple(slots), tuple(params)

    def read(self, slots: Sequence[int], params: Sequence[int]) -> SimpleNamespace:
        """A call's arguments by name: slots of buffers (-1: left out), ints, floats, and tuples where there
        are several; `tile` is the tile function's buffers and parameters. TypeError if it has more or
        fewer than the kernel takes."""
        out: dict[str, object] = {}
        rest = list(params)
        for p in self.params:
            if p.shape:
                n = prod(self._extent(e, out) for e in p.shape)
                out[p.name], rest = tuple(self._take(rest, n)), rest[n:]
            else:
                x = self._take(rest, 1)[0]
                out[p.name], rest = (f32_of(x) if p.element == "f32" else x), rest[1:]
        left = list(slots)
        for b in self.buffers:
            n = self._extent(b.count, out) if b.count else 1
            taken, left = self._take(left, n), left[n:]
            out[b.name] = tuple(taken) if b.count else taken[0]
        if self.takes_tile:
            out["tile"] = Tile(-1, tuple(left), tuple(rest[1:]))
        elif rest or left:
            raise TypeError(f"kernel {self.name}: more arguments than it takes")
        return SimpleNamespace(**out)

    def with_tile(self, params: Sequence[int], address: int) -> list[int]:
        """Parameters with the tile function's address put in."""
        if not self.takes_tile:
            raise TypeError(f"kernel {self.name} takes no tile function")
        return [*params[: self.fixed], address, *params[self.fixed + 1 :]]

    def _check_names(self, arguments: Mapping[str, Value]) -> None:
        wanted = [*(b.name for b in self.buffers), *(p.name for p in self.params)]
        wanted += ["tile"] * self.takes_tile
        for name in arguments:
            if name not in wanted:
                raise TypeError(f"kernel {self.name} has no argument {name}")
        for name in wanted:
            if name not in arguments:
                raise TypeError(f"kernel {self.name}: argument {name} is missing")

    def _extent(self, n: int | str, values: Mapping[str, object]) -> int:
        return n if isinstance(n, int) else _whole(values[n])

    def _list(self, name: str, given: object) -> list[object]:
        if not isinstance(given, Iterable):
            raise TypeError(f"kernel {self.name}: {name} is several values, got {given!r}")
        return list(given)

    def _expect(self, name: str, got: int, wanted: int) -> None:
        if got != wanted:
            raise TypeError(f"kernel {self.name}: {name} is {wanted} values, got {got}")

    def _take(self, values: list[int], n: int) -> list[int]:
        if not 0 <= n <= len(values):
            raise TypeError(f"kernel {self.name}: fewer arguments than it takes")
        return values[:n]


def f32_bits(x: object) -> int:
    """The bits of a number rounded to float32."""
    if not isinstance(x, int | float):
        raise TypeError(f"expected a number, got {x!r}")
    return ctypes.c_uint32.from_buffer(ctypes.c_float(x)).value


def f32_of(bits: int) -> float:
    """The float32 with these bits."""
    return float(struct.unpack("<f", struct.pack("<I", bits & 0xFFFFFFFF))[0])


def _whole(x: object) -> int:
    """An int, or what NumPy and bool have that is one."""
    if not hasattr(x, "__index__"):
        raise TypeError(f"expected an integer, got {x!r}")
    return int(x.__index__())


def reads(element: str, *names: str, nullable: bool = False, count: str = "") -> list[Argument]:
    return [BufferArg(n, element, False, nullable, count) for n in names]


def writes(element: str, *names: str) -> list[Argument]:
    return [BufferArg(n, element, True) for n in names]


def ints(names: str, *shape: int | str) -> list[Argument]:
    """Integers called `names` (separated by spaces), each an array if a shape is given."""
    return [Param(n, "i64", shape) for n in names.split()]


def strides(names: str, n: int | str) -> list[Argument]:
    """Steps in elements along n axes, called `x_strides` for x."""
    return [Param(f"{x}_strides", "i64", (n,)) for x in names.split()]


def floats(names: str) -> list[Argument]:
    return [Param(n, "f32") for n in names.split()]


SIGNATURES: dict[str, Signature] = {}


def _kernel(names: str, *groups: list[Argument], tile: bool = False) -> None:
    flat = [a for g in groups for a in g]
    buffers = tuple(a for a in flat if isinstance(a, BufferArg))
    params = tuple(a for a in flat if isinstance(a, Param))
    for name in names.split():
        SIGNATURES[name] = Signature(name, buffers, params, tile)


def signature(kernel: str) -> Signature:
    """The signature of a kernel; KeyError if there is none. `unary_f` of all scalar functions f is one."""
    return SIGNATURES["unary" if kernel.startswith("unary_") else kernel]


def version() -> str:
    """A name for all signatures and numbers together: compiled code has the one it was built from."""
    return hashlib.sha256(repr((SIGNATURES, CPP)).encode()).hexdigest()[:16]


def call(kernel: str, /, **arguments: Value) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """(kernel, buffers, parameters) of a call with these arguments, as a plan's `add` takes them."""
    return kernel, *signature(kernel).pack(arguments)


ANY = "bytes"
F32, I64, U32, U64, I32, I8 = "f32", "i64", "u32", "u64", "i32", "i8"
_AXIS = "outer n inner"  # the middle axis of [outer, n, inner]

# contractions: c = a b, then the tile function on rows batch * m + row
_kernel("pack", reads(ANY, "b"), writes(ANY, "packed"),
        ints("k n stride_k stride_n batch b_batch element_bytes"))  # fmt: skip
# storage: how elements of `packed` are kept (constants.py); block: consecutive k of one scale and offset
_kernel("gemm", reads(F32, "a"), reads(ANY, "packed"), reads(F32, "scale", "offset", nullable=True),
        writes(F32, "c"), ints("batch m n k a_batch a_row b_batch c_batch c_row storage block"),
        tile=True)  # fmt: skip
# of 8-bit integers. packed: panels of columns, `group` consecutive k of a column in 4 bytes: 2 as i16, or 4 as
# u8, 128 more than they are; a: dense
_kernel("pack_i8", reads(I8, "b"), writes(U32, "packed"), ints("k n stride_k stride_n group"))
_kernel("gemm_i8", reads(I8, "a"), reads(U32, "packed"), writes(I32, "c"), ints("m n k group"),
        tile=True)  # fmt: skip
_kernel("bmm", reads(F32, "a", "b"), writes(F32, "c"), ints("batch0 batch1 m n k"),
        ints("a_batch0 a_batch1 a_row a_k b_batch0 b_batch1 b_k b_n c_batch0 c_batch1 c_row"),
        tile=True)  # fmt: skip
_kernel("convolution", reads(F32, "w", "x"), writes(F32, "y"), ints("images channels"),
        ints("x_size", 3), ints("y_channels"), ints("y_size window stride padding dilation", 3),
        ints("groups"), tile=True)  # fmt: skip
_kernel("tile", ints("rows columns"), tile=True)
_kernel("attention", reads(F32, "q", "k", "v"), reads(ANY, "mask", nullable=True), writes(F32, "o"),
        ints("batch heads kv_heads queries keys width value_width"), floats("scale"),
        ints("causal q_offset window mask_kind"), strides("q k v", 3), strides("mask", 4),
        strides("o", 3))  # fmt: skip
FLOAT32 = {
    "scale": None,
    "offset": None,
    "storage": STORED_F32,
    "block": 0,
}  # of gemm, where packed is f32
# rows
_kernel("sum", reads(F32, "x"), writes(F32, "y"), ints(_AXIS), ints("x_outer x_n x_inner mean"))
_kernel("amax amin", reads(F32, "x"), writes(F32, "y"), ints(_AXIS), ints("x_outer x_n x_inner"))
_kernel(
    "argmax argmin", reads(F32, "x"), writes(I64, "y"), ints(_AXIS), ints("x_outer x_n x_inner")
)
_ROWS = ints("rows n x_row y_row")
_kernel("softmax", reads(F32, "x"), writes(F32, "y"), _ROWS)
_kernel("layer_norm", reads(F32, "x"), reads(F32, "weight", "bias", nullable=True), writes(F32, "y"),
        _ROWS, floats("eps"))  # fmt: skip
_kernel("rms_norm", reads(F32, "x"), reads(F32, "weight", nullable=True), writes(F32, "y"), _ROWS,
        floats("eps"))  # fmt: skip
for _t in (F32, I64):
    _kernel(f"cumsum_{_t}", reads(_t, "x"), writes(_t, "y"), ints(_AXIS))
    _kernel(f"sort_{_t}", reads(_t, "x"), writes(_t, "y"), writes(I64, "indices"), ints(_AXIS),
            ints("descending"))  # fmt: skip
_kernel("sample", reads(F32, "logits", "temperature", "top_p", "min_p"),
        reads(I64, "top_k", "seed", "position", "choice"), writes(I64, "tokens"),
        ints("rows vocabulary"))  # fmt: skip
_kernel("quantise_rows", reads(F32, "x"), reads(F32, "factor", nullable=True), writes(I8, "q"),
        writes(F32, "step", "middle"), ints("rows n"))  # fmt: skip
# movement; element_bytes: 1, 2, 4 or 8
_kernel("strided_copy", reads(ANY, "x"), writes(ANY, "y"), ints("element_bytes rank"),
        ints("extents", "rank"), strides("x y", "rank"))  # fmt: skip
# panel: rows of the table that lie side by side, element by element, as `pack` lays them; else 1
_kernel("gather_rows", reads(ANY, "table"), reads(I64, "index"), writes(ANY, "y"),
        ints("count row_elements table_rows element_bytes panel"))  # fmt: skip
_kernel("index_nd", reads(ANY, "x"), writes(ANY, "y"), reads(I64, "index", nullable=True, count="indices"),
        ints("element_bytes indices rank block"), ints("extents", "rank"),
        ints("index_strides", "indices", "rank"), ints("x_steps x_sizes", "indices"))  # fmt: skip
_kernel("gather_axis", reads(ANY, "x"), reads(I64, "index"), writes(ANY, "y"),
        ints("element_bytes outer x_n index_n inner"))  # fmt: skip
_SCATTER = ints("outer n inner updates shared element_bytes")
_kernel(
    "scatter", reads(ANY, "x"), reads(I64, "index"), reads(ANY, "src"), writes(ANY, "y"), _SCATTER
)
for _t in (F32, I64):
    _kernel(f"scatter_add_{_t}", reads(_t, "x"), reads(I64, "index"), reads(_t, "src"), writes(_t, "y"),
            _SCATTER)  # fmt: skip
_kernel("fill", writes(ANY, "y"), ints("n element_bytes pattern"))
_kernel("iota", writes(I64, "y"), ints("n start step"))
_kernel("canonical_copy", reads(F32, "x"), writes(F32, "y"), ints("n"))
_kernel("unary", reads(F32, "x"), writes(F32, "y"), ints("n"))
# hashes
_kernel("tree_hash", reads(ANY, "data"), writes(ANY, "root"), ints("bytes"))
_kernel("tree_hash_many", reads(ANY, "data", count="count"), writes(ANY, "roots"), ints("count"),
        ints("bytes", "count"))  # fmt: skip
_kernel("sha256_many", reads(ANY, "data"), writes(ANY, "digests"), ints("count bytes stride"))
# derivations of one element (csrc/ops/derive.inl); `state` is read and written
_kernel(
    "derive_contraction", reads(F32, "a", "b"), writes(U32, "out"), writes(F32, "total"), ints("n")
)
_kernel("derive_sum", reads(F32, "x"), writes(U32, "out"), writes(F32, "results"), ints("n"))
_kernel(
    "derive_extreme", reads(F32, "x"), writes(U32, "out"), writes(F32, "state"), ints("n greatest")
)
_kernel("derive_argument", reads(F32, "x"), writes(I64, "out", "state"), ints("n greatest first"))
_kernel("derive_cumsum_f32", reads(F32, "x"), writes(U32, "out"), writes(F32, "total"), ints("n"))
_kernel("derive_cumsum_i64", reads(U64, "x"), writes(U64, "out", "total"), ints("n"))
