// Portable vector layer: 4 lanes through GCC/Clang vector extensions, no CPU feature assumed.
// Every ISA header defines the same names; see docs/architecture.md, "The vector layer".
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "constants.hpp"

#define REE_ISA portable

namespace ree::portable {

inline constexpr int W = 4;
inline constexpr bool kHardwareFma = false;
typedef float F __attribute__((vector_size(16)));
typedef uint32_t I __attribute__((vector_size(16)));
typedef int32_t S __attribute__((vector_size(16)));
typedef double D __attribute__((vector_size(32)));
typedef int64_t L __attribute__((vector_size(32)));
struct M {
  S v;
};  // all-ones or zero per lane

inline F set1(float x) { return F{x, x, x, x}; }
inline I set1i(uint32_t x) { return I{x, x, x, x}; }
inline F zero() { return set1(0.0f); }
inline F load(const float* p) {
  F r;
  std::memcpy(&r, p, sizeof r);
  return r;
}
inline void store(float* p, F x) { std::memcpy(p, &x, sizeof x); }
inline F load_partial(const float* p, int n) {  // lanes >= n read +0
  F r = zero();
  if (n > 0) std::memcpy(&r, p, sizeof(float) * (n < W ? n : W));
  return r;
}
inline void store_partial(float* p, F x, int n) {
  if (n > 0) std::memcpy(p, &x, sizeof(float) * (n < W ? n : W));
}
inline I load_u16(const uint16_t* p) { return I{p[0], p[1], p[2], p[3]}; }
inline I load_i8(const int8_t* p) { return (I)S{p[0], p[1], p[2], p[3]}; }
inline I bits(F x) { return (I)x; }
inline F from_bits(I x) { return (F)x; }
// The exponent's bias is another; what then lies above all numbers is infinite or NaN.
inline F load_f16(const uint16_t* p) {
  const I h = load_u16(p), shifted = (h & set1i(0x7fff)) << 13;
  const I number = bits(from_bits(shifted) * set1(0x1p112f));
  const I beyond = shifted | set1i(0x7f800000), is_number = (I)((S)shifted < (S)set1i(0x0f800000));
  return from_bits((number & is_number) | (beyond & ~is_number) | (h & set1i(0x8000)) << 16);
}

inline F add(F a, F b) { return a + b; }
inline F sub(F a, F b) { return a - b; }
inline F mul(F a, F b) { return a * b; }
inline F div(F a, F b) { return a / b; }
inline F neg(F a) { return from_bits(bits(a) ^ set1i(0x80000000u)); }
inline F abs(F a) { return from_bits(bits(a) & set1i(0x7fffffffu)); }
inline F sqrt(F a) { return F{std::sqrt(a[0]), std::sqrt(a[1]), std::sqrt(a[2]), std::sqrt(a[3])}; }
// fma without hardware: the product is exact in double; the sum is rounded to odd there, and
// one rounding to float then equals rounding once (Boldo & Melquiond, "Emulation of FMA", 2008).
[[gnu::noinline, gnu::cold]] static F fma_to_odd(F a, F b, F c) {
  D p = __builtin_convertvector(a, D) * __builtin_convertvector(b, D);
  D z = __builtin_convertvector(c, D);
  D s = p + z;
  D t = s - p;
  D e = (p - (s - t)) + (z - t);
  L si = (L)s, ei = (L)e;
  L inexact = (e != 0.0) & (e == e) & ((si & 1) == 0) & (s - s == 0.0);
  // toward the error: +1 ulp when error and sum have one sign, -1 otherwise
  L step = ((si ^ ei) >> 63) | 1;
  return __builtin_convertvector((D)(si + (inexact & step)), F);
}
// Rounding to double and then to float is rounding once unless the double lies half-way between
// two floats: its low 29 bits are 10...0, or it is below the normal floats.
inline F fma(F a, F b, F c) {
  typedef uint32_t Words __attribute__((vector_size(32)));
  const D s =
      __builtin_convertvector(a, D) * __builtin_convertvector(b, D) + __builtin_convertvector(c, D);
  const Words w = (Words)s;
  const I low = __builtin_shufflevector(w, w, 0, 2, 4, 6);
  const I high = __builtin_shufflevector(w, w, 1, 3, 5, 7) & set1i(0x7fffffffu);
  const S half = (low & set1i(0x1fffffffu)) == set1i(0x10000000u);
  const S tiny = (S)high <= (S)set1i(0x38100000u);  // |s| <= 2^-126 or just above
  const S zero_sum = (high | low) == set1i(0u);
  uint64_t risky[2];
  const S r = half | (tiny & ~zero_sum);
  std::memcpy(risky, &r, sizeof r);
  if (__builtin_expect((risky[0] | risky[1]) != 0, 0)) return fma_to_odd(a, b, c);
  return __builtin_convertvector(s, F);
}
inline void store_bytes(int8_t* p, I x) {  // the lowest byte of every lane
  for (int i = 0; i < W; ++i) p[i] = (int8_t)x[i];
}
// Dot products of a lane's halves, signed, added to the lane modulo 2^32.
inline I dot_pairs(I sum, I a, I b) {
  const S x = (S)a, y = (S)b;
  return sum + (I)((x << 16 >> 16) * (y << 16 >> 16)) + (I)((x >> 16) * (y >> 16));
}
inline I addi(I a, I b) { return a + b; }
inline I subi(I a, I b) { return a - b; }
inline I andi(I a, I b) { return a & b; }
inline I ori(I a, I b) { return a | b; }
inline I xori(I a, I b) { return a ^ b; }
inline I shl(I a, int n) { return a << (uint32_t)n; }
inline I shr(I a, int n) { return a >> (uint32_t)n; }
inline I sar(I a, int n) { return (I)((S)a >> n); }
inline I shlv(I a, I n) { return a << n; }
inline I shrv(I a, I n) { return a >> n; }
inline I sarv(I a, I n) { return (I)((S)a >> (S)n); }
inline I mullo(I a, I b) { return a * b; }
inline I mulhi(I a, I b) {
  I r;
  for (int i = 0; i < W; ++i) r[i] = (uint32_t)(((uint64_t)a[i] * b[i]) >> 32);
  return r;
}
inline F i2f(I a) { return __builtin_convertvector((S)a, F); }  // signed, RNE
inline F u2f(I a) { return __builtin_convertvector(a, F); }     // unsigned, RNE
// round half to even; |x| >= 2^23, infinities and NaN pass through; the sign of zero is kept
inline F rint(F x) {
  F m = from_bits((bits(x) & set1i(0x80000000u)) | set1i(0x4b000000u));
  F r = (x + m) - m;
  r = from_bits((bits(r) & set1i(0x7fffffffu)) | (bits(x) & set1i(0x80000000u)));
  S small = abs(x) < set1(8388608.0f);
  return from_bits((bits(r) & (I)small) | (bits(x) & ~(I)small));
}
inline M lt(F a, F b) { return {a < b}; }
inline M le(F a, F b) { return {a <= b}; }
inline M eq(F a, F b) { return {a == b}; }
inline M ne(F a, F b) { return {a != b}; }  // true when unordered
inline M lti(I a, I b) { return {(S)a < (S)b}; }
inline M lei(I a, I b) { return {(S)a <= (S)b}; }
inline M ltu(I a, I b) { return {a < b}; }
inline M leu(I a, I b) { return {a <= b}; }
inline M eqi(I a, I b) { return {a == b}; }
inline M nei(I a, I b) { return {a != b}; }
inline M and_m(M a, M b) { return {a.v & b.v}; }
inline M or_m(M a, M b) { return {a.v | b.v}; }
inline M xor_m(M a, M b) { return {a.v ^ b.v}; }
inline M not_m(M a) { return {~a.v}; }
inline M lanes_below(int n) { return {S{0, 1, 2, 3} < S{n, n, n, n}}; }
inline F select(M m, F t, F f) { return from_bits((bits(t) & (I)m.v) | (bits(f) & ~(I)m.v)); }
inline I select(M m, I t, I f) { return (t & (I)m.v) | (f & ~(I)m.v); }
inline M select(M m, M t, M f) { return {(t.v & m.v) | (f.v & ~m.v)}; }
inline M set1m(bool b) { return {b ? S{-1, -1, -1, -1} : S{0, 0, 0, 0}}; }
// W lanes to one by halving: l with l + W/2, then + W/4, ...
inline float fold_lanes(F x) { return (x[0] + x[2]) + (x[1] + x[3]); }
inline bool any(M m) { return (m.v[0] | m.v[1] | m.v[2] | m.v[3]) != 0; }
inline F lesser(F a, F b) { return select(lt(a, b), a, b); }   // b if unordered or equal
inline F greater(F a, F b) { return select(lt(b, a), a, b); }  // b if unordered or equal
// NaN if either is NaN; -0 < +0: equal values differ at most in the sign of zero
inline F with_nan(F a, F b, F r) {
  return select(or_m(ne(a, a), ne(b, b)), from_bits(set1i(kCanonicalNan)), r);
}
inline F maximum(F a, F b) {
  F same = from_bits(bits(a) & bits(b));
  return with_nan(a, b, select(lt(b, a), a, select(lt(a, b), b, same)));
}
inline F minimum(F a, F b) {
  F same = from_bits(bits(a) | bits(b));
  return with_nan(a, b, select(lt(a, b), a, select(lt(b, a), b, same)));
}
// greatest lane; a NaN may hide others, the sign of zero is not defined
inline float fold_greater(F x) {
  float a = x[0] > x[2] ? x[0] : x[2], b = x[1] > x[3] ? x[1] : x[3];
  return a > b ? a : b;
}
// truncated, saturating, NaN gives 0
inline I f2i(F x) {
  I r;
  for (int i = 0; i < W; ++i)
    r[i] = x[i] != x[i]            ? 0u
           : x[i] >= 2147483648.0f ? 0x7fffffffu
           : x[i] < -2147483648.0f ? 0x80000000u
                                   : (uint32_t)(int32_t)x[i];
  return r;
}
inline I lookup16(const uint32_t* table, I index) {  // index modulo 16
  return I{table[index[0] & 15], table[index[1] & 15], table[index[2] & 15], table[index[3] & 15]};
}
inline I lookup(const uint32_t* table, I index) {
  return I{table[index[0]], table[index[1]], table[index[2]], table[index[3]]};
}

// Hashing: rotations, three-input logic, and blocks of 16 big-endian words of W messages.
template <int N>
inline I rotr(I a) {
  return (a >> N) | (a << (32 - N));
}
inline I xor3(I a, I b, I c) { return a ^ b ^ c; }
inline I choose(I e, I f, I g) { return g ^ (e & (f ^ g)); }
inline I majority(I a, I b, I c) { return (a & b) | (c & (a | b)); }
inline void load_block(const uint8_t* const* p, int64_t offset, I* w) {
  for (int j = 0; j < 16; ++j) {
    uint32_t lane[W];
    for (int i = 0; i < W; ++i) {
      std::memcpy(&lane[i], p[i] + offset + 4 * j, 4);
      lane[i] = __builtin_bswap32(lane[i]);
    }
    w[j] = I{lane[0], lane[1], lane[2], lane[3]};
  }
}
// byte 0 is the tag, bytes 1 .. 63 are p[i][0 .. 62]; p[i][-1] is not accessed
inline void load_block_tagged(const uint8_t* const* p, uint8_t tag, I* w) {
  load_block(p, 0, w);
  for (int j = 15; j > 0; --j) w[j] = (w[j] >> 8) | (w[j - 1] << 24);
  w[0] = (w[0] >> 8) | set1i((uint32_t)tag << 24);
}
// words s[0 .. 7] of lane i, big-endian, to p[i], for the first n lanes
inline void store_digests(const I* s, uint8_t* const* p, int n) {
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < 8; ++j) {
      uint32_t v = __builtin_bswap32(s[j][i]);
      std::memcpy(p[i] + 4 * j, &v, 4);
    }
}

// Contraction tile: rows and vectors of accumulators.
inline constexpr int kTileRows = 4;
inline constexpr int kTileVectors = 2;
inline void keep(F&) {}  // see avx512.hpp
// r[i] lane j = r[j] lane i
inline void transpose(F* r) {
  for (int i = 0; i < W; ++i)
    for (int j = 0; j < i; ++j) {
      float x = r[i][j];
      r[i][j] = r[j][i];
      r[j][i] = x;
    }
}

}  // namespace ree::portable
