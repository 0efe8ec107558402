// A token drawn from each row of logits: what the operators give for which `sample` stands
// (kernels/ops/sampling.py), without sorting a row.
#pragma once
#include "sample_cut.inl"

namespace ree::REE_ISA {
namespace sampling {

constexpr int64_t kStrip = 64;  // tokens of which the greatest is noted
constexpr int64_t kFewer = 4;   // so many strips for each token that top-k leaves make it few

// Random bits of a draw: two words of 24.
struct Words {
  uint64_t a, b;
  Words(int64_t seed, int64_t position, int64_t choice) {
    const uint64_t s = static_cast<uint64_t>(seed);
    const int64_t element = static_cast<int64_t>(static_cast<uint64_t>(choice) << 2);
    const uint64_t block = static_cast<uint64_t>(element >> 2);
    uint32_t c[4] = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), kSampleSite,
                     static_cast<uint32_t>(position)};
    uint32_t k0 = static_cast<uint32_t>(s), k1 = static_cast<uint32_t>(s >> 32);
    for (int i = 0; i < kPhiloxRounds; ++i) {
      const uint64_t p0 = uint64_t{kPhiloxMultiplier0} * c[0];
      const uint64_t p1 = uint64_t{kPhiloxMultiplier1} * c[2];
      const uint32_t c1 = c[1], c3 = c[3];
      c[0] = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
      c[1] = static_cast<uint32_t>(p1);
      c[2] = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c[3] = static_cast<uint32_t>(p0);
      k0 += kPhiloxWeyl0;
      k1 += kPhiloxWeyl1;
    }
    a = c[0] >> (32 - kWordBits);
    b = c[1] >> (32 - kWordBits);
  }
  // floor(total * (a * 2^24 + b) / 2^48)
  uint64_t target(uint64_t total) const {
    const uint64_t h = total >> kWordBits, l = total & kWordMask;
    return h * a + ((h * b + l * a + (l * b >> kWordBits)) >> kWordBits);
  }
};

// floor(total * share / 2^24)
inline uint64_t part(uint64_t total, uint64_t share) {
  return (total >> kWordBits) * share + ((total & kWordMask) * share >> kWordBits);
}

// i64(top_p * 2^24) within [0, 2^24]
inline int64_t share_of(float top_p) {
  const float p = top_p * static_cast<float>(1 << kWordBits);
  const int64_t all = int64_t{1} << kWordBits;
  return p >= static_cast<float>(all) ? all : p >= 1.0f ? static_cast<int64_t>(p) : 0;
}

// The first id whose quotient is the greatest.
inline int64_t first_of_best(const float* x, int64_t n, float temperature, float m) {
  const F t = set1(temperature), top = set1(m);
  int64_t i = 0;
  for (; i + W <= n; i += W)
    if (any(eq(div(load(x + i), t), top))) break;
  while (x[i] / temperature != m) ++i;
  return i;
}

struct Draw {
  const float* x;
  int64_t n;
  float temperature, m, min_p;
  uint64_t share;
  Words words;
};

// The k best, few against n, are found by the greatest of strips: k of them are at least as good as
// the k-th greatest strip. Only they are weighed.
inline int64_t draw_of_few(const Draw& d, int64_t k, const Room& room) {
  const int64_t strips = ceil_div(d.n, kStrip);
  float *best = room.e, *sorted = room.e + strips;
  for (int64_t s = 0; s < strips; ++s)
    best[s] = rows::row_max_lax(d.x + s * kStrip, std::min(kStrip, d.n - s * kStrip));
  std::copy(best, best + strips, sorted);
  std::nth_element(sorted, sorted + k - 1, sorted + strips, std::greater<float>());
  const float least = sorted[k - 1] / d.temperature;
  const F t = set1(d.temperature), low = set1(least);
  float lanes[W];
  int64_t count = 0;
  for (int64_t s = 0; s < strips; ++s) {
    if (!(best[s] / d.temperature >= least)) continue;
    for (int64_t i = s * kStrip, end = std::min(d.n, i + kStrip); i < end; i += W) {
      const F q = div(rows::load_n(d.x + i, end - i), t);
      if (!any(le(low, q))) continue;
      store(lanes, q);
      for (int64_t l = 0; l < std::min<int64_t>(W, end - i); ++l)
        if (lanes[l] >= least) room.items[count++] = ranked(lanes[l], i + l);
    }
  }
  if (count > k) std::nth_element(room.items, room.items + k, room.items + count);
  uint64_t* items = Row::sort_items(room.items, room.items + Room::padded(d.n), k);
  uint64_t* weights = room.items == items ? room.items + Room::padded(d.n) : room.items;
  for (int64_t i = 0; i < k; ++i) room.q[i] = d.x[id_of(items[i])] / d.temperature;
  uint64_t total = 0;
  for (int64_t i = 0; i < k; i += W) {
    store(lanes, exp_(sub(rows::load_n(room.q + i, k - i), set1(d.m))));
    for (int64_t l = 0; l < std::min<int64_t>(W, k - i); ++l)
      total += weights[i + l] = lanes[l] >= d.min_p ? weight(lanes[l]) : 0;
  }
  const uint64_t limit = part(total, d.share);
  uint64_t sum = 0;
  int64_t kept = 0;
  for (; kept < k && sum < limit; ++kept) {
    items[kept] = static_cast<uint64_t>(id_of(items[kept])) << 32 | static_cast<uint64_t>(kept);
    sum += weights[kept];
  }
  std::sort(items, items + kept);
  uint64_t target = d.words.target(sum);
  for (int64_t i = 0;; ++i) {
    const uint64_t w = weights[id_of(items[i])];
    if (w > target) return static_cast<int64_t>(items[i] >> 32);
    target -= w;
  }
}

inline int64_t draw_of_many(const Draw& d, int64_t k, const Room& room) {
  Row row(room, d.x, d.n, d.temperature, d.m, d.min_p);
  if (k > 0 && k < d.n) row.cut(static_cast<uint64_t>(k), false);
  const uint64_t limit = part(row.total(), d.share);
  if (limit < row.total()) row.cut(limit, true);
  return row.find(d.words.target(row.total()));
}

}  // namespace sampling

static void sample(Pool& pool, const abi::SampleArgs& p) {
  using namespace sampling;
  const int64_t n = p.vocabulary;
  pool.parallel_for(p.rows, [&](int64_t r, int thread) {
    const float* x = p.logits + r * n;
    const float t = p.temperature[r], top = rows::select_row<rows::Greatest>(x, n, 1), m = top / t;
    const float inf = std::numeric_limits<float>::infinity();
    const bool draws = t > 0.0f && m - m == 0.0f &&
                       (t != inf || x[rows::find(x, n, 1, -inf)] != -inf);  // -inf / inf is NaN
    if (!draws) {
      p.tokens[r] = rows::find(x, n, 1, top);
      return;
    }
    const int64_t share = share_of(p.top_p[r]);
    const int64_t k = p.top_k[r];
    if (share == 0 || k == 1 || !(p.min_p[r] <= 1.0f)) {
      p.tokens[r] = first_of_best(x, n, t, m);
      return;
    }
    const Room room(pool.scratch(thread, Room::bytes(n)), n);
    const Draw d{x,
                 n,
                 t,
                 m,
                 p.min_p[r],
                 static_cast<uint64_t>(share),
                 Words(p.seed[r], p.position[r], p.choice[r])};
    const bool few = k > 0 && k <= n / (kStrip * kFewer);
    p.tokens[r] = few ? draw_of_few(d, k, room) : draw_of_many(d, k, room);
  });
}

}  // namespace ree::REE_ISA
