// Attention for a few query rows (decoding): there the keys lie along the vector lanes, since one
// row cannot fill them. K is transposed in registers; scores are [row][slot]. What a segment gives
// (m, l, o) does not depend on those before it, so threads share the segments; who finishes the
// last one folds them in order. Same rule, same bits.
#pragma once
#include <atomic>
#include <new>
#include <type_traits>

#include "attention_args.inl"
#include "attention_tiles.inl"

namespace ree::REE_ISA {
namespace attn {

constexpr int kFewRows = 8;          // rows of a key head that take this path
constexpr int kFewAtOnce = 4;        // of which so many share what is in registers
constexpr int kFewHeads = 8;         // key heads of a group, where they lie side by side
constexpr int64_t kParts = 1 << 20;  // floats that the results of segments may take at once

// Fetches rows to L2, line by line in the order of memory: the processor's own prefetchers follow
// that, but not sixteen rows at a time.
struct Ahead {
  const float* at;
  int64_t lines, left, skip;  // of a row; up to its end; floats from there to the next row

  Ahead(const float* first, int64_t row, int64_t stride)
      : at(first), lines(ceil_div(row, 16)), left(lines), skip(stride - 16 * lines) {}
  void next() {
    __builtin_prefetch(at, 0, 2);
    at += 16;
    if (--left == 0) {
      left = lines;
      at += skip;
    }
  }
};

// Scores of 2W keys for R rows, as score_tile. keys: their rows; s: [row][kSegment].
template <int R>
void few_scores(const Row* rows, const float* const* keys, int64_t d_size, float scale, float* s,
                Ahead& next_k, Ahead& next_v) {
  F total[R][2];
  for (int r = 0; r < R; ++r) total[r][0] = total[r][1] = zero();
  for (int64_t d0 = 0; d0 < d_size; d0 += kSegment) {
    int64_t d1 = d0 + kSegment < d_size ? d0 + kSegment : d_size;
    F acc[R][2];
    for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = zero();
    int64_t d = d0;
    for (; d + W <= d1; d += W)
      for (int g = 0; g < 2; ++g) {
        F t[W];
#pragma GCC unroll 16
        for (int i = 0; i < W; ++i) {
          t[i] = load(keys[g * W + i] + d);
          if (i * W % 16 == 0) {
            next_k.next();
            next_v.next();
          }
        }
        transpose(t);
#pragma GCC unroll 16
        for (int i = 0; i < W; ++i)
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) acc[r][g] = fma(set1(rows[r].q[d + i]), t[i], acc[r][g]);
      }
    for (int g = 0; d < d1 && g < 2; ++g) {
      F t[W];
      for (int i = 0; i < W; ++i)
        t[i] = load_partial(keys[g * W + i] + d, static_cast<int>(d1 - d));
      transpose(t);
      for (int i = 0; i < static_cast<int>(d1 - d); ++i)
        for (int r = 0; r < R; ++r) acc[r][g] = fma(set1(rows[r].q[d + i]), t[i], acc[r][g]);
    }
    for (int r = 0; r < R; ++r)
      for (int g = 0; g < 2; ++g) total[r][g] = add(total[r][g], acc[r][g]);
  }
  for (int r = 0; r < R; ++r)
    for (int g = 0; g < 2; ++g) store(s + r * kSegment + g * W, mul(total[r][g], set1(scale)));
}

// Weighted values of R rows and C vectors of columns over slots [0, n), into o [row][o_stride]; the
// last vector of columns may be partial (tail > 0). Returns whether all are finite: if not, v may
// hold Inf or NaN at an invalid key, as in value_tile. p: [row][kSegment].
template <int R, int C>
bool few_values(const float* p, int n, const float* v, int64_t v_stride, int tail, float* o,
                int64_t o_stride) {
  F acc[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) acc[r][c] = zero();
  for (int j = 0; j < n; ++j, v += v_stride)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      F x = tail ? load_partial(v + c * W, tail) : load(v + c * W);
      keep(x);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[r][c] = fma(set1(p[r * kSegment + j]), x, acc[r][c]);
    }
  F check = zero();
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) {
      check = fma(acc[r][c], zero(), check);
      store(o + r * o_stride + c * W, acc[r][c]);
    }
  return !any(ne(check, check));
}

// Key heads whose rows are computed together, and what their segments give.
struct Group {
  int64_t b, h, heads;
  int64_t low, high;      // keys that some row may see
  float* parts;           // [segment][head][row]: m, l, o
  std::atomic<int> left;  // items that are not done

  int64_t first() const { return low / kSegment; }
  int64_t segments() const { return high > low ? ceil_div(high, kSegment) - first() : 0; }
};

inline int64_t part_floats(const Args& x) { return 2 * W + o_stride(x); }

// Segments of a group. scratch: floats() long.
class Few {
 public:
  static size_t floats() { return size_t{2} * kFewHeads * kFewRows * kSegment; }

  Few(const Args& args, const Group& group, int64_t rows, float* scratch)
      : x_(args),
        group_(group),
        rows_(rows),
        s_(scratch),
        p_(scratch + kFewHeads * kFewRows * kSegment) {
    for (int64_t i = 0; i < group.heads * rows; ++i)
      row_[i] = args.row(group.b, group.h + i / rows, i % rows);
  }

  void run(int64_t first, int64_t end) {
    for (int64_t n = first; n < end; ++n) {
      int64_t base = (group_.first() + n) * kSegment;
      int j0 = static_cast<int>(clamp64(group_.low - base, kSegment)),
          j1 = static_cast<int>(clamp64(group_.high - base, kSegment));
      for (int j = j0 & ~(2 * W - 1); j < j1; j += 2 * W) scores(base, j);
      each([&](int64_t h, int64_t i, auto rows) {
        float* part = group_.parts + (n * group_.heads * rows_ + i) * part_floats(x_);
        for (int r = 0; r < rows; ++r) softmax(i + r, base, j0, j1, part + r * part_floats(x_));
        all_values<rows>(h, i, base, j0, j1, part + 2 * W);
      });
    }
  }

 private:
  // Calls fn(head, first row's number, count as a constant) for rows that share registers.
  template <class Fn>
  void each(Fn fn) const {
    for (int64_t h = 0; h < group_.heads; ++h)
      for (int64_t r = 0; r < rows_; r += kFewAtOnce) {
        int64_t i = h * rows_ + r;
        switch (rows_ - r) {
          case 1: fn(h, i, std::integral_constant<int, 1>()); break;
          case 2: fn(h, i, std::integral_constant<int, 2>()); break;
          case 3: fn(h, i, std::integral_constant<int, 3>()); break;
          default: fn(h, i, std::integral_constant<int, kFewAtOnce>());
        }
      }
  }

  // Scores of 2W keys from slot j; the next 2W and the values of these are fetched meanwhile.
  void scores(int64_t base, int j) {
    const float* k = x_.keys_of(group_.b, group_.h);
    const float* v = x_.values_of(group_.b, group_.h);
    int64_t k_step = x_.k_strides[2], v_step = x_.v_strides[2];
    Ahead next_k(k + (base + j + 2 * W) * k_step, group_.heads * x_.width, k_step);
    Ahead next_v(v + (base + j) * v_step, group_.heads * x_.value_width, v_step);
    each([&](int64_t h, int64_t i, auto rows) {
      const float* keys[2 * W];
      for (int n = 0; n < 2 * W; ++n)
        keys[n] = k + h * x_.k_strides[1] + clamp64(base + j + n, x_.keys - 1) * k_step;
      few_scores<rows>(row_ + i, keys, x_.width, x_.scale, s_ + i * kSegment + j, next_k, next_v);
    });
  }

  // Masks row i's scores, makes p of them; m and l of the segment into part.
  void softmax(int64_t i, int64_t base, int j0, int j1, float* part) {
    float* s = s_ + i * kSegment;
    float* p = p_ + i * kSegment;
    const Row& row = row_[i];
    int from = static_cast<int>(clamp64(row.low - base, kSegment)),
        to = static_cast<int>(clamp64(row.high - base, kSegment));
    from = from > j0 ? from : j0;
    to = to < j1 ? to : j1;
    float mask[kSegment];
    bool masked = x_.mask_kind != kNoMask && !all_valid(x_, row, base + from, base + to);
    if (masked)
      for (int j = from; j < to; ++j) mask[j] = x_.mask_value(row.mask, base + j);
    alignas(64) static const uint32_t lane[16] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                  8, 9, 10, 11, 12, 13, 14, 15};
    F top = neg_inf();
    for (int j = 0; j < kSegment; j += W) {
      F x = neg_inf();
      if (j < to && j + W > from) {
        x = load(s + j);
        if (masked && x_.mask_kind == kBoolMask)
          x = select(eq(load(mask + j), zero()), neg_inf(), x);
        if (masked && x_.mask_kind == kFloatMask) x = add(x, load(mask + j));
        if (j < from || j + W > to) {
          I slot = addi(bits(load(reinterpret_cast<const float*>(lane))),
                        set1i(static_cast<uint32_t>(j)));
          M inside = and_m(lei(set1i(static_cast<uint32_t>(from)), slot),
                           lti(slot, set1i(static_cast<uint32_t>(to))));
          x = select(inside, x, neg_inf());
        }
        top = max_lax(top, x);
      }
      store(s + j, x);
    }
    float lanes[W], m = -__builtin_inff();
    store(lanes, top);
    for (float x : lanes) m = m < x ? x : m;
    F u = shift_of(set1(m)), sum[64 / W];
    for (int j = 0; j < kSegment; j += W)
      store(p + j, j < to && j + W > from ? exp_masked(sub(load(s + j), u)) : zero());
    for (int n = 0; n < 64 / W; ++n) sum[n] = add(load(p + n * W), load(p + 64 + n * W));
    for (int half = 32 / W; half > 0; half /= 2)
      for (int n = 0; n < half; ++n) sum[n] = add(sum[n], sum[n + half]);
    store(part, set1(m));
    store(part + W, set1(fold_lanes(sum[0])));
  }

  template <int R>
  void all_values(int64_t h, int64_t i, int64_t base, int j0, int j1, float* o) {
    constexpr int kWide = R == 1 || W >= 16 ? 4 : 2;
    int64_t c = 0;
    for (; c + kWide * W <= x_.value_width; c += kWide * W)
      values<R, kWide>(h, i, base, j0, j1, c, 0, o + c);
    for (; c + W <= x_.value_width; c += W) values<R, 1>(h, i, base, j0, j1, c, 0, o + c);
    if (c < x_.value_width)
      values<R, 1>(h, i, base, j0, j1, c, static_cast<int>(x_.value_width - c), o + c);
  }

  template <int R, int C>
  void values(int64_t h, int64_t i, int64_t base, int j0, int j1, int64_t c, int tail, float* o) {
    const int64_t step = x_.v_strides[2], o_step = part_floats(x_);
    const float* v = x_.values_of(group_.b, group_.h + h) + (base + j0) * step + c;
    const float *s = s_ + i * kSegment, *p = p_ + i * kSegment;
    if (few_values<R, C>(p + j0, j1 - j0, v, step, tail, o, o_step)) return;
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < C; ++n) {
        F acc = zero();
        for (int j = j0; j < j1; ++j) {
          if (s[r * kSegment + j] == -__builtin_inff()) continue;
          const float* at = v + (j - j0) * step + n * W;
          acc = fma(set1(p[r * kSegment + j]), tail ? load_partial(at, tail) : load(at), acc);
        }
        store(o + r * o_step + n * W, acc);
      }
  }

  const Args& x_;
  const Group& group_;
  const int64_t rows_;
  float *s_, *p_;  // [head][row][kSegment]
  Row row_[kFewHeads * kFewRows];
};

// Folds the segments of a group in order; o is kept in the first one's part.
inline void few_fold(const Args& x, const Group& group, int64_t rows) {
  const int64_t size = part_floats(x), wide = o_stride(x), all = group.heads * rows;
  for (int64_t i = 0; i < all; ++i) {
    float* out = x.row(group.b, group.h + i / rows, i % rows).out;
    if (group.segments() == 0) {
      std::memset(out, 0, sizeof(float) * static_cast<size_t>(x.value_width));
      continue;
    }
    const float* part = group.parts + i * size;
    float* o = group.parts + i * size + 2 * W;
    F big_m = neg_inf(), big_l = zero();
    for (int64_t n = 0; n < group.segments(); ++n, part += all * size) {
      F m = load(part), top = max_lax(big_m, m), u = shift_of(top);
      F a = exp_masked(sub(big_m, u)), b = exp_masked(sub(m, u));
      big_l = fma(big_l, a, mul(load(part + W), b));
      big_m = top;
      for (int64_t c = 0; c < wide; c += W) {
        F before = n ? load(o + c) : zero();
        store(o + c, add(fma(before, a, mul(load(part + 2 * W + c), b)), zero()));
      }
    }
    float l[W];
    store(l, big_l);
    finish_row(o, l[0], out, x.value_width);
  }
}

// Keys that some row of a group may see, by its limits and a bool mask.
inline void few_range(const Args& x, Group& group) {
  group.low = x.keys;
  group.high = 0;
  int64_t first = group.h * x.group();
  int64_t heads = x.mask_strides[1] ? group.heads * x.group() : 1;  // of different masks
  for (int64_t i = 0; i < heads * x.queries; ++i) {
    Row row = x.row_at(group.b, first + i % heads, i / heads);
    int64_t low = row.low, high = row.high;
    narrow(x, row, low, high);
    if (low >= high) continue;
    group.low = low < group.low ? low : group.low;
    group.high = high > group.high ? high : group.high;
  }
}

inline void few_rows(Pool& pool, const Args& x, int64_t rows) {
  const int64_t segments = ceil_div(x.keys, kSegment);
  const bool side_by_side = x.k_strides[1] == x.width && x.v_strides[1] == x.value_width;
  // heads together read whole rows of memory; one by one where threads would be idle otherwise
  const bool together = side_by_side && x.batch * segments >= pool.threads();
  const int64_t heads = together ? clamp64(x.kv_heads, kFewHeads) : 1;
  const int64_t per = ceil_div(x.kv_heads, heads), groups = x.batch * per;
  const int64_t size = segments * heads * rows * part_floats(x);
  int64_t at_once = clamp64(kParts / (size ? size : 1), groups);
  at_once = at_once ? at_once : 1;
  const int64_t table = ceil_div(at_once * static_cast<int64_t>(sizeof(Group)), 64) * 64;
  char* shared = static_cast<char*>(pool.shared(static_cast<size_t>(table + at_once * size * 4)));
  Group* all = reinterpret_cast<Group*>(shared);
  float* parts = reinterpret_cast<float*>(shared + table);
  for (int64_t done = 0; done < groups; done += at_once) {
    const int64_t n = at_once < groups - done ? at_once : groups - done;
    const int64_t items = ceil_div(2 * pool.threads(), n);  // of a group
    for (int64_t i = 0; i < n; ++i) {
      Group& g = *new (all + i) Group{};
      g.b = (done + i) / per;
      g.h = (done + i) % per * heads;
      g.heads = heads < x.kv_heads - g.h ? heads : x.kv_heads - g.h;
      g.parts = parts + i * size;
      g.left = static_cast<int>(items);
      few_range(x, g);
    }
    pool.parallel_for(n * items, [&](int64_t i, int thread) {
      Group& g = all[i % n];
      const int64_t item = i / n, first = item * g.segments() / items,
                    end = (item + 1) * g.segments() / items;
      if (first < end) {
        const size_t bytes = Few::floats() * sizeof(float);
        Few(x, g, rows, static_cast<float*>(pool.scratch(thread, bytes))).run(first, end);
      }
      if (g.left.fetch_sub(1, std::memory_order_acq_rel) == 1) few_fold(x, g, rows);
    });
  }
}

}  // namespace attn
}  // namespace ree::REE_ISA
