// SHA-256 (FIPS 180-4) of W equal-length messages, one per lane, and of one message in scalar code.
// The compression function is written once for both: V is I (a vector of W messages) or uint32_t.
#pragma once
#include <cstdint>
#include <cstring>

#include "../isa/layer.hpp"
#include "round_constants.hpp"

namespace ree::REE_ISA::sha {
using ree::sha::kInit;
using ree::sha::kRound;

// The operations of the vector layer, for one message.
inline uint32_t addi(uint32_t a, uint32_t b) { return a + b; }
template <int N>
inline uint32_t rotr(uint32_t x) {
  return (x >> N) | (x << (32 - N));
}
inline uint32_t shr(uint32_t x, int n) { return x >> n; }
inline uint32_t xor3(uint32_t a, uint32_t b, uint32_t c) { return a ^ b ^ c; }
inline uint32_t choose(uint32_t e, uint32_t f, uint32_t g) { return g ^ (e & (f ^ g)); }
inline uint32_t majority(uint32_t a, uint32_t b, uint32_t c) { return (a & b) | (c & (a | b)); }
using REE_ISA::addi;
using REE_ISA::choose;
using REE_ISA::majority;
using REE_ISA::rotr;
using REE_ISA::shr;
using REE_ISA::xor3;

template <class V>
inline V splat(uint32_t x);
template <>
inline uint32_t splat<uint32_t>(uint32_t x) {
  return x;
}
template <>
inline I splat<I>(uint32_t x) {
  return set1i(x);
}

template <class V>
inline V sigma0(V x) {
  return xor3(rotr<7>(x), rotr<18>(x), shr(x, 3));
}
template <class V>
inline V sigma1(V x) {
  return xor3(rotr<17>(x), rotr<19>(x), shr(x, 10));
}

// One round; kw is the round constant plus the schedule word.
template <class V>
inline void round(V a, V b, V c, V& d, V e, V f, V g, V& h, V kw) {
  V t = addi(addi(addi(h, kw), choose(e, f, g)), xor3(rotr<6>(e), rotr<11>(e), rotr<25>(e)));
  d = addi(d, t);
  h = addi(addi(t, majority(a, b, c)), xor3(rotr<2>(a), rotr<13>(a), rotr<22>(a)));
}

// Sixteen rounds, KW(i) giving round i's constant plus word; the state ends in place.
#define REE_SHA_EIGHT(KW, i)                \
  round(a, b, c, d, e, f, g, h, KW(i));     \
  round(h, a, b, c, d, e, f, g, KW(i + 1)); \
  round(g, h, a, b, c, d, e, f, KW(i + 2)); \
  round(f, g, h, a, b, c, d, e, KW(i + 3)); \
  round(e, f, g, h, a, b, c, d, KW(i + 4)); \
  round(d, e, f, g, h, a, b, c, KW(i + 5)); \
  round(c, d, e, f, g, h, a, b, KW(i + 6)); \
  round(b, c, d, e, f, g, h, a, KW(i + 7));
#define REE_SHA_SIXTEEN(KW) REE_SHA_EIGHT(KW, 0) REE_SHA_EIGHT(KW, 8)
#define REE_SHA_LOADED(i) addi(splat<V>(kRound[i]), w[i])
#define REE_SHA_CONSTANT(i) \
  ((i) == 0 ? addi(splat<V>(kRound[0]), x) : splat<V>(kRound[i] + ((i) == 15 ? length : 0)))
#define REE_SHA_EXPANDED(i)                                       \
  addi(splat<V>(k[i]), w[i] = addi(addi(w[i], w[((i) + 9) & 15]), \
                                   addi(sigma0(w[((i) + 1) & 15]), sigma1(w[((i) + 14) & 15]))))
#define REE_SHA_ENTER \
  V a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
#define REE_SHA_LEAVE                                                                     \
  s[0] = addi(s[0], a), s[1] = addi(s[1], b), s[2] = addi(s[2], c), s[3] = addi(s[3], d); \
  s[4] = addi(s[4], e), s[5] = addi(s[5], f), s[6] = addi(s[6], g), s[7] = addi(s[7], h);

// The compression function: state s absorbs the big-endian words w, which are consumed.
template <class V>
inline void compress(V* s, V* w) {
  REE_SHA_ENTER
  REE_SHA_SIXTEEN(REE_SHA_LOADED)
  // rolled, so that the loop stays in the decoded-instruction cache
  for (const uint32_t* k = kRound + 16; k != kRound + 64; k += 16) {
    REE_SHA_SIXTEEN(REE_SHA_EXPANDED)
  }
  REE_SHA_LEAVE
}

// The last block of a message of 64n + 1 bytes: x is its byte and the padding bit, then zeros and
// the length in bits. Most of the first schedule pass is then constant or zero.
template <class V>
inline void compress_last(V* s, V x, uint32_t length) {
  REE_SHA_ENTER
  REE_SHA_SIXTEEN(REE_SHA_CONSTANT)
  uint32_t c17 = sigma1(length), c19 = sigma1(c17), c21 = sigma1(c19), c30 = sigma0(length);
  V w[16];
  w[0] = x;
  w[1] = splat<V>(c17);
  w[2] = sigma1(x);
  w[3] = splat<V>(c19);
  w[4] = sigma1(w[2]);
  w[5] = splat<V>(c21);
  w[6] = addi(sigma1(w[4]), splat<V>(length));
  w[7] = addi(w[0], splat<V>(sigma1(c21)));
  w[8] = addi(sigma1(w[6]), splat<V>(c17));
  w[9] = addi(sigma1(w[7]), w[2]);
  w[10] = addi(sigma1(w[8]), splat<V>(c19));
  w[11] = addi(sigma1(w[9]), w[4]);
  w[12] = addi(sigma1(w[10]), splat<V>(c21));
  w[13] = addi(sigma1(w[11]), w[6]);
  w[14] = addi(addi(sigma1(w[12]), w[7]), splat<V>(c30));
  w[15] = addi(addi(sigma1(w[13]), w[8]), addi(sigma0(w[0]), splat<V>(length)));
  const uint32_t* k = kRound + 16;
#define REE_SHA_READY(i) addi(splat<V>(k[i]), w[i])
  REE_SHA_SIXTEEN(REE_SHA_READY)
#undef REE_SHA_READY
  for (k = kRound + 32; k != kRound + 64; k += 16) { REE_SHA_SIXTEEN(REE_SHA_EXPANDED) }
  REE_SHA_LEAVE
}

#undef REE_SHA_EIGHT
#undef REE_SHA_SIXTEEN
#undef REE_SHA_LOADED
#undef REE_SHA_CONSTANT
#undef REE_SHA_EXPANDED
#undef REE_SHA_ENTER
#undef REE_SHA_LEAVE

inline uint32_t load_be(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return __builtin_bswap32(v);
}
inline void store_be(uint8_t* p, uint32_t v) {
  v = __builtin_bswap32(v);
  std::memcpy(p, &v, 4);
}

// Digests of n <= W messages tag || src[i][0 .. 64 * blocks), to dst[i]. Sources are all read
// before the first digest is written.
inline void hash_tagged(uint8_t tag, int blocks, const uint8_t* const* src, uint8_t* const* dst,
                        int n) {
  const uint32_t length = static_cast<uint32_t>(64 * blocks + 1) * 8;
  uint32_t last[W];
  const uint8_t* p[W];
  for (int i = 0; i < W; ++i) {
    p[i] = src[i < n ? i : 0];
    last[i] = static_cast<uint32_t>(p[i][64 * blocks - 1]) << 24 | 0x800000u;
  }
  I s[8], w[16];
  for (int j = 0; j < 8; ++j) s[j] = set1i(kInit[j]);
  load_block_tagged(p, tag, w);
  compress(s, w);
  for (int b = 1; b < blocks; ++b) {
    // W strided streams are more than the hardware follows; the next W leaves come next
    for (int i = 0; i < W; ++i) __builtin_prefetch(p[i] + 64 * (W * blocks + b - 1));
    load_block(p, 64 * b - 1, w);
    compress(s, w);
  }
  I x;
  std::memcpy(&x, last, sizeof x);
  compress_last(s, x, length);
  store_digests(s, dst, n);
}

// The same for one message.
inline void hash_tagged_one(uint8_t tag, int blocks, const uint8_t* src, uint8_t* dst) {
  uint32_t s[8], w[16];
  std::memcpy(s, kInit, sizeof s);
  w[0] = static_cast<uint32_t>(tag) << 24 | load_be(src) >> 8;
  for (int j = 1; j < 16; ++j) w[j] = load_be(src + 4 * j - 1);
  compress(s, w);
  for (int b = 1; b < blocks; ++b) {
    for (int j = 0; j < 16; ++j) w[j] = load_be(src + 64 * b + 4 * j - 1);
    compress(s, w);
  }
  compress_last(s, static_cast<uint32_t>(src[64 * blocks - 1]) << 24 | 0x800000u,
                static_cast<uint32_t>(64 * blocks + 1) * 8);
  for (int j = 0; j < 8; ++j) store_be(dst + 4 * j, s[j]);
}

// The last blocks of a message of `length` bytes, to `padded`, zeroed before; returns their number.
inline int pad_tail(const uint8_t* src, int64_t length, uint8_t* padded) {
  const int rest = static_cast<int>(length % 64), blocks = rest < 56 ? 1 : 2;
  if (rest) std::memcpy(padded, src + length - rest, static_cast<size_t>(rest));
  padded[rest] = 0x80;
  store_be(padded + 64 * blocks - 8, static_cast<uint32_t>(static_cast<uint64_t>(length) >> 29));
  store_be(padded + 64 * blocks - 4, static_cast<uint32_t>(static_cast<uint64_t>(length) << 3));
  return blocks;
}

// Plain SHA-256 of n <= W messages of `length` bytes.
inline void hash_plain(const uint8_t* const* src, int64_t length, uint8_t* const* dst, int n) {
  uint8_t padded[W][128] = {};
  const uint8_t *p[W], *q[W];
  int blocks = 0;
  for (int i = 0; i < W; ++i) {
    p[i] = src[i < n ? i : 0];
    q[i] = padded[i];
    blocks = pad_tail(p[i], length, padded[i]);
  }
  I s[8], w[16];
  for (int j = 0; j < 8; ++j) s[j] = set1i(kInit[j]);
  for (int64_t b = 0; b < length / 64; ++b) {
    load_block(p, 64 * b, w);
    compress(s, w);
  }
  for (int b = 0; b < blocks; ++b) {
    load_block(q, 64 * b, w);
    compress(s, w);
  }
  store_digests(s, dst, n);
}

}  // namespace ree::REE_ISA::sha
