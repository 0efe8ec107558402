// Weights of a row of tokens in exact integers, and what comes before a place in their ranking.
#pragma once
#include <algorithm>
#include <limits>

#include "rows.inl"
#include "sort.inl"

namespace ree::REE_ISA {
namespace sampling {

constexpr uint64_t kWordMask = (uint64_t{1} << kWordBits) - 1;
constexpr int64_t kBlock = 1024;  // tokens whose weights have a sum of their own
constexpr int64_t kBuckets = 2048;
constexpr float kFar = 28.0f;  // exp(-28) * 2^40 is below 1

inline uint64_t weight(float e) {
  return static_cast<uint64_t>(
      static_cast<int64_t>(e * static_cast<float>(int64_t{1} << kWeightBits)));
}
// A token in order of rank: key, ties by id.
inline uint64_t ranked(float q, int64_t id) {
  return static_cast<uint64_t>(~sorting::order_key(q)) << 32 | static_cast<uint64_t>(id);
}
inline int64_t id_of(uint64_t item) { return static_cast<int64_t>(item & 0xffffffffu); }

// Memory of one row of n tokens.
struct Room {
  float *q, *e;     // logits / temperature, and exp of them: kept tokens alone have e above 0
  uint64_t* sums;   // of the weights of blocks
  uint64_t* items;  // twice n
  uint64_t* buckets;

  static int64_t padded(int64_t n) { return ceil_div(n, kBlock) * kBlock; }
  static size_t bytes(int64_t n) {
    return static_cast<size_t>(padded(n) * (2 * 4 + 2 * 8) + (ceil_div(n, kBlock) + kBuckets) * 8);
  }
  Room(void* memory, int64_t n) {
    items = static_cast<uint64_t*>(memory);
    sums = items + 2 * padded(n);
    buckets = sums + ceil_div(n, kBlock);
    q = reinterpret_cast<float*>(buckets + kBuckets);
    e = q + padded(n);
  }
};

// The sum of the weights of `count` tokens, at most kBlock, in lanes of 32 bits: e * 2^40 is
// h * 2^24 + l.
inline uint64_t sum_of(const float* e, int64_t count) {
  static_assert(kWeightBits == 40 && kBlock / W <= 256, "a lane's sum stays below 2^32");
  I high = set1i(0), low = set1i(0);
  for (int64_t i = 0; i < count; i += W) {
    const F y = mul(load(e + i), set1(65536.0f));
    const I h = f2i(y);
    high = addi(high, h);
    low = addi(low, f2i(mul(sub(y, i2f(h)), set1(16777216.0f))));
  }
  float lanes[2 * W];
  store(lanes, from_bits(high));
  store(lanes + W, from_bits(low));
  uint64_t h = 0, l = 0;
  for (int i = 0; i < W; ++i) h += bits_of(lanes[i]), l += bits_of(lanes[W + i]);
  return (h << 24) + l;
}

// All tokens of a row, by id.
class Row : Room {
 public:
  // Tokens of e >= min_p; m is the greatest quotient, and finite.
  Row(const Room& room, const float* x, int64_t n, float temperature, float m, float min_p)
      : Room(room), n_(n), m_(m) {
    const F t = set1(temperature), top = set1(m), least = set1(min_p);
    const F out = set1(-std::numeric_limits<float>::infinity());
    F low = top;
    for (int64_t i = 0; i < padded(n); i += W) {
      const M in = lanes_below(static_cast<int>(clamp64(n - i, W)));
      const F v = select(in, div(rows::load_n(x + i, clamp64(n - i, W)), t), out);
      const F y = exp_(sub(v, top));
      store(q + i, v);
      store(e + i, select(and_m(in, le(least, y)), y, zero()));
      low = lesser(low, select(in, v, low));
    }
    range_ = m - (-fold_greater(neg(low)));
    for (int64_t b = 0; b < blocks(); ++b) sums[b] = sum_of(e + b * kBlock, kBlock);
  }

  uint64_t total() const {
    uint64_t s = 0;
    for (int64_t b = 0; b < blocks(); ++b) s += sums[b];
    return s;
  }

  // Keeps the tokens whose better ranks have a sum below `limit`: of weights, or of ones.
  void cut(uint64_t limit, bool weighted) {
    const float width = weighted || !(range_ - range_ == 0.0f) ? std::min(range_, kFar) : range_;
    const float scale = std::min(static_cast<float>(kBuckets) / width, 1e30f);
    const uint32_t last = weighted ? last_bucket(total() - limit, scale) : kBuckets - 1;
    fill_buckets(scale, last, weighted);
    uint64_t before = 0;
    uint32_t b = 0;
    while (b < kBuckets && before + buckets[b] < limit) before += buckets[b++];
    if (b == kBuckets) return;  // all of them
    int64_t count = 0;
    each_of(scale, b, b, [&](int64_t id, uint32_t at) {
      if (at == b) items[count++] = ranked(q[id], id);
    });
    const uint64_t* sorted = sort_items(items, items + padded(n_), count);
    int64_t kept = 0;
    while (kept < count && before < limit)
      before += weighted ? weight(e[id_of(sorted[kept])]) : 1, ++kept;
    keep_up_to(id_of(sorted[kept - 1]));
  }

  // The first id whose running sum is above `target`, which is below the total.
  int64_t find(uint64_t target) const {
    int64_t b = 0;
    while (target >= sums[b]) target -= sums[b++];
    int64_t i = b * kBlock;
    for (uint64_t w; (w = weight(e[i])) <= target; ++i) target -= w;
    return i;
  }

  static uint64_t* sort_items(uint64_t* a, uint64_t* room, int64_t count) {
    if (count < 256) {
      std::sort(a, a + count);
      return a;
    }
    auto* item = reinterpret_cast<sorting::Narrow*>(a);
    auto* other = reinterpret_cast<sorting::Narrow*>(room);
    return reinterpret_cast<uint64_t*>(sorting::radix_sort(item, other, count));
  }

 private:
  int64_t blocks() const { return ceil_div(n_, kBlock); }

  // Better quotients have lower buckets, or the same: each operation keeps the order.
  I bucket(int64_t i, F scale) const {
    const I b = f2i(mul(sub(set1(m_), load(q + i)), scale));
    return select(ltu(b, set1i(kBuckets)), b, set1i(kBuckets - 1));
  }

  // A bucket behind which all weights together are at most `rest`, and so too few to reach what
  // precedes the rest: each is below 2^(40 - s).
  uint32_t last_bucket(uint64_t rest, float scale) const {
    int s = 0;
    while (s < kWeightBits && (static_cast<uint64_t>(n_) << (kWeightBits - s)) > rest) ++s;
    if (s == kWeightBits) return kBuckets - 1;
    const float at = (static_cast<float>(s) * 0.694f + 0.01f) * scale;  // 0.694 > log 2
    return at < kBuckets - 2 ? static_cast<uint32_t>(static_cast<int32_t>(at)) + 1 : kBuckets - 1;
  }

  // fn(id, bucket) for the tokens of buckets [first, last], ascending, and for some others.
  template <class Fn>
  void each_of(float scale, uint32_t first, uint32_t last, Fn fn) const {
    const F s = set1(scale);
    const I low = set1i(first), high = set1i(last);
    float lanes[W];
    for (int64_t i = 0; i < n_; i += W) {
      const I b = bucket(i, s);
      if (!any(and_m(leu(low, b), leu(b, high)))) continue;
      store(lanes, from_bits(b));
      const int64_t end = std::min<int64_t>(W, n_ - i);
      for (int64_t l = 0; l < end; ++l) fn(i + l, bits_of(lanes[l]));
    }
  }

  void fill_buckets(float scale, uint32_t last, bool weighted) {
    std::fill(buckets, buckets + kBuckets, 0);
    if (weighted)
      each_of(scale, 0, last, [&](int64_t id, uint32_t b) { buckets[b] += weight(e[id]); });
    else
      each_of(scale, 0, last, [&](int64_t, uint32_t b) { ++buckets[b]; });
  }

  // Weights of 0 for all that rank behind a token.
  void keep_up_to(int64_t id) {
    const F end = set1(q[id]);
    for (int64_t b = 0; b < blocks(); ++b) {
      if (!sums[b]) continue;
      for (int64_t i = b * kBlock; i < (b + 1) * kBlock; i += W) {
        const F v = load(q + i);
        const M ties = lanes_below(static_cast<int>(clamp64(id + 1 - i, W)));
        const M kept = or_m(lt(end, v), and_m(eq(v, end), ties));
        store(e + i, select(kept, load(e + i), zero()));
      }
      sums[b] = sum_of(e + b * kBlock, kBlock);
    }
  }

  int64_t n_;
  float m_, range_;
};

}  // namespace sampling
}  // namespace ree::REE_ISA
