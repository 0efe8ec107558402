// Attention in 128-key segments folded in order (docs/numerics.md, "Attention").
//
// A work item is a chunk of query rows of one (batch, kv head): row t * G + g is position t of the
// g-th query head that reads this kv head, so positions never fall along the rows. The chunk walks
// the segments in order and keeps M, l, o of each row; V is packed once per segment and chunk. Keys
// that no row of a block may see are skipped: their p is +0, which changes no sum and no chain, and
// an all-masked segment leaves the state as it was.
#pragma once
#include "attention_args.inl"
#include "attention_few.inl"
#include "attention_mask.inl"
#include "attention_tiles.inl"

namespace ree::REE_ISA {
namespace attn {

constexpr int kChunkBlocks = 5;  // blocks that share a packed segment of V

// One chunk: (batch b, kv head h), blocks of rows.
class Chunk {
 public:
  Chunk(const Args& args, int64_t b, int64_t h) : x_(args), b_(b), h_(h), group_(args.group()) {}

  static size_t floats(const Args& x, int64_t blocks) {
    int64_t wide = o_stride(x);
    int64_t block = x.width * kRows + wide * kRows + 4 * kRows;
    return static_cast<size_t>(blocks * block + (3 * (kSegment + kKeys) + 2) * kRows +
                               kSegment * wide);
  }

  void run(float* scratch, int64_t first_row, int64_t end_row) {
    Tile t;
    auto take = [&](int64_t n) {
      float* p = scratch;
      scratch += n;
      return p;
    };
    Block blocks[kChunkBlocks];
    int n = 0;
    int64_t low = x_.keys, high = 0;
    for (int64_t r = first_row; r < end_row; r += kRows) {
      Block& k = blocks[n++];
      k.first = r;
      k.rows = static_cast<int>(end_row - r < kRows ? end_row - r : kRows);
      k.qt = take(x_.width * kRows);
      k.o = take(o_stride(x_) * kRows);
      k.m = take(kRows);
      k.l = take(kRows);
      k.low = reinterpret_cast<int32_t*>(take(kRows));
      k.high = reinterpret_cast<int32_t*>(take(kRows));
      start(k);
      low = k.low[0] < low ? k.low[0] : low;
      high = k.high[kRows - 1] > high ? k.high[kRows - 1] : high;
    }
    t.s = take((kSegment + kKeys) * kRows);
    t.again = take((kSegment + kKeys) * kRows);
    t.mask = take((kSegment + kKeys) * kRows);
    t.a = take(kRows);
    t.b = take(kRows);
    float* pack = take(kSegment * o_stride(x_));
    for (int64_t base = low / kSegment * kSegment; base < high; base += kSegment) {
      t.v = nullptr;
      for (int i = 0; i < n; ++i) step(blocks[i], t, base, pack);
    }
    for (int i = 0; i < n; ++i) finish(blocks[i]);
  }

 private:
  void start(Block& k) const {
    int64_t t = k.first / group_, g = k.first % group_;
    for (int r = 0; r < kRows; ++r) {
      k.row[r] = x_.row_at(b_, h_ * group_ + g, t);
      k.low[r] = k.row[r].low;
      k.high[r] = k.row[r].high;
      k.m[r] = -__builtin_inff();
      k.l[r] = 0;
      if (r + 1 < k.rows && ++g == group_) {
        g = 0;
        ++t;
      }
    }
    for (int r = 0; r < kRows; r += W) pack_queries(k, r);
    std::memset(k.o, 0, sizeof(float) * static_cast<size_t>(kRows * o_stride(x_)));
  }

  void pack_queries(const Block& k, int r) const {
    for (int64_t d = 0; d < x_.width; d += W) {
      F t[W];
      int n = static_cast<int>(clamp64(x_.width - d, W));
      for (int i = 0; i < W; ++i) t[i] = load_partial(k.row[r + i].q + d, n);
      transpose(t);
      for (int i = 0; i < n; ++i) store(k.qt + (d + i) * kRows + r, t[i]);
    }
  }

  // The row vectors [first, end) of a block that may see some key of [key, last].
  struct Vectors {
    int first, end;
  };
  static Vectors vectors(const Block& k, int64_t key, int64_t last) {
    int first = 0, end = (k.rows + W - 1) / W;
    while (first < end && k.high[(first + 1) * W - 1] <= key) ++first;
    while (end > first && k.low[(end - 1) * W] > last) --end;
    return {first, end};
  }

  // Every row may see keys [key, end), mask aside.
  static bool inside(const Block& k, int64_t key, int64_t end) {
    return key >= k.low[kRows - 1] && end <= k.high[0];
  }

  // Masks the scores of `count` keys from slot j and takes their maximum into m.
  void mask_scores(const Block& k, const Tile& t, float* s, int64_t base, int j, int count,
                   Vectors vs, float* m) const {
    auto pass = [&](auto apply) {
      for (int v = vs.first; v < vs.end; ++v) {
        F top = load(m + v * W);
        for (int i = j; i < j + count; ++i) {
          float* at = s + i * kRows + v * W;
          F x = apply(load(at), i, v);
          store(at, x);
          top = max_lax(top, x);
        }
        store(m + v * W, top);
      }
    };
    auto with_limits = [&](auto apply) {
      if (inside(k, base + j, base + j + count)) return pass(apply);
      pass([&](F x, int i, int v) {
        I key = set1i(static_cast<uint32_t>(base + i));
        I low = load_ints(k.low + v * W), high = load_ints(k.high + v * W);
        return select(and_m(lei(low, key), lti(key, high)), apply(x, i, v), neg_inf());
      });
    };
    bool is_float = x_.mask_kind == kFloatMask;
    if (t.mask_form == Tile::kNone) {
      with_limits([](F x, int, int) { return x; });
    } else if (t.mask_form == Tile::kPerKey && is_float) {
      with_limits([&](F x, int i, int) { return add(x, set1(t.key_mask[i])); });
    } else if (t.mask_form == Tile::kPerKey) {
      with_limits([&](F x, int i, int) { return t.key_mask[i] == 0 ? neg_inf() : x; });
    } else if (is_float) {
      with_limits([&](F x, int i, int v) { return add(x, load(t.mask + i * kRows + v * W)); });
    } else {
      const I byte[4] = {byte_of(0), byte_of(1), byte_of(2), byte_of(3)};
      with_limits([&](F x, int i, int v) {
        I word = bits(load(t.mask + i / 4 * kRows + v * W));
        return select(eqi(andi(word, byte[i % 4]), set1i(0)), neg_inf(), x);
      });
    }
  }
  static I load_ints(const int32_t* p) { return bits(load(reinterpret_cast<const float*>(p))); }

  // Scores of slots [j0, j1), -inf where invalid, and their maximum per row.
  void scores(const Block& k, const Tile& t, float* s, int64_t base, int j0, int j1,
              float* m) const {
    for (int r = 0; r < kRows; r += W) store(m + r, neg_inf());
    const float* keys = x_.keys_of(b_, h_);
    for (int j = j0; j < j1; j += kKeys) {
      int count = j1 - j < kKeys ? j1 - j : kKeys;
      Vectors vs = vectors(k, base + j, base + j + count - 1);
      if (vs.first == vs.end) continue;
      const float* rows[kKeys];
      for (int i = 0; i < kKeys; ++i)
        rows[i] = keys + (base + j + (i < count ? i : count - 1)) * x_.k_strides[2];
      score_tile_for(vs.end - vs.first)(k.qt + vs.first * W, rows, x_.width, x_.scale,
                                        s + j * kRows + vs.first * W);
      if (t.mask_form != Tile::kNone || !inside(k, base + j, base + j + count)) {
        mask_scores(k, t, s, base, j, count, vs, m);
      } else {
        for (int v = vs.first; v < vs.end; ++v) {
          F top = load(m + v * W);
          for (int i = j; i < j + count; ++i) top = max_lax(top, load(s + i * kRows + v * W));
          store(m + v * W, top);
        }
      }
    }
  }

  // p = exp(s - u) in place, +0 in every other slot.
  void exponentials(const Block& k, const Tile& t, int64_t base, int j0, int j1,
                    const float* m) const {
    F u[kVecs];
    for (int v = 0; v < kVecs; ++v) u[v] = shift_of(load(m + v * W));
    auto clear = [&](int from, int to) {
      if (from < to)
        std::memset(t.s + from * kRows, 0, sizeof(float) * kRows * static_cast<size_t>(to - from));
    };
    clear(0, j0);
    clear(j1, kSegment);
    for (int j = j0; j < j1; j += kKeys) {
      int end = j + kKeys < j1 ? j + kKeys : j1;
      Vectors vs = vectors(k, base + j, base + end - 1);
      bool masked = t.mask_form != Tile::kNone || !inside(k, base + j, base + end);
      if (vs.end - vs.first < kVecs) clear_outside(j, end, vs, t.s);
      for (int i = j; i < end; ++i) {
        float* at = t.s + i * kRows;
        bool invalid =
            t.mask_form == Tile::kPerKey && x_.mask_kind == kBoolMask && t.key_mask[i] == 0;
        for (int v = vs.first; v < vs.end; ++v) {
          if (invalid) {
            store(at + v * W, zero());
            continue;
          }
          F x = sub(load(at + v * W), u[v]);
          store(at + v * W, masked ? exp_masked(x) : exp_(x));
        }
      }
    }
  }
  static void clear_outside(int j, int end, Vectors vs, float* s) {
    for (; j < end; ++j)
      for (int v = 0; v < kVecs; ++v)
        if (v < vs.first || v >= vs.end) store(s + j * kRows + v * W, zero());
  }

  // V of one segment: packed in column panels [panel][slot][kPanelWidth], zero beyond dv; read in
  // place where few rows would not repay the packing.
  void read_values(Tile& t, int64_t base, float* pack) const {
    const float* v = x_.values_of(b_, h_) + base * x_.v_strides[2];
    if (x_.queries * group_ <= kValueRows && x_.value_width % W == 0) {
      t.v = v;
      t.packed = false;
      return;
    }
    t.v = pack;
    t.packed = true;
    int n = static_cast<int>(x_.keys - base < kSegment ? x_.keys - base : kSegment);
    for (int64_t c = 0; c < x_.value_width; c += kPanelWidth) {
      int64_t width = o_stride(x_) - c < kPanelWidth ? o_stride(x_) - c : kPanelWidth;
      for (int j = 0; j < n; ++j)
        for (int64_t w = 0; w < width; w += W, pack += W)
          store(pack, load_partial(v + j * x_.v_strides[2] + c + w,
                                   static_cast<int>(clamp64(x_.value_width - c - w, W))));
      pack += (kSegment - n) * width;
    }
  }

  void step(Block& k, Tile& t, int64_t base, float* pack) const {
    int64_t low = k.low[0] - base, high = k.high[kRows - 1] - base;
    int j0 = static_cast<int>(clamp64(low, kSegment)),
        j1 = static_cast<int>(clamp64(high, kSegment));
    if (j0 < j1) read_mask(x_, k, t, base, j0, j1);
    if (j0 >= j1) return;
    float m[kRows];
    scores(k, t, t.s, base, j0, j1, m);
    exponentials(k, t, base, j0, j1, m);
    for (int v = 0; v < kRows; v += W) {
      F before = load(k.m + v), now = load(m + v);
      F top = max_lax(before, now), u = shift_of(top);
      F a = exp_masked(sub(before, u)), b = exp_masked(sub(now, u));
      store(k.m + v, top);
      store(k.l + v, fma(load(k.l + v), a, mul(slot_sum(t.s + v), b)));
      store(t.a + v, a);
      store(t.b + v, b);
    }
    if (!t.v) read_values(t, base, pack);
    values(k, t, base, j0, j1);
  }

  void values(Block& k, const Tile& t, int64_t base, int j0, int j1) const {
    bool have_again = false;
    for (int64_t c = 0; c < x_.value_width; c += kPanelWidth) {
      int vecs =
          o_stride(x_) - c < kPanelWidth ? static_cast<int>((o_stride(x_) - c) / W) : kValueVecs;
      const float* v = t.packed ? t.v + c * kSegment : t.v + c;
      int64_t stride = t.packed ? vecs * W : x_.v_strides[2];
      for (int r = 0; r < k.rows; r += kValueRows) {
        int rows = k.rows - r < kValueRows ? k.rows - r : kValueRows;
        int from = static_cast<int>(clamp64(k.low[r] - base, kSegment)), to;
        from = from > j0 ? from : j0;
        to = static_cast<int>(clamp64(k.high[r + rows - 1] - base, kSegment));
        to = to < j1 ? to : j1;
        if (from >= to) continue;
        float* o = k.o + r * o_stride(x_) + c;
        const float* p = t.s + from * kRows + r;
        if (v_tile(rows, vecs)(p, to - from, v + from * stride, stride, o, o_stride(x_), t.a + r,
                               t.b + r))
          continue;
        if (!have_again) {
          float m[kRows];
          for (int i = 0; i < kSegment * kRows; i += W) store(t.again + i, neg_inf());
          scores(k, t, t.again, base, j0, j1, m);
          have_again = true;
        }
        value_tile_checked(rows, vecs, p, t.again + from * kRows + r, to - from, v + from * stride,
                           stride, o, o_stride(x_), t.a + r, t.b + r);
      }
    }
  }
  static ValueTile v_tile(int rows, int vecs) {
    return vecs == 1 ? value_tile_for<kValueRows, 1>(rows)
                     : value_tile_for<kValueRows, kValueVecs>(rows);
  }

  void finish(const Block& k) const {
    for (int r = 0; r < k.rows; ++r)
      finish_row(k.o + r * o_stride(x_), k.l[r], k.row[r].out, x_.value_width);
  }

  const Args& x_;
  int64_t b_, h_, group_;
};

}  // namespace attn

// Strides are over (batch, head, position), those of the mask over (batch, head, query, key); rows
// are contiguous. window 0: none; mask_kind: kNoMask, kBoolMask or kFloatMask.
static void attention(Pool& pool, const abi::AttentionArgs& p) {
  using namespace attn;
  const Args x(p);
  if (x.batch * x.heads * x.queries == 0) return;
  int64_t rows = x.queries * x.group(), heads = x.batch * x.kv_heads;
  int64_t blocks = ceil_div(rows, kRows), per = blocks < kChunkBlocks ? blocks : kChunkBlocks;
  while (per > 1 && heads * ceil_div(blocks, per) < 4 * pool.threads()) --per;
  int64_t chunks = per ? ceil_div(blocks, per) : 0;
  if (rows <= kFewRows) return few_rows(pool, x, rows);
  pool.parallel_for(heads * chunks, [&](int64_t i, int thread) {
    int64_t h = i % heads, c = chunks - 1 - i / heads;  // causal: the longest chunks first
    int64_t first = c * per * kRows, end = first + per * kRows;
    float* scratch =
        static_cast<float*>(pool.scratch(thread, Chunk::floats(x, per) * sizeof(float)));
    Chunk(x, h / x.kv_heads, h % x.kv_heads).run(scratch, first, end < rows ? end : rows);
  });
}

}  // namespace ree::REE_ISA
