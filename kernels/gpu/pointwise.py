"""Pointwise groups on a GPU: one generated Triton kernel a group, or code after a contraction.

The generated text is the group's scalar functions as one expression DAG, so work that nodes share is
done once. Loads and stores follow the group's operands; every stored float32 gets the canonical NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ree.kernels.abi import Tile
from ree.kernels.gpu import lib as triton_lib
from ree.kernels.gpu.launch import (
    KernelCall,
    Launch,
    Ptr,
    ceil_div,
    gpu_kernel,
    launch,
    power_of_two,
)
from ree.kernels.gpu.source import jit_source
from ree.kernels.ops.casts import SCALAR
from ree.kernels.scalar.emit_triton import lines
from ree.kernels.scalar.language import param
from ree.kernels.tilespec import Operand, TileSpec
from ree.kernels.types import DType

POINTER = {DType.F32: "fp32", DType.I64: "i64", DType.BOOL: "i8", DType.I32: "i32", DType.I16: "i16",
           DType.I8: "i8", DType.U8: "i8", DType.F16: "i16", DType.BF16: "i16"}  # fmt: skip
# a loaded element as its scalar type, and back
WIDEN = {DType.BOOL: " != 0", DType.I16: ".to(tl.int32)", DType.I8: ".to(tl.int32)",
         DType.U8: ".to(tl.int32) & 255", DType.F16: ".to(tl.uint16, bitcast=True).to(tl.uint32)",
         DType.BF16: ".to(tl.uint16, bitcast=True).to(tl.uint32)"}  # fmt: skip
NARROW = {DType.BOOL: ".to(tl.int8)", DType.I16: ".to(tl.int16)", DType.I8: ".to(tl.int8)",
          DType.U8: ".to(tl.int8)", DType.F16: ".to(tl.uint16).to(tl.int16, bitcast=True)",
          DType.BF16: ".to(tl.uint16).to(tl.int16, bitcast=True)"}  # fmt: skip
ELEMENTS = (1024, 512, 256, 128)  # of one program; fewer where a large group's values spill


@dataclass(frozen=True)
class TritonCode:
    """Code over values `r` [rows, 1], `c` [1, columns] and `mask`: text, and its parameters.

    names: parameters in order. total: index of the sources that are the value `total`.
    """

    text: str
    names: tuple[str, ...]


def tile_code(spec: TileSpec, total: frozenset[int] = frozenset()) -> TritonCode:
    """The group as statements. Sources in `total` are the value `total` and are not loaded."""
    digits = spec.row_digits
    used = [i for i, _ in enumerate(spec.operands) if i not in total]
    names = [f"p{i}" for i in used]
    # `one` makes a block of what a single load gives: the interpreter confuses types of scalars
    out = ["zero = r * 0 + c * 0", "one = tl.full((1, 1), 0, tl.int32)", "q = r"]
    for d in range(digits - 1, 0, -1):
        names.append(f"e{d}")
        out += [f"g{d} = q % e{d}", f"q = q // e{d}"]
    out.append("g0 = q")
    at = {}
    for i in used:
        at[i], needed = _offset(i, spec.operands[i])
        names += needed
    for i, o in enumerate(spec.sources):
        if i not in total:
            out.append(_load(i, o, at[i]))
    values = [param(i, SCALAR[o.dtype]) for i, o in enumerate(spec.sources)]
    for step in spec.steps:
        values.append(step.function(*(values[j] for j in step.args)))
    first = len(spec.sources)
    params = {i: "total" if i in total else f"x{i}" for i in range(first)}
    body, results = lines([values[first + j] for j, _ in spec.stores], params, "t")
    out += body
    for k, ((_, o), name) in enumerate(zip(spec.stores, results, strict=True)):
        i = first + k
        value = f"canonical({name})" if o.dtype is DType.F32 else name
        cast = NARROW.get(o.dtype, "")
        out.append(f"tl.store(p{i} + (zero + {at[i]}), {value}{cast}, mask=mask)")
    return TritonCode("".join(f"    {line}\n" for line in out), tuple(names))


def _offset(i: int, o: Operand) -> tuple[str, list[str]]:
    """Element offset of operand i, and the strides it reads."""
    terms, names = [], []
    for d, moves in enumerate(o.rows):
        if moves:
            names.append(f"s{i}_{d}")
            terms.append(f"g{d} * s{i}_{d}")
    if o.inner == 2:
        names.append(f"s{i}_c")
    terms += {0: [], 1: ["c"], 2: [f"c * s{i}_c"]}[o.inner]
    return " + ".join(terms) or "0", names


def _load(i: int, o: Operand, at: str) -> str:
    # what does not move along an axis is loaded once for it
    moves = (any(o.rows), o.inner != 0)
    mask = {(True, True): "mask", (True, False): "row_mask", (False, True): "column_mask"}.get(
        moves
    )
    text = f"tl.load(p{i} + ({at}), mask={mask}, other=0)" if mask else f"tl.load(p{i} + one)"
    return f"x{i} = {text}{WIDEN.get(o.dtype, '')}"


def tile_args(spec: TileSpec, tile: Tile, total: frozenset[int] = frozenset()) -> list[Ptr | int]:
    """Arguments for `tile_code(...).names`. Parameters of a tile: row extents, then strides of each
    operand."""
    digits, slots = spec.row_digits, tile.slots
    used = [i for i, _ in enumerate(spec.operands) if i not in total]
    args: list[Ptr | int] = [Ptr(slots[i], POINTER[spec.operands[i].dtype]) for i in used]
    args += [spec.extents(tile.params)[d] for d in range(digits - 1, 0, -1)]
    for i in used:
        o = spec.operands[i]
        strides = spec.strides(tile.params, i)
        args += [s for s, moves in zip(strides, o.rows, strict=False) if moves]
        if o.inner == 2:
            args.append(strides[-1])
    return args


def is_wide(spec: TileSpec, tile: Tile, cols: int) -> bool:
    """Whether offsets into some operand need 64 bits."""
    extents = [*spec.extents(tile.params), cols]
    for i in range(len(spec.operands)):
        strides = spec.strides(tile.params, i)
        if sum(e * s for e, s in zip(extents, strides, strict=True)) >= 2**31:
            return True
    return False


TILE = """
@triton.jit
def tile(rows, cols, {names}, BR: tl.constexpr, BC: tl.constexpr, WIDE: tl.constexpr):
    blocks = tl.cdiv(cols, BC)
    pid = tl.program_id(0)
    r = (pid // blocks) * BR + tl.arange(0, BR)[:, None]
    c = (pid % blocks) * BC + tl.arange(0, BC)[None, :]
    if WIDE:
        r = r.to(tl.int64)
        c = c.to(tl.int64)
    row_mask = r < rows
    column_mask = c < cols
    mask = row_mask & column_mask
{text}"""


def tile_kernel(code: TritonCode) -> Any:
    """The kernel of a pointwise group of its own."""
    source = TILE.format(names=", ".join(code.names), text=code.text)
    return jit_source(source, "tile", vars(triton_lib))


@gpu_kernel("tile")
def _tile(call: KernelCall) -> None:
    rows, cols, own = call.args.rows, call.args.columns, call.args.tile
    spec = call.tile
    code = tile_code(spec)
    kernel, args = tile_kernel(code), tile_args(spec, own)
    wide = is_wide(spec, own, cols)

    def of(elements: int) -> Launch:
        bc = min(power_of_two(cols), elements)
        br = elements // bc
        return launch(kernel, (ceil_div(rows, br) * ceil_div(cols, bc),), [rows, cols, *args],
                      BR=br, BC=bc, WIDE=wide)  # fmt: skip

    call.launch_first([of(n) for n in ELEMENTS])
