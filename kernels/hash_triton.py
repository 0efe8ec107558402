"""Tensor hashes on a GPU: SHA-256 trees, one leaf or node a lane, so that traces need no copy.

The compression function is generated text (FIPS 180-4, 6.2.2): 64 rounds, the message schedule in 16
rolling words.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ree.kernels.launch import KernelCall, Ptr, ceil_div, gpu_kernel
from ree.kernels.movement_triton import fill
from ree.kernels.triton_source import jit_source

LEAF_BYTES = 512
LANES = 128


def _constants() -> tuple[list[int], list[int]]:
    """Initial state and round constants: fractions of square and cube roots of the first primes."""
    from math import isqrt

    primes = [p for p in range(2, 312) if all(p % d for d in range(2, p))]

    def cube_root(n: int) -> int:
        low, high = 0, 1 << 40
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**3 <= n else (low, middle - 1)
        return low

    mask = 2**32 - 1
    return (
        [isqrt(p << 64) & mask for p in primes[:8]],
        [cube_root(p << 96) & mask for p in primes[:64]],
    )


INITIAL, ROUND = _constants()


def _compress_source() -> str:
    state = "abcdefgh"
    words = [f"w{i}" for i in range(16)]
    out = ["@triton.jit", f"def compress({', '.join(state)}, {', '.join(words)}):"]
    out.append(f"    {', '.join(x + '0' for x in state)} = {', '.join(state)}")
    for t in range(64):
        i = t % 16
        if t >= 16:
            out += [
                f"    x = {words[(t - 15) % 16]}",
                f"    y = {words[(t - 2) % 16]}",
                f"    {words[i]} = {words[i]} + (rotate(x, 7) ^ rotate(x, 18) ^ (x >> 3)) + "
                f"{words[(t - 7) % 16]} + (rotate(y, 17) ^ rotate(y, 19) ^ (y >> 10))",
            ]
        out += [
            "    t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + (g ^ (e & (f ^ g))) + "
            f"word({ROUND[t]:#010x}) + {words[i]}",
            "    t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) | (c & (a | b)))",
            "    h, g, f, e, d, c, b, a = g, f, e, d + t1, c, b, a, t1 + t2",
        ]
    out.append(f"    return {', '.join(f'{x}0 + {x}' for x in state)}")
    return "\n".join(out) + "\n"


def _start_source() -> str:
    words = ", ".join(f"word({x:#010x}) + zero" for x in INITIAL)
    return f"@triton.jit\ndef initial(zero):\n    return {words}\n"


@triton.jit
def word(x: tl.constexpr):
    return tl.full((), x, tl.uint32)


@triton.jit
def rotate(x, n: tl.constexpr):
    return (x >> n) | (x << (32 - n))


@triton.jit
def swap(x):
    """Bytes reversed."""
    return (x >> 24) | ((x >> 8) & 0xFF00) | ((x << 8) & 0xFF0000) | (x << 24)


compress = jit_source(_compress_source(), "compress", globals())
initial = jit_source(_start_source(), "initial", globals())


@triton.jit
def data_word(data, raw, at, whole, nbytes, live, TAIL: tl.constexpr):
    """Big-endian word `at` of the body; zeros past its end."""
    x = tl.load(data + at, mask=live & (at < whole), other=0)
    if TAIL:
        for j in tl.static_range(3):
            here = live & (at == whole) & (at * 4 + j < nbytes)
            byte = tl.load(raw + at * 4 + j, mask=here, other=0).to(tl.uint32) & 0xFF
            x |= byte << (8 * j)
    return swap(x)


@triton.jit
def store_state(
    out, lane, live, a, b, c, d, e, f, g, h, FINAL: tl.constexpr
):  # fmt: skip
    """State [lane][8]; FINAL writes the bytes of the digest."""
    if FINAL:
        a, b, c, d = swap(a), swap(b), swap(c), swap(d)
        e, f, g, h = swap(e), swap(f), swap(g), swap(h)
    p = out + lane * 8
    tl.store(p, a, mask=live)
    tl.store(p + 1, b, mask=live)
    tl.store(p + 2, c, mask=live)
    tl.store(p + 3, d, mask=live)
    tl.store(p + 4, e, mask=live)
    tl.store(p + 5, f, mask=live)
    tl.store(p + 6, g, mask=live)
    tl.store(p + 7, h, mask=live)


LEAVES = """
@triton.jit
def hash_leaves(
    data, raw, out, count, nbytes, TAIL: tl.constexpr, FINAL: tl.constexpr, B: tl.constexpr
):
    # SHA-256(0x00 || 512 bytes) of each leaf: the tag shifts every word by one byte
    lane = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = lane < count
    whole = nbytes // 4
    zero = tl.zeros((B,), tl.uint32)
    a, b, c, d, e, f, g, h = initial(zero)
    last = zero
    for block in range(0, 8):
        at = lane * 128 + block * 16
{loads}
        a, b, c, d, e, f, g, h = compress(a, b, c, d, e, f, g, h, {shifted})
        last = m15
    a, b, c, d, e, f, g, h = compress(
        a, b, c, d, e, f, g, h, (last << 24) | 0x00800000, {zeros}, zero + 4104
    )
    store_state(out, lane, live, a, b, c, d, e, f, g, h, FINAL)
"""

NODES = """
@triton.jit
def hash_nodes(nodes, out, count, FINAL: tl.constexpr, B: tl.constexpr):
    # SHA-256(0x01 || left || right) of each pair; a missing right one is zeros
    lane = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = lane < (count + 1) // 2
    zero = tl.zeros((B,), tl.uint32)
    a, b, c, d, e, f, g, h = initial(zero)
    p = nodes + lane * 16
    pair = live & (lane * 2 + 1 < count)
{loads}
    a, b, c, d, e, f, g, h = compress(a, b, c, d, e, f, g, h, {shifted})
    a, b, c, d, e, f, g, h = compress(
        a, b, c, d, e, f, g, h, (m15 << 24) | 0x00800000, {zeros}, zero + 520
    )
    store_state(out, lane, live, a, b, c, d, e, f, g, h, FINAL)
"""


def _kernel(template: str, name: str, loads: list[str], indent: str, first: str) -> Any:
    """The template with its 16 message words m0..m15, all shifted by the tag's byte."""
    previous = [first, *(f"(m{i} << 24)" for i in range(15))]
    text = template.format(
        loads="\n".join(f"{indent}m{i} = {x}" for i, x in enumerate(loads)),
        shifted=", ".join(f"{p} | (m{i} >> 8)" for i, p in enumerate(previous)),
        zeros=", ".join(["zero"] * 14),
    )
    return jit_source(text, name, globals())


hash_leaves = _kernel(
    LEAVES, "hash_leaves",
    [f"data_word(data, raw, at + {i}, whole, nbytes, live, TAIL)" for i in range(16)],
    " " * 8, "(last << 24)",
)  # fmt: skip
hash_nodes = _kernel(
    NODES, "hash_nodes",
    [f"tl.load(p + {i}, mask={'live' if i < 8 else 'pair'}, other=0)" for i in range(16)],
    " " * 4, "word(0x01000000)",
)  # fmt: skip


def _tree(call: KernelCall, slot: int, nbytes: int, digest: Ptr) -> None:
    """Launches for the root of one body."""
    count = ceil_div(nbytes, LEAF_BYTES)
    if count == 0:
        call.launch(fill, (1,), [digest, 8, 0], B=128)
        return
    level = call.take_scratch(count * 32, "u32") if count > 1 else digest
    other = call.take_scratch(count * 16 + 32, "u32") if count > 2 else digest
    call.launch(
        hash_leaves,
        (ceil_div(count, LANES),),
        [Ptr(slot, "u32"), Ptr(slot, "i8"), level, count, nbytes],
        TAIL=nbytes % 4 != 0, FINAL=count == 1, B=LANES,
    )  # fmt: skip
    while count > 1:
        half = ceil_div(count, 2)
        out = digest if half == 1 else other
        call.launch(hash_nodes, (ceil_div(half, LANES),), [level, out, count],
                    FINAL=half == 1, B=LANES)  # fmt: skip
        level, other, count = out, level, half


@gpu_kernel("tree_hash")
def _tree_hash(call: KernelCall) -> None:
    _tree(call, call.slots[0], call.params[0], Ptr(call.slots[1], "u32"))


@gpu_kernel("tree_hash_many")
def _tree_hash_many(call: KernelCall) -> None:
    count = call.params[0]
    for i in range(count):
        _tree(call, call.slots[i], call.params[1 + i], Ptr(call.slots[count], "u32", 32 * i))
