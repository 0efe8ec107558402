// The single operations behind one element, as a dispute descends into them (verde/forms.py): what
// every operation of a chain gives, as bit patterns. Long chains are made block by block; what one
// block leaves for the next stands in STATE.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "common.inl"

namespace ree::REE_ISA {
namespace derive {

inline uint32_t result(float x) { return bits_of(canonical(x)); }

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

// Segments of fused multiply-adds from +0, each followed by its addition to the total, over rows of
// n. `out` has n + ceil(n / kSegment); n is a multiple of kSegment but in the last block.
static void derive_contraction(Pool&, const abi::DeriveContractionArgs& p) {
  uint32_t* out = p.out;
  float total = *p.total;
  for (int64_t start = 0; start < p.n; start += kSegment) {
    float lanes[W];
    F acc = zero();
    for (int64_t k = start; k < std::min<int64_t>(p.n, start + kSegment); ++k) {
      acc = fma(set1(p.a[k]), set1(p.b[k]), acc);
      store(lanes, acc);
      *out++ = derive::result(lanes[0]);
    }
    store(lanes, acc);
    total = total + lanes[0];
    *out++ = derive::result(total);
  }
  *p.total = total;
}

// Blocks of kSumBlock elements: each is added to its lane of kSumLanes, from +0, then lanes fold by
// halving. `out` has n + kSumLanes - 1 a block, `results` one a block.
static void derive_sum(Pool& pool, const abi::DeriveSumArgs& p) {
  constexpr int64_t kAtOnce = 64;
  const int64_t blocks = ceil_div(p.n, kSumBlock);
  pool.parallel_for(ceil_div(blocks, kAtOnce), [&](int64_t item, int) {
    for (int64_t b = item * kAtOnce; b < std::min(blocks, (item + 1) * kAtOnce); ++b) {
      const int64_t size = std::min<int64_t>(kSumBlock, p.n - b * kSumBlock);
      uint32_t* to = p.out + b * (kSumBlock + kSumLanes - 1);
      float lanes[kSumLanes] = {};
      for (int64_t i = 0; i < size; ++i) {
        float& lane = lanes[i % kSumLanes];
        lane = lane + p.x[b * kSumBlock + i];
        *to++ = derive::result(lane);
      }
      for (int64_t half = kSumLanes / 2; half > 0; half /= 2)
        for (int64_t l = 0; l < half; ++l) {
          lanes[l] = lanes[l] + lanes[l + half];
          *to++ = derive::result(lanes[l]);
        }
      p.results[b] = lanes[0];
    }
  });
}

// The greatest or the least so far, from the one in `state` on.
static void derive_extreme(Pool&, const abi::DeriveExtremeArgs& p) {
  float state = *p.state;
  for (int64_t i = 0; i < p.n; ++i) {
    state = p.greatest ? derive::greater(state, p.x[i]) : -derive::greater(-state, -p.x[i]);
    p.out[i] = derive::result(state);
  }
  *p.state = state;
}

// The index of the best so far, from `first` on. `state` is that index and, in its second word, the
// element there (f32).
static void derive_argument(Pool&, const abi::DeriveArgumentArgs& p) {
  auto* chain = p.greatest ? derive::argument<true> : derive::argument<false>;
  chain(p.x, p.out, p.state, p.first, p.n);
}

// Running sums in segments of kSegment, each of which ends with its addition to the total of those
// before: one result an element and one a segment; n as for derive_contraction.
static void derive_cumsum_f32(Pool&, const abi::DeriveCumsumF32Args& p) {
  uint32_t* out = p.out;
  float total = *p.total;
  for (int64_t start = 0; start < p.n; start += kSegment) {
    float s = 0.0f;
    for (int64_t k = start; k < std::min<int64_t>(p.n, start + kSegment); ++k)
      *out++ = derive::result(s = s + p.x[k]);
    *out++ = derive::result(total = total + s);
  }
  *p.total = total;
}
static void derive_cumsum_i64(Pool&, const abi::DeriveCumsumI64Args& p) {
  uint64_t* out = p.out;
  uint64_t total = *p.total;
  for (int64_t start = 0; start < p.n; start += kSegment) {
    uint64_t s = 0;
    for (int64_t k = start; k < std::min<int64_t>(p.n, start + kSegment); ++k) *out++ = s += p.x[k];
    *out++ = total += s;
  }
  *p.total = total;
}

}  // namespace ree::REE_ISA
