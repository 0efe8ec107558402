// Scans: cumsum over the middle axis of [outer, n, inner], contiguous.
#pragma once
#include "common.inl"

namespace ree::REE_ISA {

// One column of the axis; the float rule restarts its chain at every segment.
inline void scan_column(const float* x, float* y, int64_t n, int64_t step) {
  float total = 0.0f;
  for (int64_t start = 0; start < n; start += kSegment) {
    float s = 0.0f;
    for (int64_t k = start; k < n && k < start + kSegment; ++k) {
      s = s + x[k * step];
      y[k * step] = canonical(total + s);
    }
    total = total + s;
  }
}

inline void scan_column(const int64_t* x, int64_t* y, int64_t n, int64_t step) {
  uint64_t s = 0;  // wraps
  for (int64_t k = 0; k < n; ++k)
    y[k * step] = static_cast<int64_t>(s += static_cast<uint64_t>(x[k * step]));
}

template <class Args>
void cumsum(Pool& pool, const Args& p) {
  pool.parallel_for(p.outer, [&](int64_t o, int) {
    for (int64_t i = 0; i < p.inner; ++i) {
      const int64_t at = o * p.n * p.inner + i;
      scan_column(p.x + at, p.y + at, p.n, p.inner);
    }
  });
}

static void cumsum_f32(Pool& pool, const abi::CumsumF32Args& p) { cumsum(pool, p); }
static void cumsum_i64(Pool& pool, const abi::CumsumI64Args& p) { cumsum(pool, p); }

}  // namespace ree::REE_ISA
