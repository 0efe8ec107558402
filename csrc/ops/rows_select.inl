// Order-free exact selection over one axis: amax, amin, argmax, argmin.
#pragma once
#include <algorithm>
#include <vector>

#include "rows_sum.inl"

namespace ree::REE_ISA {
namespace rows {

// fold: the pick of all lanes, none of them NaN. The value leaves open only the sign of a zero.
struct Greatest {
  static constexpr float kStart = -__builtin_inff();
  static F pick(F a, F b) { return maximum(a, b); }
  static float fold(F x) {
    float m = fold_greater(x);
    return m != 0.0f ? m : any(eqi(bits(x), set1i(0))) ? 0.0f : -0.0f;
  }
};
struct Least {
  static constexpr float kStart = __builtin_inff();
  static F pick(F a, F b) { return minimum(a, b); }
  static float fold(F x) {
    float m = -fold_greater(neg(x));
    return m != 0.0f ? m : any(eqi(bits(x), set1i(0x80000000u))) ? -0.0f : 0.0f;
  }
};

template <class Op>
inline F load_or_start(const float* p, int64_t n) {
  if (n >= W) return load(p);
  return select(lanes_below(static_cast<int>(n)), load_partial(p, static_cast<int>(n)),
                set1(Op::kStart));
}

template <class Op>
float select_row(const float* x, int64_t n, int64_t step) {
  constexpr int kWays = W >= 16 ? 8 : 4;
  F top[kWays];
  for (int v = 0; v < kWays; ++v) top[v] = set1(Op::kStart);
  int64_t i = 0;
  if (step == 1) {
    for (; i + kWays * W <= n; i += kWays * W)
      for (int v = 0; v < kWays; ++v) {
        __builtin_prefetch(x + i + v * W + kAhead);
        top[v] = Op::pick(top[v], load(x + i + v * W));
      }
    for (; i < n; i += W) top[0] = Op::pick(top[0], load_or_start<Op>(x + i, n - i));
  } else {
    for (; i < n; ++i) top[0] = Op::pick(top[0], set1(x[i * step]));
  }
  for (int v = 1; v < kWays; ++v) top[0] = Op::pick(top[0], top[v]);
  return any(ne(top[0], top[0])) ? canonical(__builtin_nanf("")) : Op::fold(top[0]);
}

// out[c] over n rows of `width` columns, rows taken four at a time
template <class Op>
void select_columns(const float* x, int64_t n, int64_t step, int64_t width, float* out) {
  for (int64_t r = 0; r < std::max<int64_t>(n, 1); r += 4)
    for (int64_t c = 0; c < width; c += W) {
      int64_t count = width - c;
      const float* row = x + r * step + c;
      F s = r ? load_n(out + c, count) : set1(Op::kStart);
      for (int64_t k = 0; k < std::min<int64_t>(4, n - r); ++k)
        s = Op::pick(s, load_n(row + k * step, count));
      store_n(out + c, s, count);
    }
}

// Items are (outer, chunk of the axis, strip of columns), or (result, chunk) where columns are not
// contiguous; the results of chunks are reduced in turn.
template <class Op>
void select_axis(Pool& pool, const float* x, Axis a, float* y) {
  bool columns = a.by_columns();
  int64_t width = columns ? a.inner : 1, share = a.results() * a.n / (2 * pool.threads());
  int64_t strip = columns ? std::clamp<int64_t>(share / std::max<int64_t>(a.n, 1), 256, 2048) : 1;
  strip = std::min(strip, width);
  int64_t chunk = std::max<int64_t>(std::max(share, kGrain) / std::max<int64_t>(strip, 1), 16);
  int64_t chunks = std::max<int64_t>(ceil_div(a.n, chunk), 1), strips = ceil_div(width, strip);
  int64_t lines = columns ? a.outer : a.results();
  float* out = y;
  if (chunks > 1)
    out =
        static_cast<float*>(pool.shared(static_cast<size_t>(a.results() * chunks) * sizeof(float)));
  // short rows are claimed several at a time
  int64_t items = lines * chunks * strips;
  int64_t batch = columns ? 1 : std::max<int64_t>(1, kGrain / std::max<int64_t>(a.n, 1));
  pool.parallel_for(ceil_div(items, batch), [&](int64_t first, int) {
    for (int64_t i = first * batch; i < std::min(items, (first + 1) * batch); ++i) {
      int64_t c = i % strips * strip, k = i / strips % chunks, line = i / strips / chunks;
      int64_t n = std::min(chunk, a.n - k * chunk);
      const float* from = x + a.start(columns ? line * a.inner : line) + k * chunk * a.x_n + c;
      float* to = out + (line * chunks + k) * width + c;
      if (columns)
        select_columns<Op>(from, n, a.x_n, std::min(strip, width - c), to);
      else
        *to = select_row<Op>(from, n, a.x_n);
    }
  });
  if (chunks == 1) return;
  for (int64_t line = 0; line < lines; ++line) {
    const float* part = out + line * chunks * width;
    if (columns)
      select_columns<Op>(part, chunks, width, width, y + line * width);
    else
      y[line] = select_row<Op>(part, chunks, 1);
  }
}

// The first of n elements that is `top`, which is among them: equality sees no sign of zero.
inline int64_t find(const float* x, int64_t n, int64_t step, float top) {
  auto is_top = [&](float v) { return v == top || (top != top && v != v); };
  int64_t i = 0;
  if (step == 1) {
    F t = set1(top);
    M nan = ne(t, t);
    for (; i + W <= n; i += W) {
      F v = load(x + i);
      if (any(or_m(eq(v, t), and_m(nan, ne(v, v))))) break;
    }
  }
  for (; i < n; ++i)
    if (is_top(x[i * step])) return i;
  return 0;
}

}  // namespace rows

// Over the axis; strides are those of x.
static void amax(Pool& pool, const abi::AmaxArgs& p) {
  rows::select_axis<rows::Greatest>(pool, p.x, rows::Axis(p), p.y);
}
static void amin(Pool& pool, const abi::AminArgs& p) {
  rows::select_axis<rows::Least>(pool, p.x, rows::Axis(p), p.y);
}

namespace rows {

// The value picked, then where it is first.
template <class Op>
void arg_axis(Pool& pool, const abi::ArgmaxArgs& p) {
  const Axis a(p);
  const float* x = p.x;
  int64_t* y = p.y;
  std::vector<float> top(static_cast<size_t>(a.results()));
  select_axis<Op>(pool, x, a, top.data());
  if (a.by_columns()) {
    // strips of columns; rows are read in order until every column of the strip has its index
    constexpr int64_t kStrip = 512;
    int64_t strips = ceil_div(a.inner, kStrip);
    pool.parallel_for(a.outer * strips, [&](int64_t i, int) {
      int64_t c0 = i % strips * kStrip, o = i / strips, width = std::min(kStrip, a.inner - c0);
      const float* t = top.data() + o * a.inner + c0;
      int64_t* out = y + o * a.inner + c0;
      for (int64_t c = 0; c < width; ++c) out[c] = -1;
      int64_t missing = width;
      for (int64_t k = 0; k < a.n && missing > 0; ++k) {
        const float* row = x + o * a.x_outer + k * a.x_n + c0;
        for (int64_t c = 0; c < width; c += W) {
          F v = load_n(row + c, width - c), m = load_n(t + c, width - c);
          if (!any(or_m(eq(v, m), and_m(ne(v, v), ne(m, m))))) continue;
          for (int64_t e = c; e < std::min(width, c + W); ++e)
            if (out[e] < 0 && (row[e] == t[e] || (row[e] != row[e] && t[e] != t[e])))
              out[e] = k, --missing;
        }
      }
    });
    return;
  }
  int64_t batch = std::max<int64_t>(1, kGrain / std::max<int64_t>(a.n, 1));
  pool.parallel_for(ceil_div(a.results(), batch), [&](int64_t i, int) {
    for (int64_t r = i * batch; r < std::min(a.results(), (i + 1) * batch); ++r)
      y[r] = find(x + a.start(r), a.n, a.x_n, top[static_cast<size_t>(r)]);
  });
}

}  // namespace rows

// As amax and amin, where in the axis.
static void argmax(Pool& pool, const abi::ArgmaxArgs& p) {
  rows::arg_axis<rows::Greatest>(pool, p);
}
static void argmin(Pool& pool, const abi::ArgminArgs& p) { rows::arg_axis<rows::Least>(pool, p); }

}  // namespace ree::REE_ISA
