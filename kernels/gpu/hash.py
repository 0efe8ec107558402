"""Tensor hashes on a GPU: SHA-256 trees, one leaf or node a lane, so that traces need no copy.

The compression function is generated text (FIPS 180-4, 6.2.2): 64 rounds, the message schedule in 16
rolling words.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ree.kernels.constants import DIGEST_BYTES, LEAF_BYTES
from ree.kernels.gpu.launch import KernelCall, Ptr, ceil_div, gpu_kernel
from ree.kernels.gpu.movement import fill
from ree.kernels.gpu.source import jit_source

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
    """`compress(state, words)`: a loop of four times 16 rounds, since Triton's passes take minutes over
    a straight line of 64."""
    state, words = ", ".join("abcdefgh"), ", ".join(f"w{i}" for i in range(16))
    out = ["@triton.jit", f"def compress({state}, {words}):"]
    out.append("    " + "; ".join(f"{x}0 = {x}" for x in "abcdefgh"))
    out.append("    for turn in range(0, 4):")
    for t in range(16):
        x, y = f"w{(t + 1) % 16}", f"w{(t + 14) % 16}"
        out.append(
            f"        w{t} = tl.where(turn == 0, w{t}, w{t} + (rotate({x}, 7) ^ rotate({x}, 18) ^ "
            f"({x} >> 3)) + w{(t + 9) % 16} + (rotate({y}, 17) ^ rotate({y}, 19) ^ ({y} >> 10)))"
        )
        constant = f"word({ROUND[48 + t]:#010x})"
        for i in (2, 1, 0):
            constant = f"tl.where(turn == {i}, word({ROUND[16 * i + t]:#010x}), {constant})"
        out += _round(t, constant, "        ")
    out.append(f"    return {', '.join(f'{x}0 + {x}' for x in 'abcdefgh')}")
    return "\n".join(out) + "\n"


def _round(t: int, constant: str, indent: str) -> list[str]:
    return [
        f"{indent}t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + (g ^ (e & (f ^ g))) + "
        f"{constant} + w{t}",
        f"{indent}t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) | (c & (a | b)))",
        *(f"{indent}{x} = {y}" for x, y in zip("hgf", "gfe", strict=True)),
        f"{indent}e = d + t1",
        *(f"{indent}{x} = {y}" for x, y in zip("dcb", "cba", strict=True)),
        f"{indent}a = t1 + t2",
    ]


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
def ends(x, final):
    return tl.where(final != 0, swap(x), x)


@triton.jit
def store_state(out, lane, live, a, b, c, d, e, f, g, h, final):
    """State [lane][8]; if `final`, the bytes of the digest."""
    a, b, c, d = ends(a, final), ends(b, final), ends(c, final), ends(d, final)
    e, f, g, h = ends(e, final), ends(f, final), ends(g, final), ends(h, final)
    p = out + lane * 8
    tl.store(p, a, mask=live)
    tl.store(p + 1, b, mask=live)
    tl.store(p + 2, c, mask=live)
    tl.store(p + 3, d, mask=live)
    tl.store(p + 4, e, mask=live)
    tl.store(p + 5, f, mask=live)
    tl.store(p + 6, g, mask=live)
    tl.store(p + 7, h, mask=live)


# The tag byte shifts every word by one byte. After the message comes a block with its last byte, the
# bit 1 and the length: there all loads are masked off and give zero.
HASH = """
@triton.jit(do_not_specialize=["final"])
def {name}({params}, final, TAIL: tl.constexpr, B: tl.constexpr):
    lane = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    zero = tl.zeros((B,), tl.uint32)
    a, b, c, d, e, f, g, h = initial(zero)
    last = zero + {tag}
{setup}
    for block in range(0, {blocks} + 1):
        inside = live & (block < {blocks})
        end = tl.where(block == {blocks}, 1, 0).to(tl.uint32)
{loads}
        a, b, c, d, e, f, g, h = compress(
            a, b, c, d, e, f, g, h, {words}
        )
        last = m15
    store_state(out, lane, live, a, b, c, d, e, f, g, h, final)
"""


def _kernel(name: str, params: str, tag: int, blocks: int, setup: str, loads: list[str]) -> Any:
    previous = ["last", *(f"m{i}" for i in range(15))]
    words = [f"(({p} << 24) | (m{i} >> 8))" for i, p in enumerate(previous)]
    words[0] += " | (end << 23)"
    words[15] += f" | (end * {8 * (64 * blocks + 1)})"
    text = HASH.format(
        name=name, params=params, tag=tag, blocks=blocks, words=", ".join(words),
        setup="\n".join("    " + line for line in setup.split("; ")),
        loads="\n".join(f"        m{i} = {x}" for i, x in enumerate(loads)),
    )  # fmt: skip
    return jit_source(text, name, globals())


hash_leaves = _kernel(
    "hash_leaves", "data, raw, out, count, nbytes", 0, LEAF_BYTES // 64,
    "live = lane < count; whole = nbytes // 4",
    [f"data_word(data, raw, lane * {LEAF_BYTES // 4} + block * 16 + {i}, whole, nbytes, inside, TAIL)"
     for i in range(16)],
)  # fmt: skip
# a missing right node is zeros
hash_nodes = _kernel(
    "hash_nodes", "nodes, out, count", 1, 1,
    "live = lane < (count + 1) // 2; pair = lane * 2 + 1 < count; p = nodes + lane * 16",
    [f"tl.load(p + {i}, mask=inside{'' if i < 8 else ' & pair'}, other=0)" for i in range(16)],
)  # fmt: skip


def _tree(call: KernelCall, slot: int, nbytes: int, digest: Ptr) -> None:
    """Launches for the root of one body."""
    count = ceil_div(nbytes, LEAF_BYTES)
    if count == 0:
        call.launch(fill, (1,), [digest, 8, 0], B=128)
        return
    level = call.take_scratch(count * DIGEST_BYTES, "u32") if count > 1 else digest
    other = call.take_scratch((count // 2 + 1) * DIGEST_BYTES, "u32") if count > 2 else digest
    call.launch(
        hash_leaves,
        (ceil_div(count, LANES),),
        [Ptr(slot, "u32"), Ptr(slot, "i8"), level, count, nbytes, int(count == 1)],
        TAIL=nbytes % 4 != 0, B=LANES,
    )  # fmt: skip
    while count > 1:
        half = ceil_div(count, 2)
        out = digest if half == 1 else other
        call.launch(hash_nodes, (ceil_div(half, LANES),), [level, out, count, int(half == 1)],
                    TAIL=False, B=LANES)  # fmt: skip
        level, other, count = out, level, half


@gpu_kernel("tree_hash")
def _tree_hash(call: KernelCall) -> None:
    a = call.args
    _tree(call, a.data, a.bytes, Ptr(a.root, "u32"))


@gpu_kernel("tree_hash_many")
def _tree_hash_many(call: KernelCall) -> None:
    a = call.args
    for i, (slot, nbytes) in enumerate(zip(a.data, a.bytes, strict=True)):
        _tree(call, slot, nbytes, Ptr(a.roots, "u32", DIGEST_BYTES * i))
