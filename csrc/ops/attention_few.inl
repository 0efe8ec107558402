// Attention for a few query rows (decoding): there the keys lie along the vector lanes, since one
// row cannot fill them. K is transposed in registers; scores are [row][slot]. Same rule, same bits.
#pragma once
#include "attention_args.inl"
#include "attention_tiles.inl"

namespace ree::REE_ISA {
namespace attn {

constexpr int kFewRows = 4;

// A float as it comes out of a vector that holds it in every lane.
inline float first_lane(F x) {
  float lanes[W];
  store(lanes, x);
  return lanes[0];
}

// Scores of 2W keys for R rows, as score_tile. keys: their rows; s: [row][kSegment].
template <int R>
void few_scores(const float* const* q, const float* const* keys, int64_t d_size, float scale,
                float* s) {
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
        for (int i = 0; i < W; ++i) t[i] = load(keys[g * W + i] + d);
        transpose(t);
#pragma GCC unroll 16
        for (int i = 0; i < W; ++i)
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) acc[r][g] = fma(set1(q[r][d + i]), t[i], acc[r][g]);
      }
    for (int g = 0; d < d1 && g < 2; ++g) {
      F t[W];
      for (int i = 0; i < W; ++i)
        t[i] = load_partial(keys[g * W + i] + d, static_cast<int>(d1 - d));
      transpose(t);
      for (int i = 0; i < static_cast<int>(d1 - d); ++i)
        for (int r = 0; r < R; ++r) acc[r][g] = fma(set1(q[r][d + i]), t[i], acc[r][g]);
    }
    for (int r = 0; r < R; ++r)
      for (int g = 0; g < 2; ++g) total[r][g] = add(total[r][g], acc[r][g]);
  }
  for (int r = 0; r < R; ++r)
    for (int g = 0; g < 2; ++g) store(s + r * kSegment + g * W, mul(total[r][g], set1(scale)));
}

// As value_tile, for p: [row][kSegment]; the last vector of columns may be partial (tail > 0).
template <int R, int C>
bool few_values(const float* p, int n, const float* v, int64_t v_stride, int tail, float* o,
                int64_t o_stride, const float* a, const float* b) {
  F acc[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) acc[r][c] = zero();
  for (int j = 0; j < n; ++j, v += v_stride)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      F x = tail ? load_partial(v + c * W, tail) : load(v + c * W);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[r][c] = fma(set1(p[r * kSegment + j]), x, acc[r][c]);
    }
  F check = zero();
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) check = fma(acc[r][c], zero(), check);
  if (any(ne(check, check))) return false;
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) fold(o + r * o_stride + c * W, acc[r][c], a[r], b[r]);
  return true;
}

// Up to kFewRows rows of one (batch, kv head), from row `first`. scratch: few_floats() long.
template <int R>
class Few {
 public:
  Few(const Args& args, int64_t b, int64_t h, int64_t first, float* scratch)
      : x_(args), k_(args.keys_of(b, h)), v_(args.values_of(b, h)) {
    s_ = scratch;
    p_ = s_ + R * kSegment;
    o_ = p_ + R * kSegment;
    std::memset(o_, 0, sizeof(float) * static_cast<size_t>(R * o_stride(x_)));
    for (int r = 0; r < R; ++r) {
      row_[r] = args.row(b, h, first + r);
      q_[r] = row_[r].q;
      m_[r] = -__builtin_inff();
      l_[r] = 0;
    }
  }

  void run() {
    // both limits ascend with the row
    int64_t low = row_[0].low, high = row_[R - 1].high;
    for (int64_t base = low / kSegment * kSegment; base < high; base += kSegment)
      step(base, static_cast<int>(clamp64(low - base, kSegment)),
           static_cast<int>(clamp64(high - base, kSegment)));
    for (int r = 0; r < R; ++r)
      finish_row(o_ + r * o_stride(x_), l_[r], row_[r].out, x_.value_width);
  }

 private:
  void step(int64_t base, int j0, int j1) {
    for (int j = j0 & ~(2 * W - 1); j < j1; j += 2 * W) {
      const float* keys[2 * W];
      for (int i = 0; i < 2 * W; ++i)
        keys[i] = k_ + clamp64(base + j + i, x_.keys - 1) * x_.k_strides[2];
      few_scores<R>(q_, keys, x_.width, x_.scale, s_ + j);
    }
    float a[R], b[R];
    for (int r = 0; r < R; ++r) softmax(r, base, a[r], b[r]);
    constexpr int kWide = R == 1 ? 4 : 2;
    int64_t c = 0;
    for (; c + kWide * W <= x_.value_width; c += kWide * W) values<kWide>(base, j0, j1, c, 0, a, b);
    for (; c + W <= x_.value_width; c += W) values<1>(base, j0, j1, c, 0, a, b);
    if (c < x_.value_width) values<1>(base, j0, j1, c, static_cast<int>(x_.value_width - c), a, b);
  }

  // Masks row r's scores, makes p of them, advances M and l.
  void softmax(int r, int64_t base, float& a, float& b) {
    float* s = s_ + r * kSegment;
    float* p = p_ + r * kSegment;
    const Row& row = row_[r];
    int from = static_cast<int>(clamp64(row.low - base, kSegment)),
        to = static_cast<int>(clamp64(row.high - base, kSegment));
    float mask[kSegment];
    if (x_.mask_kind != kNoMask)
      for (int j = from; j < to; ++j) mask[j] = x_.mask_value(row.mask, base + j);
    alignas(64) static const uint32_t lane[16] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                  8, 9, 10, 11, 12, 13, 14, 15};
    F top = neg_inf();
    for (int j = 0; j < kSegment; j += W) {
      F x = neg_inf();
      if (j < to && j + W > from) {
        x = load(s + j);
        if (x_.mask_kind == kBoolMask) x = select(eq(load(mask + j), zero()), neg_inf(), x);
        if (x_.mask_kind == kFloatMask) x = add(x, load(mask + j));
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
    for (int i = 0; i < 64 / W; ++i) sum[i] = add(load(p + i * W), load(p + 64 + i * W));
    for (int n = 32 / W; n > 0; n /= 2)
      for (int i = 0; i < n; ++i) sum[i] = add(sum[i], sum[i + n]);
    store(lanes, sum[0]);
    for (int n = W / 2; n > 0; n /= 2)
      for (int i = 0; i < n; ++i) lanes[i] += lanes[i + n];
    F before = set1(m_[r]), now = set1(m), next = max_lax(before, now), shift = shift_of(next);
    F va = exp_masked(sub(before, shift)), vb = exp_masked(sub(now, shift));
    l_[r] = first_lane(fma(set1(l_[r]), va, mul(set1(lanes[0]), vb)));
    m_[r] = first_lane(next);
    a = first_lane(va);
    b = first_lane(vb);
  }

  template <int C>
  void values(int64_t base, int j0, int j1, int64_t c, int tail, const float* a, const float* b) {
    const float* v = v_ + (base + j0) * x_.v_strides[2] + c;
    float* o = o_ + c;
    if (few_values<R, C>(p_ + j0, j1 - j0, v, x_.v_strides[2], tail, o, o_stride(x_), a, b)) return;
    for (int r = 0; r < R; ++r)
      for (int i = 0; i < C; ++i) {
        F acc = zero();
        for (int j = j0; j < j1; ++j) {
          if (s_[r * kSegment + j] == -__builtin_inff()) continue;
          const float* at = v + (j - j0) * x_.v_strides[2] + i * W;
          acc = fma(set1(p_[r * kSegment + j]), tail ? load_partial(at, tail) : load(at), acc);
        }
        fold(o + r * o_stride(x_) + i * W, acc, a[r], b[r]);
      }
  }

  const Args& x_;
  const float *k_, *v_;
  Row row_[R];
  const float* q_[R];
  float *s_, *p_, *o_;
  float m_[R], l_[R];
};

inline size_t few_floats(const Args& x) {
  return static_cast<size_t>(kFewRows * (2 * kSegment + o_stride(x)));
}

inline void few_rows(const Args& x, int64_t b, int64_t h, int64_t first, int64_t rows,
                     float* scratch) {
  switch (rows) {
    case 1: return Few<1>(x, b, h, first, scratch).run();
    case 2: return Few<2>(x, b, h, first, scratch).run();
    case 3: return Few<3>(x, b, h, first, scratch).run();
    case 4: return Few<4>(x, b, h, first, scratch).run();
  }
}

}  // namespace attn
}  // namespace ree::REE_ISA
