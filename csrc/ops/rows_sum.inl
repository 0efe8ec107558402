// The sum rule over one axis: blocks of 1024 elements, 64 lanes from +0, lanes fold by halving,
// block results are summed by the same rule.
#pragma once
#include <algorithm>

#include "common.inl"

namespace ree::REE_ISA {
namespace rows {

inline constexpr int kLaneVectors = kSumLanes / W;
inline constexpr int64_t kGrain = 32768;  // elements worth a work item

inline F load_n(const float* p, int64_t n) {
  return n >= W ? load(p) : load_partial(p, static_cast<int>(n));
}
inline void store_n(float* p, F x, int64_t n) {
  if (n >= W)
    store(p, x);
  else
    store_partial(p, x, static_cast<int>(n));
}
// fn(i, count) for every vector of [0, n); count is W but for the last
template <class Fn>
inline void each_vector(int64_t n, Fn fn) {
  int64_t i = 0;
  for (; i + W <= n; i += W) fn(i, static_cast<int64_t>(W));
  if (i < n) fn(i, n - i);
}

// get(i, count) is the W elements from i on, of which `count` exist (count >= W: all); the others
// must be +0. Adding that to a lane changes nothing: a lane starts at +0, so it is never -0.
template <class Get>
inline float block_sum(int64_t start, int64_t n, Get get) {
  F lanes[kLaneVectors];
  for (int v = 0; v < kLaneVectors; ++v) lanes[v] = zero();
  int64_t i = start, end = start + n;
  for (; i + kSumLanes <= end; i += kSumLanes)
    for (int v = 0; v < kLaneVectors; ++v)
      lanes[v] = add(lanes[v], get(i + v * W, static_cast<int64_t>(W)));
  for (int v = 0; v < kLaneVectors && i + v * W < end; ++v)
    lanes[v] = add(lanes[v], get(i + v * W, end - i - v * W));
  for (int half = kLaneVectors / 2; half > 0; half /= 2)
    for (int v = 0; v < half; ++v) lanes[v] = add(lanes[v], lanes[v + half]);
  return fold_lanes(lanes[0]);
}

// Sum of n <= 1024 block results, none of them -0. One result is itself; up to 8 are at most one
// element a lane, whose folding starts where lanes are not all +0.
inline float fold_results(const float* x, int64_t n) {
  if (n == 1) return x[0];
  if (n == 2) return x[0] + x[1];
  if (n <= 8) {
    float t[8] = {};
    for (int64_t i = 0; i < n; ++i) t[i] = x[i];
    for (int half = 4; half > 0; half /= 2)
      for (int l = 0; l < half; ++l) t[l] += t[l + half];
    return t[0];
  }
  return block_sum(0, n, [x](int64_t i, int64_t c) { return load_n(x + i, c); });
}

// Sum of n <= 1024 * unit elements from `start` on; unit is a power of 1024, not the zeroth.
// Elements are asked for once each, in ascending order.
template <class Get>
float span_sum(int64_t start, int64_t n, int64_t unit, const Get& get) {
  float results[kSumBlock];
  int64_t count = 0;
  for (int64_t i = 0; i < n; i += unit) {
    int64_t part = std::min(unit, n - i);
    results[count++] = unit == kSumBlock ? block_sum(start + i, part, get)
                                         : span_sum(start + i, part, unit / kSumBlock, get);
  }
  return fold_results(results, count);
}

// Sum of get(i, count) over [0, n); see block_sum.
template <class Get>
inline float tree_sum(int64_t n, const Get& get) {
  if (n <= kSumBlock) return block_sum(0, n, get);
  int64_t unit = kSumBlock;
  while (n > unit * kSumBlock) unit *= kSumBlock;
  return span_sum(0, n, unit, get);
}

// Hardware prefetchers stop at the end of a page; rows are read a page ahead of them.
inline constexpr int64_t kAhead = 1024;

inline float row_sum(const float* x, int64_t n) {
  return tree_sum(n, [x](int64_t i, int64_t c) {
    __builtin_prefetch(x + i + kAhead);
    return load_n(x + i, c);
  });
}

// W elements of a row with any stride.
inline F load_strided(const float* p, int64_t step, int64_t n) {
  float t[W] = {};
  for (int64_t l = 0; l < std::min<int64_t>(W, n); ++l) t[l] = p[l * step];
  return load(t);
}

// The axis that a reduction removes, of [outer, n, inner], and the strides of its source.
struct Axis {
  int64_t outer, n, inner, x_outer, x_n, x_inner;
  template <class Args>
  explicit Axis(const Args& p)
      : outer(p.outer),
        n(p.n),
        inner(p.inner),
        x_outer(p.x_outer),
        x_n(p.x_n),
        x_inner(p.x_inner) {}
  int64_t results() const { return outer * inner; }
  bool by_columns() const { return inner > 1 && x_inner == 1; }
  int64_t start(int64_t r) const { return r / inner * x_outer + r % inner * x_inner; }
};

inline float mean_or_sum(float s, float divisor) { return canonical(s / divisor); }

inline void sum_rows(Pool& pool, const float* x, const Axis& a, float divisor, float* y) {
  auto get_at = [&](const float* row, int64_t first, int64_t n) {
    int64_t step = a.x_n;
    if (step == 1) return row_sum(row + first, n);
    return tree_sum(
        n, [=](int64_t i, int64_t c) { return load_strided(row + (first + i) * step, step, c); });
  };
  int64_t results = a.results(), blocks = ceil_div(a.n, kSumBlock);
  // few long rows: blocks first, in parallel
  if (pool.threads() > 1 && results < 2 * pool.threads() && a.n > kGrain) {
    constexpr int64_t kGroup = kGrain / kSumBlock;
    int64_t groups = ceil_div(blocks, kGroup);
    float* partial =
        static_cast<float*>(pool.shared(static_cast<size_t>(results * blocks) * sizeof(float)));
    pool.parallel_for(results * groups, [&](int64_t i, int) {
      int64_t r = i / groups, first = i % groups * kGroup;
      for (int64_t b = first; b < std::min(blocks, first + kGroup); ++b)
        partial[r * blocks + b] = get_at(x + a.start(r), b * kSumBlock,
                                         std::min<int64_t>(kSumBlock, a.n - b * kSumBlock));
    });
    for (int64_t r = 0; r < results; ++r)
      y[r] = mean_or_sum(row_sum(partial + r * blocks, blocks), divisor);
    return;
  }
  int64_t chunk = std::max<int64_t>(1, kGrain / std::max<int64_t>(a.n, 1));
  pool.parallel_for(ceil_div(results, chunk), [&](int64_t i, int) {
    for (int64_t r = i * chunk; r < std::min(results, (i + 1) * chunk); ++r)
      y[r] = mean_or_sum(get_at(x + a.start(r), 0, a.n), divisor);
  });
}

// Four lanes or less folded into one: out = (l0 + l1) + (l2 + l3), where lane j is +0, or what
// start[j] holds, plus its K source rows in order. A row or lane that is missing points to zeros.
template <int K, bool Start>
void fold4(const float* const* start, const float* const* rows, int64_t width, float* out) {
  each_vector(width, [=](int64_t c, int64_t count) {
    F s[4];
    for (int j = 0; j < 4; ++j) {
      s[j] = Start ? load_n(start[j] + c, count) : zero();
      for (int k = 0; k < K; ++k) s[j] = add(s[j], load_n(rows[j * K + k] + c, count));
    }
    store_n(out + c, add(add(s[0], s[1]), add(s[2], s[3])), count);
  });
}

// lane += four rows
template <bool Start>
void add_rows(const float* x, int64_t step, int64_t width, float* lane) {
  each_vector(width, [=](int64_t c, int64_t count) {
    F s = Start ? load_n(lane + c, count) : zero();
    for (int k = 0; k < 4; ++k) s = add(s, load_n(x + k * step + c, count));
    store_n(lane + c, s, count);
  });
}

// out[c] = sum over a block of n <= 1024 rows of `width` columns. Rows are read whole, a few of one
// lane at a time; lanes are rows of `lanes`, the 65th of which is +0.
inline void column_block(const float* x, int64_t n, int64_t step, int64_t width, float* lanes,
                         float* out) {
  constexpr int64_t kAtOnce = 4 * kSumLanes;
  float* zeros = lanes + kSumLanes * width;
  std::fill(zeros, zeros + width, 0.0f);
  int64_t r = 0;
  for (; n - r > kAtOnce; r += kAtOnce)
    for (int64_t l = 0; l < kSumLanes; ++l) {
      auto* add4 = r ? add_rows<true> : add_rows<false>;
      add4(x + (r + l) * step, kSumLanes * step, width, lanes + l * width);
    }
  auto source = [&](int64_t i) { return r + i < n ? x + (r + i) * step : zeros; };
  auto lane = [&](int64_t l, int64_t live) { return l < live ? lanes + l * width : zeros; };
  int64_t rest = n - r, live = std::min<int64_t>(n, kSumLanes);
  using Fold = void (*)(const float* const*, const float* const*, int64_t, float*);
  constexpr Fold from_zero[4] = {fold4<1, false>, fold4<2, false>, fold4<3, false>,
                                 fold4<4, false>};
  constexpr Fold with_start[4] = {fold4<1, true>, fold4<2, true>, fold4<3, true>, fold4<4, true>};
  // the first folding takes the last rows too: 64 lanes to 16, else 16 to 4, else 4 to 1
  int64_t quarter = live > 16 ? 16 : live > 4 ? 4 : 1;
  for (int64_t l = 0; l < quarter; ++l) {
    const int64_t order[4] = {l, l + 2 * quarter, l + quarter, l + 3 * quarter};
    const float *start[4], *rows[16];
    int k = static_cast<int>(ceil_div(rest, kSumLanes));
    for (int j = 0; j < 4; ++j) {
      start[j] = lane(order[j], live);
      for (int i = 0; i < k; ++i) rows[j * k + i] = source(order[j] + i * kSumLanes);
    }
    float* to = quarter == 1 ? out : lanes + l * width;
    (r ? with_start : from_zero)[k - 1](start, rows, width, to);
  }
  while (quarter > 1) {
    live = std::min(live, quarter);
    quarter /= 4;
    for (int64_t l = 0; l < quarter; ++l) {
      const float* start[4] = {lane(l, live), lane(l + 2 * quarter, live), lane(l + quarter, live),
                               lane(l + 3 * quarter, live)};
      fold4<0, true>(start, nullptr, width, quarter == 1 ? out : lanes + l * width);
    }
  }
}

inline void sum_columns(Pool& pool, const float* x, Axis a, float divisor, float* y) {
  int64_t size = 0;
  for (int64_t n = a.n; n > kSumBlock;) size += a.outer * a.inner * (n = ceil_div(n, kSumBlock));
  float* level =
      size ? static_cast<float*>(pool.shared(static_cast<size_t>(size) * sizeof(float))) : nullptr;
  for (;;) {
    int64_t blocks = ceil_div(a.n, kSumBlock);
    float* out = blocks > 1 ? level : y;
    // Wide strips, since a narrow one reads little of every row it touches; but some for everyone.
    int64_t share = a.inner * a.outer * blocks / (2 * pool.threads());
    int64_t widest = a.n > 256 ? 2048 : 512, least = kGrain / std::min<int64_t>(a.n, kSumBlock);
    int64_t strip = std::clamp(share / W * W, std::clamp<int64_t>(least, 256, widest), widest);
    int64_t strips = ceil_div(a.inner, strip);
    pool.parallel_for(a.outer * blocks * strips, [&](int64_t i, int thread) {
      int64_t c = i % strips * strip, b = i / strips % blocks, o = i / strips / blocks;
      int64_t width = std::min(strip, a.inner - c);
      auto* lanes = static_cast<float*>(pool.scratch(
          thread, static_cast<size_t>((kSumLanes + 1) * std::min(strip, a.inner)) * sizeof(float)));
      float* to = out + (o * blocks + b) * a.inner + c;
      column_block(x + o * a.x_outer + b * kSumBlock * a.x_n + c,
                   std::min<int64_t>(kSumBlock, a.n - b * kSumBlock), a.x_n, width, lanes, to);
      if (blocks == 1)
        for (int64_t k = 0; k < width; k += W)
          store_n(to + k, canonical(div(load_n(to + k, width - k), set1(divisor))), width - k);
    });
    if (blocks <= 1) return;
    x = level;
    level += a.outer * blocks * a.inner;
    a.n = blocks;
    a.x_outer = blocks * a.inner;
    a.x_n = a.inner;
  }
}

}  // namespace rows

// Sums, or means, over the axis; strides are those of x.
static void sum(Pool& pool, const abi::SumArgs& p) {
  const rows::Axis a(p);
  const float divisor = p.mean ? static_cast<float>(a.n) : 1.0f;  // division by one is exact
  if (a.n > 0 && a.by_columns()) return rows::sum_columns(pool, p.x, a, divisor, p.y);
  rows::sum_rows(pool, p.x, a, divisor, p.y);
}

}  // namespace ree::REE_ISA
