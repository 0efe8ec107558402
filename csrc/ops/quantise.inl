// Rows of float32 as bytes with a step each (kernels/ops/quantising.py), in one pass over memory:
// the greatest magnitude has no order, and a row is still in cache when it is rounded.
#pragma once
#include <algorithm>

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

// The greatest magnitude, as bits: integers order magnitudes, NaNs above all.
inline uint32_t greatest(const float* x, const float* factor, int64_t n) {
  constexpr int kWays = 4;
  I top[kWays] = {set1i(0), set1i(0), set1i(0), set1i(0)};
  auto take = [&](int w, F v) {
    const I b = bits(abs(v));
    top[w] = select(ltu(top[w], b), b, top[w]);
  };
  int64_t i = 0;
  for (; i + kWays * W <= n; i += kWays * W)
    for (int w = 0; w < kWays; ++w) take(w, scaled(x, factor, i + w * W));
  for (; i + W <= n; i += W) take(0, scaled(x, factor, i));
  if (i < n) take(1, scaled(x, factor, i, static_cast<int>(n - i)));
  float lanes[W];
  uint32_t result = 0;
  for (const I& t : top) {
    store(lanes, from_bits(t));
    for (float v : lanes) result = std::max(result, bits_of(v));
  }
  return result;
}

}  // namespace quantise

static void quantise_rows(Pool& pool, const abi::QuantiseRowsArgs& p) {
  constexpr float kLeast = 0x1p-100f, kGreatest = 127.0f;
  const int64_t chunk = std::max<int64_t>(1, 8192 / std::max<int64_t>(p.n, 1));
  pool.parallel_for(ceil_div(p.rows, chunk), [&](int64_t item, int) {
    for (int64_t r = item * chunk; r < std::min(p.rows, (item + 1) * chunk); ++r) {
      const float* x = p.x + r * p.n;
      const uint32_t bits = quantise::greatest(x, p.factor, p.n);
      float top = float_of(bits);
      if (bits <= 0x7f800000u) top = std::max(top, kLeast);
      p.step[r] = canonical(top / kGreatest);
      const F by = set1(kGreatest / top);
      int8_t* q = p.q + r * p.n;
      int64_t i = 0;
      for (; i + W <= p.n; i += W)
        store_bytes(q + i, f2i(rint(mul(quantise::scaled(x, p.factor, i), by))));
      if (i < p.n) {
        const int rest = static_cast<int>(p.n - i);
        int8_t last[W];
        store_bytes(last, f2i(rint(mul(quantise::scaled(x, p.factor, i, rest), by))));
        std::copy(last, last + rest, q + i);
      }
    }
  });
}

}  // namespace ree::REE_ISA
