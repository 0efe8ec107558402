"""The numbers of the contract that more than one language must agree on, said once.

Only the standard library may be imported here: the build reads this module before anything is installed
and writes `constants.hpp` from it (csrc/generate.py).
"""

from __future__ import annotations

SEGMENT = 128  # consecutive k of one contraction chain; keys of one attention segment
SUM_BLOCK = 1024  # consecutive elements of one block of a sum
SUM_LANES = 64  # lanes of a block
CANONICAL_NAN = 0x7FC00000
MAX_RANK = 8  # of a tensor
LEAF_BYTES = 512  # of a tensor's body
DIGEST_BYTES = 32  # of a hash
ALIGN = 64  # bytes to whose multiples buffers are aligned

# Philox 4x32-10 (ops/random.py)
PHILOX_ROUNDS = 10
PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
PHILOX_WEYL = (0x9E3779B9, 0xBB67AE85)

# sampling (ops/sampling.py)
WEIGHT_BITS = 40  # of the weight 1
WORD_BITS = 24  # of a random word
SAMPLE_SITE = (1 << 32) - 1  # of its random words; sites of a program are counted from 0

# kinds of an attention mask, as the parameter `mask_kind` gives them
NO_MASK, BOOL_MASK, FLOAT_MASK = 0, 1, 2

# how a contraction's weight is kept, as the parameter `storage` gives it: elements of that type, those of i8
# times a scale, and plus an offset if there is one, of their block
STORED_F32, STORED_BF16, STORED_F16, STORED_I8 = 0, 1, 2, 3

# what C++ knows of these: name there, its type, value
CPP = (
    ("kSegment", "int", SEGMENT), ("kSumBlock", "int", SUM_BLOCK), ("kSumLanes", "int", SUM_LANES),
    ("kCanonicalNan", "uint32_t", CANONICAL_NAN), ("kMaxRank", "int", MAX_RANK),
    ("kLeafBytes", "int64_t", LEAF_BYTES), ("kDigestBytes", "int64_t", DIGEST_BYTES),
    ("kAlign", "size_t", ALIGN), ("kNoMask", "int64_t", NO_MASK), ("kBoolMask", "int64_t", BOOL_MASK),
    ("kFloatMask", "int64_t", FLOAT_MASK), ("kPhiloxRounds", "int", PHILOX_ROUNDS),
    ("kPhiloxMultiplier0", "uint32_t", PHILOX_MULTIPLIERS[0]),
    ("kPhiloxMultiplier1", "uint32_t", PHILOX_MULTIPLIERS[1]),
    ("kPhiloxWeyl0", "uint32_t", PHILOX_WEYL[0]), ("kPhiloxWeyl1", "uint32_t", PHILOX_WEYL[1]),
    ("kWeightBits", "int", WEIGHT_BITS), ("kWordBits", "int", WORD_BITS),
    ("kSampleSite", "uint32_t", SAMPLE_SITE), ("kStoredF32", "int64_t", STORED_F32),
    ("kStoredBf16", "int64_t", STORED_BF16), ("kStoredF16", "int64_t", STORED_F16),
    ("kStoredI8", "int64_t", STORED_I8),
)  # fmt: skip


def header() -> str:
    """Text of csrc's `constants.hpp`."""
    lines = [f"inline constexpr {t} {name} = {_literal(t, value)};" for name, t, value in CPP]
    return "\n".join([
        "// The numbers of the contract, written by csrc/generate.py from kernels/constants.py.",
        "#pragma once", "#include <cstddef>", "#include <cstdint>", "", "namespace ree {", "",
        *lines, "", "}  // namespace ree", "",
    ])  # fmt: skip


def _literal(t: str, value: int) -> str:
    return f"0x{value:08x}u" if t == "uint32_t" else str(value)
