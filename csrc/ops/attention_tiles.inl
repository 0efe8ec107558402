// The inner tiles of attention. Scores are kept transposed, [slot][row], so that every step of the
// softmax (maximum, exp, the 64-lane sum) works down the slots with one query row per vector lane:
// no reduction ever crosses lanes, and any vector width gives the same bits.
#pragma once
#include "common.inl"
#include "scalar_generated.inl"  // exp_

namespace ree::REE_ISA {
namespace attn {

constexpr int kVecs = W >= 16 ? 3 : 2;        // vectors of query rows in a block
constexpr int kRows = kVecs * W;              // query rows of a block
constexpr int kKeys = W >= 16 ? 8 : 4;        // keys of one score tile
constexpr int kValueRows = W >= 16 ? 12 : 4;  // query rows of one value tile
constexpr int kValueVecs = 2;                 // vectors of value columns in a panel
constexpr int kPanelWidth = kValueVecs * W;

inline F neg_inf() { return from_bits(set1i(0xff800000u)); }

// NaN is ignored: the p of a NaN score is NaN by itself, so l and o of that row become NaN anyway.
// +-0 is not told apart: x - (+0) and x - (-0) differ only for x = -0, and exp(+-0) = 1.
inline F max_lax(F top, F x) { return greater(x, top); }  // top if x is NaN
inline F shift_of(F m) { return select(eq(m, neg_inf()), zero(), m); }

// exp, quick where x is far below zero: there the scaling inside exp_ would underflow to the same
// +0 by way of a subnormal, which costs a hundred cycles on some processors.
inline F exp_masked(F x) {
  M gone = lt(x, set1(-104.0f));
  return select(gone, zero(), exp_(select(gone, zero(), x)));
}

// Scores of kKeys keys for V vectors of rows: s = q.k by the contraction rule, times scale.
// qt: [d][kRows], at the first row vector; keys: their rows; s: [key][kRows].
template <int V>
void score_tile(const float* qt, const float* const* keys, int64_t d_size, float scale, float* s) {
  for (int64_t d0 = 0;; d0 += kSegment) {
    int64_t d1 = d0 + kSegment < d_size ? d0 + kSegment : d_size;
    F acc[kKeys][V];
#pragma GCC unroll 16
    for (int i = 0; i < kKeys; ++i)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[i][v] = zero();
    for (int64_t d = d0; d < d1; ++d) {
      F q[V];
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) q[v] = load(qt + d * kRows + v * W);
#pragma GCC unroll 16
      for (int i = 0; i < kKeys; ++i) {
        F k = set1(keys[i][d]);
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) acc[i][v] = fma(q[v], k, acc[i][v]);
      }
    }
    bool last = d1 == d_size;
#pragma GCC unroll 16
    for (int i = 0; i < kKeys; ++i)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        float* at = s + i * kRows + v * W;
        F total = add(d0 ? load(at) : zero(), acc[i][v]);
        store(at, last ? mul(total, set1(scale)) : total);
      }
    if (last) return;
  }
}

using ScoreTile = void (*)(const float*, const float* const*, int64_t, float, float*);
inline ScoreTile score_tile_for(int vectors) {
  static constexpr ScoreTile table[] = {score_tile<1>, score_tile<2>, score_tile<kVecs>};
  return table[vectors - 1];
}

// Sum of the 128 slots of one row vector. Lane l of the rule is slot l plus slot l + 64, and the
// lanes fold by halving; p is never -0, so starting the lanes from +0 changes nothing.
inline F slot_sum(const float* p) {
  F eighth[8];
  for (int l = 0; l < 8; ++l) {
    F t[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i)
      t[i] = add(load(p + (l + 8 * i) * kRows), load(p + (l + 8 * i + 64) * kRows));
    eighth[l] = add(add(add(t[0], t[4]), add(t[2], t[6])), add(add(t[1], t[5]), add(t[3], t[7])));
  }
  return add(add(add(eighth[0], eighth[4]), add(eighth[2], eighth[6])),
             add(add(eighth[1], eighth[5]), add(eighth[3], eighth[7])));
}

// Folds o_i of one segment into the state of a row: o = fma(o, a, o_i * b) + 0. The rule's own
// "+ 0" on o_i is implied: it could only change the sign of a zero, which the last + 0 settles.
inline void fold(float* o, F o_i, float a, float b) {
  store(o, add(fma(load(o), set1(a), mul(o_i, set1(b))), zero()));
}

// Weighted values of R rows and C vectors of columns over slots [0, n), folded into o. Returns
// false, with o untouched, if any o_i is not finite: then v may hold Inf or NaN at an invalid key,
// where the rule reads +0. (A non-finite v always shows: p * v is never finite, p = +0 included.)
// p: [slot][kRows]; v: [slot][v_stride]; o: [row][o_stride]; a, b: [row].
template <int R, int C>
bool value_tile(const float* p, int n, const float* v, int64_t v_stride, float* o, int64_t o_stride,
                const float* a, const float* b) {
  F acc[R][C];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) acc[r][c] = zero();
  for (int j = 0; j < n; ++j, p += kRows, v += v_stride) {
    F x[C];
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) x[c] = load(v + c * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      F w = set1(p[r]);
#pragma GCC unroll 16
      for (int c = 0; c < C; ++c) acc[r][c] = fma(w, x[c], acc[r][c]);
    }
  }
  F check = zero();  // NaN as soon as one acc is not finite
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) check = fma(acc[r][c], zero(), check);
  if (any(ne(check, check))) return false;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) fold(o + r * o_stride + c * W, acc[r][c], a[r], b[r]);
  return true;
}

using ValueTile = bool (*)(const float*, int, const float*, int64_t, float*, int64_t, const float*,
                           const float*);

template <int R, int C>
ValueTile value_tile_for(int rows) {
  if constexpr (R > 1) {
    if (rows < R) return value_tile_for<R - 1, C>(rows);
  }
  return value_tile<R, C>;
}

// The same with every slot looked at: invalid ones, whose score is -inf, are left out. s: scores.
inline void value_tile_checked(int rows, int vecs, const float* p, const float* s, int n,
                               const float* v, int64_t v_stride, float* o, int64_t o_stride,
                               const float* a, const float* b) {
  const float invalid = -__builtin_inff();
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < vecs; ++c) {
      F acc = zero();
      for (int j = 0; j < n; ++j)
        if (s[j * kRows + r] != invalid)
          acc = fma(set1(p[j * kRows + r]), load(v + j * v_stride + c * W), acc);
      fold(o + r * o_stride + c * W, acc, a[r], b[r]);
    }
}

}  // namespace attn
}  // namespace ree::REE_ISA
