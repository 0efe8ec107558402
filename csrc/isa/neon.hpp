// NEON (AArch64) vector layer: 4 lanes, 32 registers.
#pragma once
#include <arm_neon.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "constants.hpp"

#define REE_ISA neon

namespace ree::neon {

inline constexpr int W = 4;
inline constexpr bool kHardwareFma = true;
using F = float32x4_t;
using I = uint32x4_t;
struct M {
  uint32x4_t v;
};  // all-ones or zero per lane

inline F set1(float x) { return vdupq_n_f32(x); }
inline I set1i(uint32_t x) { return vdupq_n_u32(x); }
inline F zero() { return vdupq_n_f32(0.0f); }
inline F load(const float* p) { return vld1q_f32(p); }
inline void store(float* p, F x) { vst1q_f32(p, x); }
inline M lanes_below(int n) {
  const int32_t lane[4] = {0, 1, 2, 3};
  return {vcltq_s32(vld1q_s32(lane), vdupq_n_s32(n))};
}
inline F load_partial(const float* p, int n) {  // lanes >= n read +0
  if (n >= W) return load(p);
  F r = zero();
  if (n > 0) r = vld1q_lane_f32(p, r, 0);
  if (n > 1) r = vld1q_lane_f32(p + 1, r, 1);
  if (n > 2) r = vld1q_lane_f32(p + 2, r, 2);
  return r;
}
inline void store_partial(float* p, F x, int n) {
  if (n >= W) return store(p, x);
  if (n > 0) vst1q_lane_f32(p, x, 0);
  if (n > 1) vst1q_lane_f32(p + 1, x, 1);
  if (n > 2) vst1q_lane_f32(p + 2, x, 2);
}
inline I load_u16(const uint16_t* p) { return vmovl_u16(vld1_u16(p)); }
inline I load_i8(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  const int8x8_t x = vreinterpret_s8_s32(vdup_n_s32(four));
  return vreinterpretq_u32_s32(vmovl_s16(vget_low_s16(vmovl_s8(x))));
}
inline F load_f16(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
inline I bits(F x) { return vreinterpretq_u32_f32(x); }
inline F from_bits(I x) { return vreinterpretq_f32_u32(x); }
inline int32x4_t as_signed(I x) { return vreinterpretq_s32_u32(x); }
inline I as_unsigned(int32x4_t x) { return vreinterpretq_u32_s32(x); }

inline F add(F a, F b) { return vaddq_f32(a, b); }
inline F sub(F a, F b) { return vsubq_f32(a, b); }
inline F mul(F a, F b) { return vmulq_f32(a, b); }
inline F div(F a, F b) { return vdivq_f32(a, b); }
inline F neg(F a) { return vnegq_f32(a); }  // the sign bit alone, also of a NaN
inline F abs(F a) { return vabsq_f32(a); }
inline F sqrt(F a) { return vsqrtq_f32(a); }
inline F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
inline I addi(I a, I b) { return vaddq_u32(a, b); }
inline void store_bytes(int8_t* p, I x) {  // the lowest byte of every lane
  const uint16x4_t halves = vmovn_u32(x);
  const uint8x8_t bytes = vmovn_u16(vcombine_u16(halves, halves));
  vst1_lane_u32((uint32_t*)p, vreinterpret_u32_u8(bytes), 0);
}
// Dot products of a lane's halves, signed, added to the lane modulo 2^32.
inline I dot_pairs(I sum, I a, I b) {
  const int16x8_t x = vreinterpretq_s16_u32(a), y = vreinterpretq_s16_u32(b);
  const int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(y));
  return addi(sum, as_unsigned(vpaddq_s32(low, vmull_high_s16(x, y))));
}
inline I subi(I a, I b) { return vsubq_u32(a, b); }
inline I andi(I a, I b) { return vandq_u32(a, b); }
inline I ori(I a, I b) { return vorrq_u32(a, b); }
inline I xori(I a, I b) { return veorq_u32(a, b); }
inline I shl(I a, int n) { return a << (uint32_t)n; }
inline I shr(I a, int n) { return a >> (uint32_t)n; }
inline I sar(I a, int n) { return as_unsigned(as_signed(a) >> n); }
// one instruction shifts by a count per lane: left if it is positive, right if negative
inline I shlv(I a, I n) { return vshlq_u32(a, as_signed(n)); }
inline I shrv(I a, I n) { return vshlq_u32(a, vnegq_s32(as_signed(n))); }
inline I sarv(I a, I n) { return as_unsigned(vshlq_s32(as_signed(a), vnegq_s32(as_signed(n)))); }
inline I mullo(I a, I b) { return vmulq_u32(a, b); }
inline I mulhi(I a, I b) {
  const uint64x2_t low = vmull_u32(vget_low_u32(a), vget_low_u32(b));
  const uint64x2_t high = vmull_high_u32(a, b);
  return vuzp2q_u32(vreinterpretq_u32_u64(low), vreinterpretq_u32_u64(high));
}
inline F i2f(I a) { return vcvtq_f32_s32(as_signed(a)); }  // signed, RNE
inline F u2f(I a) { return vcvtq_f32_u32(a); }             // unsigned, RNE
inline F rint(F x) { return vrndnq_f32(x); }               // half to even; the sign of zero is kept
inline M lt(F a, F b) { return {vcltq_f32(a, b)}; }
inline M le(F a, F b) { return {vcleq_f32(a, b)}; }
inline M eq(F a, F b) { return {vceqq_f32(a, b)}; }
inline M ne(F a, F b) { return {vmvnq_u32(vceqq_f32(a, b))}; }  // true when unordered
inline M lti(I a, I b) { return {vcltq_s32(as_signed(a), as_signed(b))}; }
inline M lei(I a, I b) { return {vcleq_s32(as_signed(a), as_signed(b))}; }
inline M ltu(I a, I b) { return {vcltq_u32(a, b)}; }
inline M leu(I a, I b) { return {vcleq_u32(a, b)}; }
inline M eqi(I a, I b) { return {vceqq_u32(a, b)}; }
inline M nei(I a, I b) { return {vmvnq_u32(vceqq_u32(a, b))}; }
inline M and_m(M a, M b) { return {vandq_u32(a.v, b.v)}; }
inline M or_m(M a, M b) { return {vorrq_u32(a.v, b.v)}; }
inline M xor_m(M a, M b) { return {veorq_u32(a.v, b.v)}; }
inline M not_m(M a) { return {vmvnq_u32(a.v)}; }
inline F select(M m, F t, F f) { return vbslq_f32(m.v, t, f); }
inline I select(M m, I t, I f) { return vbslq_u32(m.v, t, f); }
inline M select(M m, M t, M f) { return {vbslq_u32(m.v, t.v, f.v)}; }
inline M set1m(bool b) { return {vdupq_n_u32(b ? 0xffffffffu : 0u)}; }
// W lanes to one by halving: l with l + W/2, then + W/4, ...
inline float fold_lanes(F x) {
  const float32x2_t h = vadd_f32(vget_low_f32(x), vget_high_f32(x));
  return vget_lane_f32(h, 0) + vget_lane_f32(h, 1);
}
inline bool any(M m) { return vmaxvq_u32(m.v) != 0; }
// comparisons and selects: fmin and fmax treat NaN and zero otherwise
inline F lesser(F a, F b) { return select(lt(a, b), a, b); }   // b if unordered or equal
inline F greater(F a, F b) { return select(lt(b, a), a, b); }  // b if unordered or equal
// NaN if either is NaN, and -0 < +0, as fmin and fmax have it (fminnm and fmaxnm prefer a number)
inline F with_nan(F r) { return select(ne(r, r), from_bits(set1i(kCanonicalNan)), r); }
inline F maximum(F a, F b) { return with_nan(vmaxq_f32(a, b)); }
inline F minimum(F a, F b) { return with_nan(vminq_f32(a, b)); }
// greatest lane; a NaN may hide others, the sign of zero is not defined
inline float fold_greater(F x) { return vmaxvq_f32(x); }
inline I f2i(F x) { return as_unsigned(vcvtq_s32_f32(x)); }  // truncated, saturating, NaN gives 0
inline I lookup16(const uint32_t* table, I index) {          // index modulo 16
  // byte 4i + j of the table for byte j of lane i, from 64 bytes in four registers
  const uint8x16x4_t bytes = vld1q_u8_x4((const uint8_t*)table);
  const I first = vmulq_u32(vandq_u32(index, set1i(15)), set1i(0x04040404u));
  return vreinterpretq_u32_u8(
      vqtbl4q_u8(bytes, vreinterpretq_u8_u32(vaddq_u32(first, set1i(0x03020100u)))));
}
inline I lookup(const uint32_t* table, I index) {
  I r = vdupq_n_u32(table[vgetq_lane_u32(index, 0)]);
  r = vld1q_lane_u32(table + vgetq_lane_u32(index, 1), r, 1);
  r = vld1q_lane_u32(table + vgetq_lane_u32(index, 2), r, 2);
  return vld1q_lane_u32(table + vgetq_lane_u32(index, 3), r, 3);
}

// Hashing: rotations, three-input logic, and blocks of 16 big-endian words of W messages.
template <int N>
inline I rotr(I a) {
  return vsriq_n_u32(vshlq_n_u32(a, 32 - N), a, N);
}
inline I xor3(I a, I b, I c) { return veorq_u32(veorq_u32(a, b), c); }
inline I choose(I e, I f, I g) { return vbslq_u32(e, f, g); }
inline I majority(I a, I b, I c) { return vbslq_u32(veorq_u32(a, b), c, b); }
inline I swap_bytes(I a) { return vreinterpretq_u32_u8(vrev32q_u8(vreinterpretq_u8_u32(a))); }
// r[i] lane j = r[j] lane i
inline void transpose(I* r) {
  const uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(r[0], r[1]));
  const uint64x2_t b = vreinterpretq_u64_u32(vtrn2q_u32(r[0], r[1]));
  const uint64x2_t c = vreinterpretq_u64_u32(vtrn1q_u32(r[2], r[3]));
  const uint64x2_t d = vreinterpretq_u64_u32(vtrn2q_u32(r[2], r[3]));
  r[0] = vreinterpretq_u32_u64(vtrn1q_u64(a, c)), r[1] = vreinterpretq_u32_u64(vtrn1q_u64(b, d));
  r[2] = vreinterpretq_u32_u64(vtrn2q_u64(a, c)), r[3] = vreinterpretq_u32_u64(vtrn2q_u64(b, d));
}
inline void transpose(F* r) {
  I u[4] = {bits(r[0]), bits(r[1]), bits(r[2]), bits(r[3])};
  transpose(u);
  for (int i = 0; i < 4; ++i) r[i] = from_bits(u[i]);
}
inline void load_block(const uint8_t* const* p, int64_t offset, I* w) {
  for (int part = 0; part < 16; part += 4) {
    for (int i = 0; i < W; ++i)
      w[part + i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p[i] + offset + 4 * part)));
    transpose(w + part);
  }
}
// byte 0 is the tag, bytes 1 .. 63 are p[i][0 .. 62]; p[i][-1] is not accessed
inline void load_block_tagged(const uint8_t* const* p, uint8_t tag, I* w) {
  load_block(p, 0, w);
  for (int j = 15; j > 0; --j) w[j] = vsliq_n_u32(vshrq_n_u32(w[j], 8), w[j - 1], 24);
  w[0] = vorrq_u32(vshrq_n_u32(w[0], 8), set1i((uint32_t)tag << 24));
}
// words s[0 .. 7] of lane i, big-endian, to p[i], for the first n lanes
inline void store_digests(const I* s, uint8_t* const* p, int n) {
  for (int half = 0; half < 2; ++half) {
    I r[4] = {s[4 * half], s[4 * half + 1], s[4 * half + 2], s[4 * half + 3]};
    transpose(r);
    for (int i = 0; i < n; ++i) vst1q_u8(p[i] + 16 * half, vreinterpretq_u8_u32(swap_bytes(r[i])));
  }
}

// Contraction tile: 8 x 3 accumulators, three vectors of a packed row and one broadcast take 28 of
// the 32 registers.
inline constexpr int kTileRows = 8;
inline constexpr int kTileVectors = 3;
inline void keep(F& x) { asm("" : "+w"(x)); }  // see avx512.hpp

}  // namespace ree::neon
