// Operands and parameters of one call, and where a query row lies in them.
#pragma once
#include <cstring>

#include "common.inl"

namespace ree::REE_ISA {
namespace attn {

// One query row: its operands, and the keys [low, high) it may see, mask aside.
struct Row {
  const float* q;
  float* out;
  const char* mask;  // at key 0
  int32_t low, high;
};

struct Args : abi::AttentionArgs {
  explicit Args(const abi::AttentionArgs& p) : abi::AttentionArgs(p) {}

  int64_t group() const { return heads / kv_heads; }
  const float* keys_of(int64_t b, int64_t h) const {
    return k + b * k_strides[0] + h * k_strides[1];
  }
  const float* values_of(int64_t b, int64_t h) const {
    return v + b * v_strides[0] + h * v_strides[1];
  }

  // Row t * group + g of a kv head is position t of the g-th query head that reads it.
  Row row(int64_t b, int64_t kv_head, int64_t n) const {
    return row_at(b, kv_head * group() + n % group(), n / group());
  }
  Row row_at(int64_t b, int64_t head, int64_t t) const {
    Row r;
    int64_t position = t + q_offset, size = mask_kind == kBoolMask ? 1 : 4;
    r.q = q + at(q_strides, b, head, t);
    r.out = o + at(o_strides, b, head, t);
    r.mask = static_cast<const char*>(mask) + size * at(mask_strides, b, head, t);
    r.low = static_cast<int32_t>(window ? clamp64(position - window + 1, keys) : 0);
    r.high = static_cast<int32_t>(causal ? clamp64(position + 1, keys) : keys);
    return r;
  }

  // The mask of a row at a key: a bool as 0 or 1, or the float that is added.
  float mask_value(const char* row_mask, int64_t key) const {
    if (mask_kind == kBoolMask) return row_mask[key * mask_strides[3]] ? 1.0f : 0.0f;
    float x;
    std::memcpy(&x, row_mask + 4 * key * mask_strides[3], 4);
    return x;
  }

 private:
  static int64_t at(const int64_t* strides, int64_t b, int64_t head, int64_t t) {
    return b * strides[0] + head * strides[1] + t * strides[2];
  }
};

// Narrows keys [low, high) of a row to those from the first to the last that its mask lets through,
// if that is a bool and its bytes lie side by side. NaN + -inf is NaN: a float mask must be added.
inline void narrow(const Args& x, const Row& row, int64_t& low, int64_t& high) {
  if (x.mask_kind != kBoolMask || x.mask_strides[3] != 1) return;
  auto eight = [&](int64_t key) {
    uint64_t word;
    std::memcpy(&word, row.mask + key, 8);
    return word;
  };
  while (low + 8 <= high && !eight(low)) low += 8;
  while (low < high && !row.mask[low]) ++low;
  while (low + 8 <= high && !eight(high - 8)) high -= 8;
  while (low < high && !row.mask[high - 1]) --high;
}

// Whether a bool mask lets a row see all of the keys [low, high); may say no where it does.
inline bool all_valid(const Args& x, const Row& row, int64_t low, int64_t high) {
  if (x.mask_kind != kBoolMask || x.mask_strides[3] != 1 || low >= high) return false;
  constexpr uint64_t ones = 0x0101010101010101u;
  for (; low + 8 <= high; low += 8) {
    uint64_t word;
    std::memcpy(&word, row.mask + low, 8);
    if ((word - ones) & ~word & ones << 7) return false;  // a byte is 0
  }
  for (; low < high; ++low)
    if (!row.mask[low]) return false;
  return true;
}

// Floats of one row of running o: whole vectors.
inline int64_t o_stride(const Args& x) { return ceil_div(x.value_width, W) * W; }

// out = o / l, +0 where no key was valid.
inline void finish_row(const float* o, float l, float* out, int64_t dv) {
  F divisor = set1(l);
  M empty = eq(divisor, zero());
  for (int64_t c = 0; c < dv; c += W) {
    F y = div(load(o + c), divisor);
    y = select(empty, zero(), canonical(y));
    store_partial(out + c, y, static_cast<int>(clamp64(dv - c, W)));
  }
}

}  // namespace attn
}  // namespace ree::REE_ISA
