// Scans: cumsum over the middle axis of [outer, n, inner].
#include "../kernel.hpp"

namespace ree::REE_ISA {

// One column of the axis; the float rule restarts its chain every 128 elements.
inline void scan_column(const float* x, float* y, int64_t n, int64_t step) {
  float total = 0.0f;
  for (int64_t start = 0; start < n; start += 128) {
    float s = 0.0f;
    for (int64_t k = start; k < n && k < start + 128; ++k) {
      s = s + x[k * step];
      float v = total + s;
      if (v != v) {
        uint32_t nan = 0x7fc00000u;
        __builtin_memcpy(&v, &nan, 4);
      }
      y[k * step] = v;
    }
    total = total + s;
  }
}

inline void scan_column(const int64_t* x, int64_t* y, int64_t n, int64_t step) {
  uint64_t s = 0;  // wraps
  for (int64_t k = 0; k < n; ++k) y[k * step] = (int64_t)(s += (uint64_t)x[k * step]);
}

template <class T>
void cumsum(Pool& pool, void* const* bufs, const int64_t* p) {
  const T* x = static_cast<const T*>(bufs[0]);
  T* y = static_cast<T*>(bufs[1]);
  int64_t outer = p[0], n = p[1], inner = p[2];
  pool.parallel_for(outer, [&](int64_t o, int) {
    for (int64_t i = 0; i < inner; ++i)
      scan_column(x + o * n * inner + i, y + o * n * inner + i, n, inner);
  });
}

// bufs X, Y (contiguous); params outer, n, inner
void cumsum_f32(Pool& pool, void* const* bufs, const int64_t* p) { cumsum<float>(pool, bufs, p); }
void cumsum_i64(Pool& pool, void* const* bufs, const int64_t* p) { cumsum<int64_t>(pool, bufs, p); }

}  // namespace ree::REE_ISA

#define REE_SCAN_KERNELS REE_KERNEL(cumsum_f32) REE_KERNEL(cumsum_i64)
