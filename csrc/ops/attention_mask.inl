// Blocks of query rows, and their masks: read once per block and segment, transposed where rows
// differ, as the scores are.
#pragma once
#include "attention_args.inl"
#include "attention_tiles.inl"

namespace ree::REE_ISA {
namespace attn {

// Query rows of one block: packed queries and running state. Row arrays are kRows long.
struct Block {
  int rows;             // of kRows; the rest repeats the last one and is never stored
  int64_t first;        // row number of row 0
  float* qt;            // [d][kRows]
  float* o;             // [kRows][o_stride]
  float *m, *l;         // running maximum and denominator
  int32_t *low, *high;  // keys the row may see, mask aside; both ascend with the row
  Row row[kRows];
};

// Scratch of one segment.
struct Tile {
  float* s;      // [slot][kRows]: scores, then p
  float* again;  // scores once more, when V turns out not to be finite
  float* mask;   // [slot][kRows], where rows differ in their mask
  float *a, *b;  // [kRows]: factors of the fold
  float key_mask[kSegment];
  enum { kNone, kPerKey, kPerRow } mask_form;
  const float* v;  // packed, or V itself
  bool packed;
};

// Bool masks of W rows, transposed four keys at a time: row j / 4 of the tile holds byte j % 4.
inline void mask_words(const Block& k, Tile& t, int r, int64_t base, int j0, int j1, int64_t step) {
  for (int j = j0 & ~3; j < j1; j += 4 * W) {
    F words[W];
    int from = j > j0 ? j : j0, to = j + 4 * W < j1 ? j + 4 * W : j1;
    for (int i = 0; i < W; ++i) {
      const char* at = k.row[r + i].mask + base;
      if (step == 1 && to - from == 4 * W) {
        words[i] = load(reinterpret_cast<const float*>(at + j));
        continue;
      }
      alignas(64) uint8_t row[4 * W] = {};
      if (step == 1)
        std::memcpy(row + (from - j), at + from, static_cast<size_t>(to - from));
      else
        for (int n = from; n < to; ++n) row[n - j] = static_cast<uint8_t>(at[n * step]);
      words[i] = load(reinterpret_cast<const float*>(row));
    }
    transpose(words);
    for (int i = 0; i < W && j + 4 * i < j1; ++i) store(t.mask + (j / 4 + i) * kRows + r, words[i]);
  }
}

inline void mask_floats(const Block& k, Tile& t, int r, int64_t base, int j0, int j1,
                        int64_t step) {
  for (int j = j0; j < j1; j += W) {
    F values[W];
    int n = j1 - j < W ? j1 - j : W;
    for (int i = 0; i < W; ++i) {
      float row[W];
      const char* at = k.row[r + i].mask + base + j * step;
      if (step == 4)
        values[i] = load_partial(reinterpret_cast<const float*>(at), n);
      else {
        for (int e = 0; e < n; ++e) std::memcpy(row + e, at + e * step, 4);
        values[i] = load_partial(row, n);
      }
    }
    transpose(values);
    for (int i = 0; i < n; ++i) store(t.mask + (j + i) * kRows + r, values[i]);
  }
}

// Reads the mask of slots [j0, j1); narrows them where rows agree on which keys are valid.
inline void read_mask(const Args& x, const Block& k, Tile& t, int64_t base, int& j0, int& j1) {
  t.mask_form = Tile::kNone;
  if (x.mask_kind == kNoMask) return;
  bool is_bool = x.mask_kind == kBoolMask;
  int64_t size = is_bool ? 1 : 4, step = x.mask_strides[3] * size;
  bool same = x.mask_strides[2] == 0 && (x.mask_strides[1] == 0 || x.group() == 1);
  if (!same && x.mask_strides[3] == 1) {
    same = true;
    for (int r = 1; same && r < k.rows; ++r)
      same = !std::memcmp(k.row[0].mask + (base + j0) * step, k.row[r].mask + (base + j0) * step,
                          static_cast<size_t>((j1 - j0) * step));
  }
  if (!same) {
    t.mask_form = Tile::kPerRow;
    for (int r = 0; r < kRows; r += W) {
      if (is_bool)
        mask_words(k, t, r, base * step, j0, j1, step);
      else
        mask_floats(k, t, r, base * step, j0, j1, step);
    }
    return;
  }
  t.mask_form = Tile::kPerKey;
  for (int j = j0; j < j1; ++j) t.key_mask[j] = x.mask_value(k.row[0].mask, base + j);
  if (!is_bool) return;  // NaN + -inf is NaN: a float mask must be added
  while (j0 < j1 && t.key_mask[j0] == 0) ++j0;
  while (j0 < j1 && t.key_mask[j1 - 1] == 0) --j1;
  if (all_valid(x, k.row[0], base + j0, base + j1)) t.mask_form = Tile::kNone;
}

inline I byte_of(int key) {  // selects byte `key` of a word in memory order
  uint8_t bytes[4] = {};
  bytes[key] = 0xff;
  uint32_t word;
  std::memcpy(&word, bytes, 4);
  return set1i(word);
}

}  // namespace attn
}  // namespace ree::REE_ISA
