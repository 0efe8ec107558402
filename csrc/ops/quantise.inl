// Rows of float32 as bytes with a step each (kernels/ops/quantising.py), in one pass over memory:
// the greatest magnitude has no order, and a row is still in cache when it is rounded.
#pragma once
#include <algorithm>
#include <cmath>

#include "common.inl"

namespace ree::REE_ISA {
namespace quantise {

inline F scaled(const float* x, const float* factor, int64_t i) {
  return factor ? mul(load(x + i), load(factor + i)) : load(x + i);
}
inline F scaled(const float* x, const float* factor, int64_t i, int rest) {
  F v = load_partial(x + i, rest);
  return factor ? mul(v, load_partial(factor + i, rest)) : v;
}

// maximum and minimum of the scalar language: NaN if either is, -0 < +0.
inline float above(float a, float b) {
  if (a != a || b < a) return a;
  return a < b || b != b || std::signbit(a) ? b : a;
}

// The greatest and the least of a row.
inline void ends(const float* x, const float* factor, int64_t n, float& high, float& low) {
  constexpr int kWays = 2;
  const F inf = set1(__builtin_inff());
  F most[kWays] = {neg(inf), neg(inf)}, least[kWays] = {inf, inf};
  auto take = [&](int w, F up, F down) {
    most[w] = maximum(most[w], up);
    least[w] = minimum(least[w], down);
  };
  int64_t i = 0;
  for (; i + kWays * W <= n; i += kWays * W)
    for (int w = 0; w < kWays; ++w) {
      const F v = scaled(x, factor, i + w * W);
      take(w, v, v);
    }
  for (; i + W <= n; i += W) {
    const F v = scaled(x, factor, i);
    take(0, v, v);
  }
  if (i < n) {
    const int rest = static_cast<int>(n - i);
    const F v = scaled(x, factor, i, rest);
    take(1, select(lanes_below(rest), v, neg(inf)), select(lanes_below(rest), v, inf));
  }
  float a[W], b[W];
  store(a, maximum(most[0], most[1]));
  store(b, minimum(least[0], least[1]));
  high = a[0], low = b[0];
  for (int l = 1; l < W; ++l) high = above(high, a[l]), low = -above(-low, -b[l]);
}

}  // namespace quantise

static void quantise_rows(Pool& pool, const abi::QuantiseRowsArgs& p) {
  constexpr float kLeast = 0x1p-100f, kGreatest = 127.0f;
  const int64_t chunk = std::max<int64_t>(1, 8192 / std::max<int64_t>(p.n, 1));
  pool.parallel_for(ceil_div(p.rows, chunk), [&](int64_t item, int) {
    for (int64_t r = item * chunk; r < std::min(p.rows, (item + 1) * chunk); ++r) {
      const float* x = p.x + r * p.n;
      float high, low;
      quantise::ends(x, p.factor, p.n, high, low);
      high *= 0.5f, low *= 0.5f;
      const float middle = high + low, top = quantise::above(high - low, kLeast);
      p.middle[r] = canonical(middle);
      p.step[r] = canonical(top / kGreatest);
      const F by = set1(kGreatest / top), at = set1(middle);
      const F most = set1(kGreatest), least = set1(-kGreatest);
      auto byte = [&](F v) {
        // a NaN stays one, and becomes 0
        return f2i(minimum(maximum(rint(mul(sub(v, at), by)), least), most));
      };
      int8_t* q = p.q + r * p.n;
      int64_t i = 0;
      for (; i + W <= p.n; i += W) store_bytes(q + i, byte(quantise::scaled(x, p.factor, i)));
      if (i < p.n) {
        const int rest = static_cast<int>(p.n - i);
        int8_t last[W];
        store_bytes(last, byte(quantise::scaled(x, p.factor, i, rest)));
        std::copy(last, last + rest, q + i);
      }
    }
  });
}

}  // namespace ree::REE_ISA
