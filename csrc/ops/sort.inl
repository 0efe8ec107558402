// Sorting of the middle axis of [outer, n, inner]: elements and where they came from.
#pragma once
#include <algorithm>
#include <utility>

#include "common.inl"

namespace ree::REE_ISA {
namespace sorting {

constexpr int64_t kGrain = 8192;  // elements that are worth a work item
constexpr int64_t kRadix = 12;  // rows of so many elements per byte of the key are sorted by bytes

// Unsigned integers in the contract's order: NaN greatest, -0 equal to +0.
inline uint32_t order_key(float v) {
  const uint32_t u = bits_of(v);
  const uint32_t size = u & 0x7fffffffu;
  if (size > 0x7f800000u) return 0xffffffffu;
  if (size == 0) return 0x80000000u;
  return u >> 31 ? ~u : u | 0x80000000u;
}
inline uint64_t order_key(int64_t v) { return static_cast<uint64_t>(v) ^ (1ull << 63); }

// An element of a row: its key, then its index, so that no two are equal. Rows have fewer than
// 2^32.
struct Narrow {
  using Key = uint32_t;
  uint64_t word;
  static Narrow make(uint32_t key, int64_t i) {
    return {static_cast<uint64_t>(key) << 32 | static_cast<uint64_t>(i)};
  }
  Key key() const { return static_cast<Key>(word >> 32); }
  int64_t index() const { return static_cast<int64_t>(word & 0xffffffffu); }
  bool operator<(const Narrow& o) const { return word < o.word; }
};
struct Wide {
  using Key = uint64_t;
  uint64_t k;
  int64_t i;
  static Wide make(uint64_t key, int64_t i) { return {key, i}; }
  Key key() const { return k; }
  int64_t index() const { return i; }
  bool operator<(const Wide& o) const { return k != o.k ? k < o.k : i < o.i; }
};

// a, in order of index, sorted by key with b as room; the result is in what is returned. Each pass
// keeps the order of the one before; a digit that all share needs no pass.
template <class Item>
Item* radix_sort(Item* a, Item* b, int64_t n) {
  constexpr int kDigits = sizeof(typename Item::Key);
  uint32_t count[kDigits][256] = {};
  for (int64_t i = 0; i < n; ++i)
    for (int d = 0; d < kDigits; ++d) ++count[d][a[i].key() >> (8 * d) & 255];
  for (int d = 0; d < kDigits; ++d) {
    uint32_t* c = count[d];
    if (c[a[0].key() >> (8 * d) & 255] == n) continue;
    uint32_t at = 0;
    for (int v = 0; v < 256; ++v) {
      uint32_t here = c[v];
      c[v] = at;
      at += here;
    }
    for (int64_t i = 0; i < n; ++i) b[c[a[i].key() >> (8 * d) & 255]++] = a[i];
    std::swap(a, b);
  }
  return a;
}

template <class Item, class Args>
void sort_axis(Pool& pool, const Args& p) {
  const auto* x = p.x;
  auto* y = p.y;
  int64_t* where = p.indices;
  const int64_t n = p.n, inner = p.inner, rows = n ? p.outer * inner : 0;
  using Key = typename Item::Key;
  const Key flip = p.descending ? static_cast<Key>(~Key{0}) : 0;  // the order of complements
  int64_t batch = std::max<int64_t>(1, kGrain / std::max<int64_t>(n, 1));
  pool.parallel_for(ceil_div(rows, batch), [&](int64_t item, int thread) {
    Item* a = static_cast<Item*>(pool.scratch(thread, static_cast<size_t>(2 * n) * sizeof(Item)));
    for (int64_t r = item * batch; r < std::min(rows, (item + 1) * batch); ++r) {
      int64_t base = r / inner * n * inner + r % inner;
      for (int64_t i = 0; i < n; ++i)
        a[i] = Item::make(static_cast<Key>(order_key(x[base + i * inner]) ^ flip), i);
      Item* s = a;
      if (n >= kRadix * static_cast<int64_t>(sizeof(Key)))
        s = radix_sort(a, a + n, n);
      else
        std::sort(a, a + n);
      for (int64_t i = 0; i < n; ++i) {
        int64_t from = s[i].index();
        y[base + i * inner] = x[base + from * inner];
        where[base + i * inner] = from;
      }
    }
  });
}

}  // namespace sorting

// All contiguous.
static void sort_f32(Pool& pool, const abi::SortF32Args& p) {
  sorting::sort_axis<sorting::Narrow>(pool, p);
}
static void sort_i64(Pool& pool, const abi::SortI64Args& p) {
  sorting::sort_axis<sorting::Wide>(pool, p);
}

}  // namespace ree::REE_ISA
