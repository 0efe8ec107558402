// AVX-512 (F, BW, DQ, VL) vector layer: 16 lanes.
#pragma once
// GCC 12 reports the deliberately undefined operands inside its own intrinsics (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cmath>
#include <cstdint>

#include "constants.hpp"

#define REE_ISA avx512

namespace ree::avx512 {

inline constexpr int W = 16;
inline constexpr bool kHardwareFma = true;
using F = __m512;
using I = __m512i;
struct M {
  __mmask16 v;
};

inline F set1(float x) { return _mm512_set1_ps(x); }
inline I set1i(uint32_t x) { return _mm512_set1_epi32((int)x); }
inline F zero() { return _mm512_setzero_ps(); }
inline F load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, F x) { _mm512_storeu_ps(p, x); }
inline M lanes_below(int n) {
  return {(__mmask16)(n >= W ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u)};
}
inline F load_partial(const float* p, int n) {  // lanes >= n read +0
  return _mm512_maskz_loadu_ps(lanes_below(n).v, p);
}
inline void store_partial(float* p, F x, int n) { _mm512_mask_storeu_ps(p, lanes_below(n).v, x); }
inline I load_u16(const uint16_t* p) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
}
inline I load_i8(const int8_t* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p));
}
inline F load_f16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
}
inline I bits(F x) { return _mm512_castps_si512(x); }
inline F from_bits(I x) { return _mm512_castsi512_ps(x); }

inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F div(F a, F b) { return _mm512_div_ps(a, b); }
inline F neg(F a) { return from_bits(_mm512_xor_si512(bits(a), set1i(0x80000000u))); }
inline F abs(F a) { return from_bits(_mm512_and_si512(bits(a), set1i(0x7fffffffu))); }
inline F sqrt(F a) { return _mm512_sqrt_ps(a); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline I addi(I a, I b) { return _mm512_add_epi32(a, b); }
inline I subi(I a, I b) { return _mm512_sub_epi32(a, b); }
inline I andi(I a, I b) { return _mm512_and_si512(a, b); }
inline I ori(I a, I b) { return _mm512_or_si512(a, b); }
inline I xori(I a, I b) { return _mm512_xor_si512(a, b); }
inline I shl(I a, int n) { return _mm512_slli_epi32(a, (unsigned)n); }
inline I shr(I a, int n) { return _mm512_srli_epi32(a, (unsigned)n); }
inline I sar(I a, int n) { return _mm512_srai_epi32(a, (unsigned)n); }
inline I shlv(I a, I n) { return _mm512_sllv_epi32(a, n); }
inline I shrv(I a, I n) { return _mm512_srlv_epi32(a, n); }
inline I sarv(I a, I n) { return _mm512_srav_epi32(a, n); }
inline I mullo(I a, I b) { return _mm512_mullo_epi32(a, b); }
inline I mulhi(I a, I b) {
  I even = _mm512_srli_epi64(_mm512_mul_epu32(a, b), 32);
  I odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
  return _mm512_mask_blend_epi32(0xaaaa, even, odd);
}
inline F i2f(I a) { return _mm512_cvtepi32_ps(a); }  // signed, RNE
inline F u2f(I a) { return _mm512_cvtepu32_ps(a); }  // unsigned, RNE
inline F rint(F x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline M lt(F a, F b) { return {_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ)}; }
inline M le(F a, F b) { return {_mm512_cmp_ps_mask(a, b, _CMP_LE_OQ)}; }
inline M eq(F a, F b) { return {_mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ)}; }
inline M ne(F a, F b) { return {_mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ)}; }  // true when unordered
inline M lti(I a, I b) { return {_mm512_cmplt_epi32_mask(a, b)}; }
inline M lei(I a, I b) { return {_mm512_cmple_epi32_mask(a, b)}; }
inline M ltu(I a, I b) { return {_mm512_cmplt_epu32_mask(a, b)}; }
inline M leu(I a, I b) { return {_mm512_cmple_epu32_mask(a, b)}; }
inline M eqi(I a, I b) { return {_mm512_cmpeq_epi32_mask(a, b)}; }
inline M nei(I a, I b) { return {_mm512_cmpneq_epi32_mask(a, b)}; }
inline M and_m(M a, M b) { return {(__mmask16)(a.v & b.v)}; }
inline M or_m(M a, M b) { return {(__mmask16)(a.v | b.v)}; }
inline M xor_m(M a, M b) { return {(__mmask16)(a.v ^ b.v)}; }
inline M not_m(M a) { return {(__mmask16)~a.v}; }
inline F select(M m, F t, F f) { return _mm512_mask_blend_ps(m.v, f, t); }
inline I select(M m, I t, I f) { return _mm512_mask_blend_epi32(m.v, f, t); }
inline M select(M m, M t, M f) { return {(__mmask16)((t.v & m.v) | (f.v & ~m.v))}; }
inline M set1m(bool b) { return {(__mmask16)(b ? 0xffff : 0)}; }
// W lanes to one by halving: l with l + W/2, then + W/4, ...
inline float fold_lanes(F x) {
  __m256 h = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
inline bool any(M m) { return m.v != 0; }
inline F lesser(F a, F b) { return _mm512_min_ps(a, b); }   // a < b ? a : b
inline F greater(F a, F b) { return _mm512_max_ps(a, b); }  // b < a ? a : b
// NaN if either is NaN; -0 < +0 (vrangeps orders zeros, but prefers a number to a NaN)
inline F with_nan(F a, F b, F r) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q), r,
                              from_bits(set1i(kCanonicalNan)));
}
inline F maximum(F a, F b) { return with_nan(a, b, _mm512_range_ps(a, b, 0x5)); }
inline F minimum(F a, F b) { return with_nan(a, b, _mm512_range_ps(a, b, 0x4)); }
// greatest lane; a NaN may hide others, the sign of zero is not defined
inline float fold_greater(F x) {
  __m256 h = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
// truncated, saturating, NaN gives 0
inline I f2i(F x) {
  I r = _mm512_cvttps_epi32(x);  // 0x80000000 when out of range
  r = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(x, set1(2147483648.0f), _CMP_GE_OQ), r,
                              set1i(0x7fffffffu));
  return _mm512_maskz_mov_epi32(_mm512_cmp_ps_mask(x, x, _CMP_EQ_OQ), r);
}
inline void store_bytes(int8_t* p, I x) {  // the lowest byte of every lane
  _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(x));
}
inline I lookup16(const uint32_t* table, I index) {  // index modulo 16
  return _mm512_permutexvar_epi32(index, _mm512_loadu_si512(table));
}
inline I lookup(const uint32_t* table, I index) { return _mm512_i32gather_epi32(index, table, 4); }

// Hashing: rotations, three-input logic, and blocks of 16 big-endian words of W messages.
template <int N>
inline I rotr(I a) {
  return _mm512_ror_epi32(a, N);
}
inline I xor3(I a, I b, I c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
inline I choose(I e, I f, I g) { return _mm512_ternarylogic_epi32(e, f, g, 0xca); }
inline I majority(I a, I b, I c) { return _mm512_ternarylogic_epi32(a, b, c, 0xe8); }
inline I swap_bytes(I a) {
  return _mm512_shuffle_epi8(a, _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4,
                                                                    5, 6, 7, 0, 1, 2, 3)));
}
// w[j], lane i = big-endian dword j of r[i]
inline void transpose_words(const I* r, I* w) {
  I u[16];
  for (int i = 0; i < 16; i += 4) {  // 4x4 dwords within every 128-bit part
    I a = _mm512_unpacklo_epi32(r[i], r[i + 1]), b = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    I c = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]), d = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
    u[i] = _mm512_unpacklo_epi64(a, c), u[i + 1] = _mm512_unpackhi_epi64(a, c);
    u[i + 2] = _mm512_unpacklo_epi64(b, d), u[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
  for (int k = 0; k < 4; ++k) {  // 4x4 parts
    I a = _mm512_shuffle_i32x4(u[k], u[4 + k], 0x88),
      b = _mm512_shuffle_i32x4(u[k], u[4 + k], 0xdd);
    I c = _mm512_shuffle_i32x4(u[8 + k], u[12 + k], 0x88);
    I d = _mm512_shuffle_i32x4(u[8 + k], u[12 + k], 0xdd);
    w[k] = swap_bytes(_mm512_shuffle_i32x4(a, c, 0x88));
    w[8 + k] = swap_bytes(_mm512_shuffle_i32x4(a, c, 0xdd));
    w[4 + k] = swap_bytes(_mm512_shuffle_i32x4(b, d, 0x88));
    w[12 + k] = swap_bytes(_mm512_shuffle_i32x4(b, d, 0xdd));
  }
}
inline void load_block(const uint8_t* const* p, int64_t offset, I* w) {
  I r[16];
  for (int i = 0; i < W; ++i) r[i] = _mm512_loadu_si512(p[i] + offset);
  transpose_words(r, w);
}
// byte 0 is the tag, bytes 1 .. 63 are p[i][0 .. 62]; p[i][-1] is not accessed
inline void load_block_tagged(const uint8_t* const* p, uint8_t tag, I* w) {
  I r[16], first = _mm512_set1_epi8((char)tag);
  for (int i = 0; i < W; ++i) r[i] = _mm512_mask_loadu_epi8(first, ~(__mmask64)1, p[i] - 1);
  transpose_words(r, w);
}
// words s[0 .. 7] of lane i, big-endian, to p[i], for the first n lanes
inline void store_digests(const I* s, uint8_t* const* p, int n) {
  alignas(64) uint8_t out[16][32];
  for (int half = 0; half < 2; ++half) {
    const I* r = s + 4 * half;
    I a = _mm512_unpacklo_epi32(r[0], r[1]), b = _mm512_unpackhi_epi32(r[0], r[1]);
    I c = _mm512_unpacklo_epi32(r[2], r[3]), d = _mm512_unpackhi_epi32(r[2], r[3]);
    I u[4] = {_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c), _mm512_unpacklo_epi64(b, d),
              _mm512_unpackhi_epi64(b, d)};
    for (int k = 0; k < 4; ++k) {
      I x = swap_bytes(u[k]);
      _mm_store_si128((__m128i*)(out[k] + 16 * half), _mm512_castsi512_si128(x));
      _mm_store_si128((__m128i*)(out[4 + k] + 16 * half), _mm512_extracti32x4_epi32(x, 1));
      _mm_store_si128((__m128i*)(out[8 + k] + 16 * half), _mm512_extracti32x4_epi32(x, 2));
      _mm_store_si128((__m128i*)(out[12 + k] + 16 * half), _mm512_extracti32x4_epi32(x, 3));
    }
  }
  for (int i = 0; i < n; ++i)
    _mm256_storeu_si256((__m256i*)p[i], _mm256_load_si256((const __m256i*)out[i]));
}

// Contraction tile: kTileRows x kTileVectors accumulators, the vectors of one packed row and one
// broadcast fill the 32 registers.
inline constexpr int kTileRows = 14;
inline constexpr int kTileVectors = 2;
// x is in a register here; without it GCC trades accumulators for early loads, and spills
inline void keep(F& x) { asm("" : "+v"(x)); }
// Dot products of a lane's parts, added to the lane modulo 2^32: two of 16 bits, signed; four of 8
// bits, unsigned by signed, where the processor has them (ree::byte_group). Neither saturates.
inline I dot_pairs(I sum, I a, I b) { return addi(sum, _mm512_madd_epi16(a, b)); }
#define REE_QUADS __attribute__((target("avx512vnni")))
REE_QUADS inline I dot_quads(I sum, I a, I b) { return _mm512_dpbusd_epi32(sum, a, b); }
// r[i] lane j = r[j] lane i
inline void transpose(F* r) {
  F u[16];
  for (int i = 0; i < 16; i += 4) {  // 4x4 floats within every 128-bit part
    F a = _mm512_unpacklo_ps(r[i], r[i + 1]), b = _mm512_unpackhi_ps(r[i], r[i + 1]);
    F c = _mm512_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
    u[i] = _mm512_shuffle_ps(a, c, 0x44), u[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
    u[i + 2] = _mm512_shuffle_ps(b, d, 0x44), u[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
  }
  for (int k = 0; k < 4; ++k) {  // 4x4 parts
    F a = _mm512_shuffle_f32x4(u[k], u[4 + k], 0x88),
      b = _mm512_shuffle_f32x4(u[k], u[4 + k], 0xdd);
    F c = _mm512_shuffle_f32x4(u[8 + k], u[12 + k], 0x88);
    F d = _mm512_shuffle_f32x4(u[8 + k], u[12 + k], 0xdd);
    r[k] = _mm512_shuffle_f32x4(a, c, 0x88);
    r[8 + k] = _mm512_shuffle_f32x4(a, c, 0xdd);
    r[4 + k] = _mm512_shuffle_f32x4(b, d, 0x88);
    r[12 + k] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
}

}  // namespace ree::avx512
