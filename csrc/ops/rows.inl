// Row kernels: sums and selections over one axis, softmax and norms over the last.
#pragma once
#include <algorithm>
#include <cmath>

#include "rows_select.inl"
#include "rows_sum.inl"
#include "scalar_generated.inl"  // exp_

namespace ree::REE_ISA {
namespace rows {

// fn(first, count) over groups of rows of n elements. Groups are claimed a few microseconds' worth
// at a time: the pool's counter is not contended, and no thread is left waiting for long.
template <class Fn>
void each_group(Pool& pool, int64_t rows, int64_t n, int64_t group, Fn fn) {
  int64_t chunk = std::max<int64_t>(1, kGrain / 4 / std::max<int64_t>(n * group, 1)) * group;
  pool.parallel_for(ceil_div(rows, chunk), [&](int64_t i, int) {
    int64_t end = std::min(rows, (i + 1) * chunk);
    for (int64_t r = i * chunk; r < end; r += group) fn(r, std::min(group, end - r));
  });
}

// The greatest element. A NaN may hide others and is not reported, and the sign of zero is not
// defined; -inf for no elements.
inline float row_max_lax(const float* x, int64_t n) {
  constexpr int kWays = 4;
  const F low = set1(-__builtin_inff());
  F top[kWays] = {low, low, low, low};
  int64_t i = 0;
  for (; i + kWays * W <= n; i += kWays * W)
    for (int v = 0; v < kWays; ++v) top[v] = greater(top[v], load(x + i + v * W));
  for (; i + W <= n; i += W) top[0] = greater(top[0], load(x + i));
  if (i < n) {
    int rest = static_cast<int>(n - i);
    top[1] = greater(top[1], select(lanes_below(rest), load_partial(x + i, rest), low));
  }
  return fold_greater(greater(greater(top[0], top[1]), greater(top[2], top[3])));
}

// p / l, correctly rounded, for p in [0, 1] and one finite l >= 1. With 1/l = high + low, q is off
// by less than one ulp, its remainder is exact, and q + remainder * high then rounds as the
// quotient does (Markstein, "Computation of elementary functions on the IBM RISC System/6000",
// 1990), unless the remainder could be subnormal: such p, and l too large, are left to the division
// itself.
class Quotient {
 public:
  explicit Quotient(float l) : divisor_(set1(l)) {
    F one = set1(1.0f);
    high_ = div(one, divisor_);
    low_ = mul(fma(neg(divisor_), high_, one), high_);
    smallest_ = set1i(l <= 0x1p26f ? 0x0d800000u - 1 : 0xffffffffu);  // 2^-100, or everything
  }
  F operator()(F p) const {
    if (!kHardwareFma || any(ltu(subi(bits(p), set1i(1)), smallest_))) return div(p, divisor_);
    F q = fma(p, high_, mul(p, low_));
    return fma(fma(neg(divisor_), q, p), high_, q);
  }

 private:
  F divisor_, high_, low_;
  I smallest_;
};

inline float exp_sum(const float* x, int64_t n, float top, float* y, const float* next) {
  F m = set1(top);
  return tree_sum(n, [x, y, m, next](int64_t i, int64_t c) {
    __builtin_prefetch(next + i);
    F e = exp_(sub(load_n(x + i, c), m));
    if (c < W) e = select(lanes_below(static_cast<int>(c)), e, zero());
    store_n(y + i, e, c);
    return e;
  });
}

inline void divide_row(float* y, int64_t n, float total) {
  if (total != total) {
    for (int64_t i = 0; i < n; ++i) y[i] = canonical(total);
    return;
  }
  Quotient quotient(total);
  each_vector(n, [=](int64_t i, int64_t c) { store_n(y + i, quotient(load_n(y + i, c)), c); });
}

// y = v * r [* w] [+ b] with v = x - mean or x
template <bool Centre>
void affine_row(const float* x, float* y, int64_t n, float mean, float scale, const float* w,
                const float* b) {
  F r = set1(scale), m = set1(mean);
  for (int64_t i = 0; i < n; i += W) {
    int64_t c = n - i;
    F v = load_n(x + i, c);
    if (Centre) v = sub(v, m);
    v = mul(v, r);
    if (w) v = mul(v, load_n(w + i, c));
    if (b) v = add(v, load_n(b + i, c));
    store_n(y + i, canonical(v), c);
  }
}

inline float scale_of(float square, int64_t n, float eps) {
  return 1.0f / std::sqrt(square / static_cast<float>(n) + eps);
}

}  // namespace rows

// m = max; p = exp(x - m); p / sum(p)
static void softmax(Pool& pool, const abi::SoftmaxArgs& p) {
  const float* x = p.x;
  float* y = p.y;
  int64_t n = p.n, sx = p.x_row, sy = p.y_row;
  // Short rows go through each phase together: the latencies of their folds then overlap.
  constexpr int64_t kMost = 16;
  int64_t group = std::clamp<int64_t>(2048 / std::max<int64_t>(n, 1), 1, kMost);
  rows::each_group(pool, p.rows, n, group, [=](int64_t r, int64_t count) {
    float top[kMost], total[kMost];
    // A NaN that the maximum overlooks makes its own p, so the sum, so the whole row NaN, as the
    // rule says; the sign of a zero maximum cannot matter, since exp(+-0) = 1.
    for (int64_t k = 0; k < count; ++k) top[k] = rows::row_max_lax(x + (r + k) * sx, n);
    for (int64_t k = 0; k < count; ++k)
      total[k] =
          rows::exp_sum(x + (r + k) * sx, n, top[k], y + (r + k) * sy, x + (r + k + count) * sx);
    for (int64_t k = 0; k < count; ++k) rows::divide_row(y + (r + k) * sy, n, total[k]);
  });
}

static void layer_norm(Pool& pool, const abi::LayerNormArgs& p) {
  const float *x = p.x, *w = p.weight, *b = p.bias;
  float* y = p.y;
  int64_t n = p.n, sx = p.x_row, sy = p.y_row;
  float eps = p.eps;
  rows::each_group(pool, p.rows, n, 1, [=](int64_t r, int64_t) {
    const float* row = x + r * sx;
    float mean = rows::row_sum(row, n) / static_cast<float>(n);
    F m = set1(mean);
    float square = rows::tree_sum(n, [row, m](int64_t i, int64_t c) {
      F d = sub(rows::load_n(row + i, c), m);
      d = mul(d, d);
      return c < W ? select(lanes_below(static_cast<int>(c)), d, zero()) : d;
    });
    rows::affine_row<true>(row, y + r * sy, n, mean, rows::scale_of(square, n, eps), w, b);
  });
}

static void rms_norm(Pool& pool, const abi::RmsNormArgs& p) {
  const float *x = p.x, *w = p.weight;
  float* y = p.y;
  int64_t n = p.n, sx = p.x_row, sy = p.y_row;
  float eps = p.eps;
  rows::each_group(pool, p.rows, n, 1, [=](int64_t r, int64_t) {
    const float* row = x + r * sx;
    float square = rows::tree_sum(n, [row](int64_t i, int64_t c) {
      F v = rows::load_n(row + i, c);
      return mul(v, v);
    });
    rows::affine_row<false>(row, y + r * sy, n, 0.0f, rows::scale_of(square, n, eps), w, nullptr);
  });
}

}  // namespace ree::REE_ISA
