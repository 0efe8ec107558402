// Operands and parameters of one call, and where a query row lies in them.
#include <cstring>

namespace ree::REE_ISA {
namespace attn {

constexpr int kSegment = 128;  // keys of one segment; k of one contraction chain

enum MaskKind : int64_t { kNoMask = 0, kBoolMask = 1, kFloatMask = 2 };

inline int64_t clamp64(int64_t x, int64_t high) { return x < 0 ? 0 : x > high ? high : x; }

// One query row: its operands, and the keys [low, high) it may see, mask aside.
struct Row {
  const float* q;
  float* out;
  const char* mask;  // at key 0
  int32_t low, high;
};

struct Args {
  const float *q, *k, *v;
  const void* mask;
  float* o;
  int64_t batch, heads, kv_heads, queries, keys, d, dv;
  float scale;
  int64_t causal, q_offset, window, mask_kind;
  int64_t qs[3], ks[3], vs[3], ms[4], os[3];  // strides: (b, h, t); mask (b, h, q, k)

  int64_t group() const { return heads / kv_heads; }
  const float* keys_of(int64_t b, int64_t h) const { return k + b * ks[0] + h * ks[1]; }
  const float* values_of(int64_t b, int64_t h) const { return v + b * vs[0] + h * vs[1]; }

  // Row t * group + g of a kv head is position t of the g-th query head that reads it.
  Row row(int64_t b, int64_t kv_head, int64_t n) const {
    return row_at(b, kv_head * group() + n % group(), n / group());
  }
  Row row_at(int64_t b, int64_t head, int64_t t) const {
    Row r;
    int64_t position = t + q_offset, size = mask_kind == kBoolMask ? 1 : 4;
    r.q = q + b * qs[0] + head * qs[1] + t * qs[2];
    r.out = o + b * os[0] + head * os[1] + t * os[2];
    r.mask = (const char*)mask + size * (b * ms[0] + head * ms[1] + t * ms[2]);
    r.low = (int32_t)(window ? clamp64(position - window + 1, keys) : 0);
    r.high = (int32_t)(causal ? clamp64(position + 1, keys) : keys);
    return r;
  }

  // The mask of a row at a key: a bool as 0 or 1, or the float that is added.
  float mask_value(const char* row_mask, int64_t key) const {
    if (mask_kind == kBoolMask) return row_mask[key * ms[3]] ? 1.0f : 0.0f;
    float x;
    std::memcpy(&x, row_mask + 4 * key * ms[3], 4);
    return x;
  }
};

inline Args read_args(void* const* bufs, const int64_t* p) {
  Args a;
  a.q = (const float*)bufs[0];
  a.k = (const float*)bufs[1];
  a.v = (const float*)bufs[2];
  a.mask = bufs[3];
  a.o = (float*)bufs[4];
  for (int64_t* f : {&a.batch, &a.heads, &a.kv_heads, &a.queries, &a.keys, &a.d, &a.dv}) *f = *p++;
  a.scale = param_f32(*p++);
  for (int64_t* f : {&a.causal, &a.q_offset, &a.window, &a.mask_kind}) *f = *p++;
  for (int64_t* strides : {a.qs, a.ks, a.vs})
    for (int i = 0; i < 3; ++i) strides[i] = *p++;
  for (int i = 0; i < 4; ++i) a.ms[i] = *p++;
  for (int i = 0; i < 3; ++i) a.os[i] = *p++;
  return a;
}

// Floats of one row of running o: whole vectors.
inline int64_t o_stride(const Args& x) { return (x.dv + W - 1) / W * W; }

// out = o / l, +0 where no key was valid.
inline void finish_row(const float* o, float l, float* out, int64_t dv) {
  F nan = from_bits(set1i(0x7fc00000u)), divisor = set1(l);
  M empty = eq(divisor, zero());
  for (int64_t c = 0; c < dv; c += W) {
    F y = div(load(o + c), divisor);
    y = select(empty, zero(), select(ne(y, y), nan, y));
    store_partial(out + c, y, (int)clamp64(dv - c, W));
  }
}

}  // namespace attn
}  // namespace ree::REE_ISA
