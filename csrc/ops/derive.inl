// The single operations behind one element, as a dispute descends into them (verde/forms.py): what
// every operation of a chain gives, as bit patterns. Long chains are made block by block; what one
// block leaves for the next stands in STATE.
#include <algorithm>
#include <cstring>

#include "../kernel.hpp"

namespace ree::REE_ISA {
namespace derive {

inline uint32_t bits_of(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return x != x ? 0x7fc00000u : u;
}

// A float32 chain restarts every 128 operations; then its end is added to the total of those
// before.
inline constexpr int64_t kSegment = 128;

// maximum of the scalar language: NaN if either is, -0 < +0.
inline float greater(float a, float b) {
  if (a != a || b < a) return a;
  return a < b || b != b || std::signbit(a) ? b : a;
}

// The later of two is better only if it is strictly so; NaN is best of all.
template <bool Greatest>
inline bool better(float x, float top) {
  return (Greatest ? top < x : x < top) || (x != x && top == top);
}

template <bool Greatest>
void argument(const float* x, int64_t* out, int64_t* state, int64_t first, int64_t n) {
  int64_t best = state[0];
  float top;
  std::memcpy(&top, state + 1, 4);
  for (int64_t i = 0; i < n; ++i) {
    if (first + i == 0 || better<Greatest>(x[i], top)) best = first + i, top = x[i];
    out[i] = best;
  }
  state[0] = best;
  std::memcpy(state + 1, &top, 4);
}

}  // namespace derive

// Segments of fused multiply-adds from +0, each followed by its addition to the total. bufs: A, B
// (rows of n), OUT (u32, n + ceil(n / 128)), STATE (f32: total); params: n, a multiple of 128 but
// in the last block.
void derive_contraction(Pool&, void* const* bufs, const int64_t* p) {
  const float* a = static_cast<const float*>(bufs[0]);
  const float* b = static_cast<const float*>(bufs[1]);
  uint32_t* out = static_cast<uint32_t*>(bufs[2]);
  float& total = *static_cast<float*>(bufs[3]);
  for (int64_t start = 0; start < p[0]; start += derive::kSegment) {
    float lanes[W];
    F acc = zero();
    for (int64_t k = start; k < std::min(p[0], start + derive::kSegment); ++k) {
      acc = fma(set1(a[k]), set1(b[k]), acc);
      store(lanes, acc);
      *out++ = derive::bits_of(lanes[0]);
    }
    store(lanes, acc);
    total = total + lanes[0];
    *out++ = derive::bits_of(total);
  }
}

// Blocks of 1,024 elements: each is added to its lane of 64, from +0, then lanes fold by halving.
// bufs: X (n), OUT (u32, n + 63 a block), RESULTS (f32, one a block); params: n.
void derive_sum(Pool& pool, void* const* bufs, const int64_t* p) {
  constexpr int64_t kLanes = 64, kBlock = 1024, kAtOnce = 64;
  const float* x = static_cast<const float*>(bufs[0]);
  uint32_t* out = static_cast<uint32_t*>(bufs[1]);
  float* results = static_cast<float*>(bufs[2]);
  const int64_t n = p[0], blocks = (n + kBlock - 1) / kBlock;
  pool.parallel_for((blocks + kAtOnce - 1) / kAtOnce, [&](int64_t item, int) {
    for (int64_t b = item * kAtOnce; b < std::min(blocks, (item + 1) * kAtOnce); ++b) {
      const int64_t size = std::min(kBlock, n - b * kBlock);
      uint32_t* to = out + b * (kBlock + kLanes - 1);
      float lanes[kLanes] = {};
      for (int64_t i = 0; i < size; ++i) {
        float& lane = lanes[i % kLanes];
        lane = lane + x[b * kBlock + i];
        *to++ = derive::bits_of(lane);
      }
      for (int64_t half = kLanes / 2; half > 0; half /= 2)
        for (int64_t l = 0; l < half; ++l) {
          lanes[l] = lanes[l] + lanes[l + half];
          *to++ = derive::bits_of(lanes[l]);
        }
      results[b] = lanes[0];
    }
  });
}

// The greatest or the least so far. bufs: X (n), OUT (u32, n), STATE (f32: so far); params: n, 1
// for the greatest.
void derive_extreme(Pool&, void* const* bufs, const int64_t* p) {
  const float* x = static_cast<const float*>(bufs[0]);
  uint32_t* out = static_cast<uint32_t*>(bufs[1]);
  float& state = *static_cast<float*>(bufs[2]);
  for (int64_t i = 0; i < p[0]; ++i) {
    state = p[1] ? derive::greater(state, x[i]) : -derive::greater(-state, -x[i]);
    out[i] = derive::bits_of(state);
  }
}

// The index of the best so far, from `first` on. bufs: X (n), OUT (i64, n), STATE (i64: index; f32:
// the element there); params: n, 1 for the greatest, first.
void derive_argument(Pool&, void* const* bufs, const int64_t* p) {
  auto* chain = p[1] ? derive::argument<true> : derive::argument<false>;
  chain(static_cast<const float*>(bufs[0]), static_cast<int64_t*>(bufs[1]),
        static_cast<int64_t*>(bufs[2]), p[2], p[0]);
}

// Running sums in segments of 128, each of which ends with its addition to the total of those
// before. bufs: X (n), OUT (u32 or u64, one an element and one a segment), STATE (the total);
// params: n as for derive_contraction.
void derive_cumsum_f32(Pool&, void* const* bufs, const int64_t* p) {
  const float* x = static_cast<const float*>(bufs[0]);
  uint32_t* out = static_cast<uint32_t*>(bufs[1]);
  float& total = *static_cast<float*>(bufs[2]);
  for (int64_t start = 0; start < p[0]; start += derive::kSegment) {
    float s = 0.0f;
    for (int64_t k = start; k < std::min(p[0], start + derive::kSegment); ++k)
      *out++ = derive::bits_of(s = s + x[k]);
    *out++ = derive::bits_of(total = total + s);
  }
}
void derive_cumsum_i64(Pool&, void* const* bufs, const int64_t* p) {
  const uint64_t* x = static_cast<const uint64_t*>(bufs[0]);
  uint64_t* out = static_cast<uint64_t*>(bufs[1]);
  uint64_t& total = *static_cast<uint64_t*>(bufs[2]);
  for (int64_t start = 0; start < p[0]; start += derive::kSegment) {
    uint64_t s = 0;
    for (int64_t k = start; k < std::min(p[0], start + derive::kSegment); ++k) *out++ = s += x[k];
    *out++ = total += s;
  }
}

}  // namespace ree::REE_ISA

#define REE_DERIVE_KERNELS                                                      \
  REE_KERNEL(derive_contraction)                                                \
  REE_KERNEL(derive_sum) REE_KERNEL(derive_extreme) REE_KERNEL(derive_argument) \
      REE_KERNEL(derive_cumsum_f32) REE_KERNEL(derive_cumsum_i64)
