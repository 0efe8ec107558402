// SHA-256 of messages by the processor's instructions, two at a time (instructions.hpp).
#pragma once
#include "compress.inl"
#include "instructions.hpp"

namespace ree::REE_ISA::sha {

// Digests of n messages, two streams at a time; absorb(state, i, streams) hashes messages i and,
// if streams is 2, i + 1. Sources of a pair are read before its digests are written.
template <class Absorb>
inline void by_pairs(uint8_t* const* dst, int n, Absorb absorb) {
  for (int i = 0; i < n; i += 2) {
    const int streams = n - i < 2 ? 1 : 2;
    uint32_t s[2][8];
    for (int j = 0; j < streams; ++j) std::memcpy(s[j], kInit, sizeof s[j]);
    absorb(s, i, streams);
    for (int j = 0; j < streams; ++j)
      for (int k = 0; k < 8; ++k) store_be(dst[i + j] + 4 * k, s[j][k]);
  }
}

// As hash_tagged, for any n.
inline void hash_tagged_streams(ShaCompress compress, uint8_t tag, int blocks,
                                const uint8_t* const* src, uint8_t* const* dst, int n) {
  by_pairs(dst, n, [&](uint32_t(*s)[8], int i, int streams) {
    uint8_t ends[2][128] = {};  // the first block and the last
    const uint8_t *first[2], *middle[2], *last[2];
    for (int j = 0; j < streams; ++j) {
      const uint8_t* p = src[i + j];
      first[j] = ends[j], middle[j] = p + 63, last[j] = ends[j] + 64;
      ends[j][0] = tag;
      std::memcpy(ends[j] + 1, p, 63);
      ends[j][64] = p[64 * blocks - 1];
      ends[j][65] = 0x80;
      store_be(ends[j] + 124, static_cast<uint32_t>(64 * blocks + 1) * 8);
    }
    if (blocks == 1) return compress(s, first, 2, streams);
    compress(s, first, 1, streams);
    compress(s, middle, blocks - 1, streams);
    compress(s, last, 1, streams);
  });
}

// As hash_plain, for any n.
inline void hash_plain_streams(ShaCompress compress, const uint8_t* const* src, int64_t length,
                               uint8_t* const* dst, int n) {
  const int64_t whole = length / 64;
  by_pairs(dst, n, [&](uint32_t(*s)[8], int i, int streams) {
    uint8_t padded[2][128] = {};
    const uint8_t* tail[2];
    int blocks = 0;
    for (int j = 0; j < streams; ++j) {
      blocks = pad_tail(src[i + j], length, padded[j]);
      tail[j] = padded[j];
    }
    compress(s, src + i, whole, streams);
    compress(s, tail, blocks, streams);
  });
}

}  // namespace ree::REE_ISA::sha
