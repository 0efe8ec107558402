// AVX2 and FMA vector layer: 8 lanes, 16 registers.
#pragma once
#include <immintrin.h>

#include <cmath>
#include <cstdint>

#include "constants.hpp"

#define REE_ISA avx2

namespace ree::avx2 {

inline constexpr int W = 8;
inline constexpr bool kHardwareFma = true;
using F = __m256;
using I = __m256i;
struct M {
  __m256i v;
};  // all-ones or zero per lane

inline F set1(float x) { return _mm256_set1_ps(x); }
inline I set1i(uint32_t x) { return _mm256_set1_epi32((int)x); }
inline F zero() { return _mm256_setzero_ps(); }
inline F load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, F x) { _mm256_storeu_ps(p, x); }
inline M lanes_below(int n) {
  return {_mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))};
}
inline F load_partial(const float* p, int n) {  // lanes >= n read +0
  return _mm256_maskload_ps(p, lanes_below(n).v);
}
inline void store_partial(float* p, F x, int n) { _mm256_maskstore_ps(p, lanes_below(n).v, x); }
inline I load_u16(const uint16_t* p) {
  return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
}
inline I load_i8(const int8_t* p) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p));
}
inline F load_f16(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
inline I bits(F x) { return _mm256_castps_si256(x); }
inline F from_bits(I x) { return _mm256_castsi256_ps(x); }

inline F add(F a, F b) { return _mm256_add_ps(a, b); }
inline F sub(F a, F b) { return _mm256_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
inline F div(F a, F b) { return _mm256_div_ps(a, b); }
inline F neg(F a) { return from_bits(_mm256_xor_si256(bits(a), set1i(0x80000000u))); }
inline F abs(F a) { return from_bits(_mm256_and_si256(bits(a), set1i(0x7fffffffu))); }
inline F sqrt(F a) { return _mm256_sqrt_ps(a); }
inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline void store_bytes(int8_t* p, I x) {  // the lowest byte of every lane
  const __m256i low = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                       0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i y = _mm256_shuffle_epi8(x, low);
  _mm_storel_epi64((__m128i*)p,
                   _mm_unpacklo_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1)));
}
// Dot products of a lane's halves, signed, added to the lane modulo 2^32.
inline I dot_pairs(I sum, I a, I b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
inline I addi(I a, I b) { return _mm256_add_epi32(a, b); }
inline I subi(I a, I b) { return _mm256_sub_epi32(a, b); }
inline I andi(I a, I b) { return _mm256_and_si256(a, b); }
inline I ori(I a, I b) { return _mm256_or_si256(a, b); }
inline I xori(I a, I b) { return _mm256_xor_si256(a, b); }
inline I shl(I a, int n) { return _mm256_slli_epi32(a, n); }
inline I shr(I a, int n) { return _mm256_srli_epi32(a, n); }
inline I sar(I a, int n) { return _mm256_srai_epi32(a, n); }
inline I shlv(I a, I n) { return _mm256_sllv_epi32(a, n); }
inline I shrv(I a, I n) { return _mm256_srlv_epi32(a, n); }
inline I sarv(I a, I n) { return _mm256_srav_epi32(a, n); }
inline I mullo(I a, I b) { return _mm256_mullo_epi32(a, b); }
inline I mulhi(I a, I b) {
  I even = _mm256_srli_epi64(_mm256_mul_epu32(a, b), 32);
  I odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
  return _mm256_blend_epi32(even, odd, 0xaa);
}
inline F i2f(I a) { return _mm256_cvtepi32_ps(a); }  // signed, RNE
// unsigned, RNE: both halves are exact, and the fma rounds once
inline F u2f(I a) { return fma(i2f(shr(a, 16)), set1(65536.0f), i2f(andi(a, set1i(0xffffu)))); }
inline F rint(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline M mask(F x) { return {bits(x)}; }
inline M lt(F a, F b) { return mask(_mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
inline M le(F a, F b) { return mask(_mm256_cmp_ps(a, b, _CMP_LE_OQ)); }
inline M eq(F a, F b) { return mask(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)); }
inline M ne(F a, F b) { return mask(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ)); }  // true when unordered
inline M and_m(M a, M b) { return {_mm256_and_si256(a.v, b.v)}; }
inline M or_m(M a, M b) { return {_mm256_or_si256(a.v, b.v)}; }
inline M xor_m(M a, M b) { return {_mm256_xor_si256(a.v, b.v)}; }
inline M not_m(M a) { return {_mm256_xor_si256(a.v, _mm256_set1_epi32(-1))}; }
inline M lti(I a, I b) { return {_mm256_cmpgt_epi32(b, a)}; }
inline M lei(I a, I b) { return not_m({_mm256_cmpgt_epi32(a, b)}); }
inline M leu(I a, I b) { return {_mm256_cmpeq_epi32(_mm256_min_epu32(a, b), a)}; }
inline M ltu(I a, I b) { return not_m(leu(b, a)); }
inline M eqi(I a, I b) { return {_mm256_cmpeq_epi32(a, b)}; }
inline M nei(I a, I b) { return not_m(eqi(a, b)); }
inline F select(M m, F t, F f) { return _mm256_blendv_ps(f, t, from_bits(m.v)); }
inline I select(M m, I t, I f) { return _mm256_blendv_epi8(f, t, m.v); }
inline M select(M m, M t, M f) { return {_mm256_blendv_epi8(f.v, t.v, m.v)}; }
inline M set1m(bool b) { return {_mm256_set1_epi32(b ? -1 : 0)}; }
// W lanes to one by halving: l with l + W/2, then + W/4, ...
inline float fold_lanes(F x) {
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
inline bool any(M m) { return !_mm256_testz_si256(m.v, m.v); }
inline F lesser(F a, F b) { return _mm256_min_ps(a, b); }   // a < b ? a : b
inline F greater(F a, F b) { return _mm256_max_ps(a, b); }  // b < a ? a : b
// NaN if either is NaN; -0 < +0: the instructions give their second operand when equal, so both
// orders differ at most in the sign of zero
inline F with_nan(F a, F b, F r) {
  return _mm256_blendv_ps(r, from_bits(set1i(kCanonicalNan)), _mm256_cmp_ps(a, b, _CMP_UNORD_Q));
}
inline F maximum(F a, F b) {
  return with_nan(a, b, _mm256_and_ps(_mm256_max_ps(a, b), _mm256_max_ps(b, a)));
}
inline F minimum(F a, F b) {
  return with_nan(a, b, _mm256_or_ps(_mm256_min_ps(a, b), _mm256_min_ps(b, a)));
}
// greatest lane; a NaN may hide others, the sign of zero is not defined
inline float fold_greater(F x) {
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
// truncated, saturating, NaN gives 0
inline I f2i(F x) {
  I r = _mm256_cvttps_epi32(x);  // 0x80000000 when out of range
  r = select(le(set1(2147483648.0f), x), set1i(0x7fffffffu), r);
  return andi(eq(x, x).v, r);
}
inline I lookup16(const uint32_t* table, I index) {  // index modulo 16
  F low = _mm256_permutevar8x32_ps(load((const float*)table), index);
  F high = _mm256_permutevar8x32_ps(load((const float*)table + 8), index);
  return bits(_mm256_blendv_ps(low, high, from_bits(shl(index, 28))));
}
inline I lookup(const uint32_t* table, I index) {
  return _mm256_i32gather_epi32((const int*)table, index, 4);
}

// Hashing: rotations, three-input logic, and blocks of 16 big-endian words of W messages.
template <int N>
inline I rotr(I a) {
  return ori(shr(a, N), shl(a, 32 - N));
}
inline I xor3(I a, I b, I c) { return xori(xori(a, b), c); }
inline I choose(I e, I f, I g) { return xori(g, andi(e, xori(f, g))); }
inline I majority(I a, I b, I c) { return ori(andi(a, b), andi(c, ori(a, b))); }
inline I swap_bytes(I a) {
  return _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(_mm_set_epi8(
                                    12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3)));
}
// r[i] lane j = r[j] lane i
inline void transpose(F* r) {
  F u[8];
  for (int i = 0; i < 8; i += 4) {  // 4x4 floats within every 128-bit half
    F a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
    F c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
    u[i] = _mm256_shuffle_ps(a, c, 0x44), u[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
    u[i + 2] = _mm256_shuffle_ps(b, d, 0x44), u[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
  }
  for (int k = 0; k < 4; ++k) {  // 2x2 halves
    r[k] = _mm256_permute2f128_ps(u[k], u[4 + k], 0x20);
    r[4 + k] = _mm256_permute2f128_ps(u[k], u[4 + k], 0x31);
  }
}
// w[j], lane i = big-endian dword j of r[i], for eight of sixteen words
inline void transpose_words(F* r, I* w) {
  transpose(r);
  for (int j = 0; j < 8; ++j) w[j] = swap_bytes(bits(r[j]));
}
inline void load_block(const uint8_t* const* p, int64_t offset, I* w) {
  for (int half = 0; half < 2; ++half) {
    F r[8];
    for (int i = 0; i < W; ++i) r[i] = load((const float*)(p[i] + offset + 32 * half));
    transpose_words(r, w + 8 * half);
  }
}
// byte 0 is the tag, bytes 1 .. 63 are p[i][0 .. 62]; p[i][-1] is not accessed
inline void load_block_tagged(const uint8_t* const* p, uint8_t tag, I* w) {
  const I first = _mm256_zextsi128_si256(_mm_cvtsi32_si128(tag));
  F r[8];
  for (int i = 0; i < W; ++i) {  // moved up by a byte, the tag below
    I x = _mm256_loadu_si256((const __m256i*)p[i]);
    I carried = _mm256_permute2x128_si256(x, x, 0x08);  // low half to high, zero to low
    r[i] = from_bits(ori(_mm256_alignr_epi8(x, carried, 15), first));
  }
  transpose_words(r, w);
  for (int i = 0; i < W; ++i) r[i] = load((const float*)(p[i] + 31));
  transpose_words(r, w + 8);
}
// words s[0 .. 7] of lane i, big-endian, to p[i], for the first n lanes
inline void store_digests(const I* s, uint8_t* const* p, int n) {
  F r[8];
  for (int j = 0; j < 8; ++j) r[j] = from_bits(swap_bytes(s[j]));
  transpose(r);
  for (int i = 0; i < n; ++i) store((float*)p[i], r[i]);
}

// Contraction tile: 6 x 2 accumulators, two vectors of a packed row and one broadcast take 15 of
// the 16 registers.
inline constexpr int kTileRows = 6;
inline constexpr int kTileVectors = 2;
inline void keep(F& x) { asm("" : "+x"(x)); }  // see avx512.hpp

}  // namespace ree::avx2
