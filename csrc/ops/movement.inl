// Data movement: bits are copied, never interpreted (canonical_copy alone rewrites NaN).
// Strides and offsets are in elements; buffers of one call never overlap, except in canonical_copy.
#pragma once
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <type_traits>

#include "common.inl"

namespace ree::REE_ISA {
namespace move {

constexpr int64_t kGrain = 16384;   // elements that are worth a work item
constexpr int64_t kTile = 32;       // side of a transposed tile
constexpr int64_t kFewRepeats = 8;  // of an element, that are not worth a row of their own

// Calls fn(begin, end) over [0, n) in pieces of `grain`, in parallel.
template <class Fn>
void pieces(Pool& pool, int64_t n, int64_t grain, Fn&& fn) {
  if (grain < 1) grain = 1;
  pool.parallel_for(ceil_div(n, grain),
                    [&](int64_t i, int) { fn(i * grain, std::min<int64_t>(n, (i + 1) * grain)); });
}

struct Layout {
  int n = 0;
  int64_t extent[kMaxRank], x[kMaxRank], y[kMaxRank];
  void swap(int a, int b) {
    for (int64_t* v : {extent, x, y}) {
      int64_t t = v[a];
      v[a] = v[b];
      v[b] = t;
    }
  }
};

// A position in the outer dims of a layout, walked in row-major order.
struct Odometer {
  const Layout& l;
  int n;
  int64_t digit[kMaxRank];
  int64_t x = 0, y = 0;
  Odometer(const Layout& layout, int dims, int64_t at) : l(layout), n(dims) {
    for (int i = n - 1; i >= 0; --i) {
      digit[i] = at % l.extent[i];
      at /= l.extent[i];
      x += digit[i] * l.x[i];
      y += digit[i] * l.y[i];
    }
  }
  void next() {
    for (int i = n - 1; i >= 0; --i) {
      x += l.x[i];
      y += l.y[i];
      if (++digit[i] < l.extent[i]) return;
      x -= digit[i] * l.x[i];
      y -= digit[i] * l.y[i];
      digit[i] = 0;
    }
  }
};

// Drops extents of 1 and merges neighbours that lie contiguously in both tensors.
inline Layout simplify(int ndim, const int64_t* extent, const int64_t* x, const int64_t* y) {
  Layout l;
  for (int i = 0; i < ndim; ++i) {
    if (extent[i] == 1) continue;
    int p = l.n - 1;
    if (p >= 0 && l.x[p] == x[i] * extent[i] && l.y[p] == y[i] * extent[i]) {
      l.extent[p] *= extent[i];
      l.x[p] = x[i];
      l.y[p] = y[i];
    } else {
      l.extent[l.n] = extent[i];
      l.x[l.n] = x[i];
      l.y[l.n++] = y[i];
    }
  }
  return l;
}

// The dimension, among the first n, with the smallest nonzero stride; -1 if there is none.
inline int innermost(const int64_t* stride, int n) {
  int best = -1;
  for (int i = 0; i < n; ++i) {
    if (stride[i] == 0) continue;
    int64_t s = stride[i] < 0 ? -stride[i] : stride[i];
    if (best < 0 || s < (stride[best] < 0 ? -stride[best] : stride[best])) best = i;
  }
  return best;
}

template <class T>
void copy_row(const T* x, T* y, int64_t n, int64_t sx, int64_t sy) {
  if (sx == 1 && sy == 1) {
    std::memcpy(y, x, static_cast<size_t>(n) * sizeof(T));
  } else if (sx == 0 && sy == 1) {
    const T v = *x;
    for (int64_t i = 0; i < n; ++i) y[i] = v;
  } else if (sy == 1) {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i * sx];
  } else {
    for (int64_t i = 0; i < n; ++i) y[i * sy] = x[i * sx];
  }
}

// Both sides move whole cache lines; the transposition happens in a small buffer whose odd row
// length keeps its columns in different cache sets.
template <class T>
void copy_tile(const T* x, T* y, int64_t rows, int64_t cols, int64_t x_row, int64_t x_col,
               int64_t y_row, int64_t y_col) {
  T buffer[kTile][kTile + 1];
  for (int64_t r = 0; r < rows; ++r) copy_row(x + r * x_row, buffer[r], cols, x_col, 1);
  for (int64_t c = 0; c < cols; ++c)
    for (int64_t r = 0; r < rows; ++r) y[r * y_row + c * y_col] = buffer[r][c];
}

// Short rows: the trailing dims that fill a block of y, through a table of where they lie in x.
constexpr int64_t kShortRow = 16, kBlock = 1024;

inline bool copy_blocks(Pool& pool, const uint32_t* x, uint32_t* y, Layout l) {
  if (l.extent[l.n - 1] >= kShortRow) return false;
  int first = l.n;
  int64_t block = 1, low = 0, high = 0;  // extremes of the offsets
  while (first > 0 && l.y[first - 1] == block && block < kBlock / 2) {
    int64_t most = std::min<int64_t>(kBlock / block, l.extent[first - 1]);
    while (l.extent[first - 1] % most) --most;
    if (most == 1) break;
    if (most < l.extent[first - 1]) {  // a part of a dim: cut it in two
      if (l.n == kMaxRank) break;
      for (int i = l.n; i >= first; --i) {
        l.extent[i] = l.extent[i - 1], l.x[i] = l.x[i - 1], l.y[i] = l.y[i - 1];
      }
      ++l.n;
      l.extent[first] = most;
      l.extent[first - 1] /= most;
      l.x[first - 1] *= most;
      l.y[first - 1] *= most;
      ++first;
    }
    --first;
    block *= l.extent[first];
    (l.x[first] < 0 ? low : high) += (l.extent[first] - 1) * l.x[first];
  }
  if (block < 2 * kShortRow || high - low > INT32_MAX / 4) return false;
  Layout inner;
  inner.n = l.n - first;
  for (int i = 0; i < inner.n; ++i) {
    inner.extent[i] = l.extent[first + i];
    inner.x[i] = l.x[first + i];
    inner.y[i] = l.y[first + i];
  }
  alignas(64) uint32_t table[kBlock + W] = {};
  Odometer o(inner, inner.n, 0);
  for (int64_t i = 0; i < block; ++i, o.next()) table[i] = static_cast<uint32_t>(o.x - low);
  int64_t outer = 1;
  for (int i = 0; i < first; ++i) outer *= l.extent[i];
  pieces(pool, outer, kGrain / block, [&](int64_t begin, int64_t end) {
    Odometer at(l, first, begin);
    for (int64_t i = begin; i < end; ++i, at.next()) {
      const uint32_t* from = x + at.x + low;
      uint32_t* to = y + at.y;
      int64_t j = 0;
      for (; j + W <= block; j += W)
        store(reinterpret_cast<float*>(to) + j,
              from_bits(lookup(from, bits(load(reinterpret_cast<const float*>(table) + j)))));
      for (; j < block; ++j) to[j] = from[table[j]];
    }
  });
  return true;
}

template <class T>
void copy_typed(Pool& pool, const T* x, T* y, Layout l) {
  if (l.n == 0) {
    *y = *x;
    return;
  }
  if constexpr (sizeof(T) == 4) {
    if (copy_blocks(pool, reinterpret_cast<const uint32_t*>(x), reinterpret_cast<uint32_t*>(y), l))
      return;
  }
  int inner_y = innermost(l.y, l.n);
  if (inner_y < 0) inner_y = l.n - 1;
  if (l.x[inner_y] == 0 && l.extent[inner_y] <= kFewRepeats) {  // rows of another axis, repeated
    int best = -1;
    for (int i = 0; i < l.n; ++i)
      if (l.extent[i] > kFewRepeats && l.y[i] > 0 && (best < 0 || l.y[i] < l.y[best])) best = i;
    if (best >= 0) inner_y = best;
  }
  int inner_x = innermost(l.x, l.n);
  bool transposed = inner_x >= 0 && inner_x != inner_y && l.x[inner_y] != 0;
  l.swap(inner_y, l.n - 1);
  if (inner_x == l.n - 1) inner_x = inner_y;  // where the swap has put it
  if (transposed) l.swap(inner_x, l.n - 2);
  int outer_dims = l.n - (transposed ? 2 : 1);
  int64_t outer = 1;
  for (int i = 0; i < outer_dims; ++i) outer *= l.extent[i];
  int64_t n = l.extent[l.n - 1], sx = l.x[l.n - 1], sy = l.y[l.n - 1];
  if (!transposed) {
    int64_t chunk = std::min<int64_t>(n, kGrain), chunks = ceil_div(n, chunk);
    pieces(pool, outer * chunks, kGrain / chunk, [&](int64_t begin, int64_t end) {
      Odometer at(l, outer_dims, begin / chunks);
      for (int64_t i = begin; i < end; ++i) {
        int64_t c = i % chunks * chunk;
        copy_row(x + at.x + c * sx, y + at.y + c * sy, std::min<int64_t>(chunk, n - c), sx, sy);
        if (i % chunks == chunks - 1) at.next();
      }
    });
    return;
  }
  int64_t m = l.extent[l.n - 2], mx = l.x[l.n - 2], my = l.y[l.n - 2];
  int64_t strips = ceil_div(n, kTile);
  pieces(pool, outer * strips, kGrain / (kTile * m), [&](int64_t begin, int64_t end) {
    Odometer at(l, outer_dims, begin / strips);
    for (int64_t i = begin; i < end; ++i) {
      int64_t r = i % strips * kTile;
      for (int64_t c = 0; c < m; c += kTile)
        copy_tile(x + at.x + r * sx + c * mx, y + at.y + r * sy + c * my,
                  std::min<int64_t>(kTile, n - r), std::min<int64_t>(kTile, m - c), sx, mx, sy, my);
      if (i % strips == strips - 1) at.next();
    }
  });
}

// The element type of a size travels as a null pointer.
template <class Fn>
void by_size(int64_t elem_size, Fn&& fn) {
  switch (elem_size) {
    case 1: return fn(static_cast<uint8_t*>(nullptr));
    case 2: return fn(static_cast<uint16_t*>(nullptr));
    case 4: return fn(static_cast<uint32_t*>(nullptr));
    case 8: return fn(static_cast<uint64_t*>(nullptr));
  }
  throw std::invalid_argument("element size is not 1, 2, 4 or 8");
}

[[noreturn]] inline void bad_index(int64_t value, int64_t position, int64_t low, int64_t high) {
  char text[128];
  std::snprintf(text, sizeof text, "index %lld at position %lld is not in [%lld, %lld)",
                static_cast<long long>(value), static_cast<long long>(position),
                static_cast<long long>(low), static_cast<long long>(high));
  throw std::out_of_range(text);
}

}  // namespace move

// y[i] = x[i].
static void strided_copy(Pool& pool, const abi::StridedCopyArgs& p) {
  if (p.rank > kMaxRank) throw std::invalid_argument("strided_copy: bad rank");
  for (int64_t i = 0; i < p.rank; ++i)
    if (p.extents[i] <= 0) return;
  move::Layout l = move::simplify(static_cast<int>(p.rank), p.extents, p.x_strides, p.y_strides);
  move::by_size(p.element_bytes, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    move::copy_typed(pool, static_cast<const T*>(p.x), static_cast<T*>(p.y), l);
  });
}

// y[i, :] = table[index[i], :]. An index outside [0, table_rows) throws std::out_of_range. panel:
// rows that lie side by side in the table, [table_rows / panel][row_elements][panel].
static void gather_rows(Pool& pool, const abi::GatherRowsArgs& p) {
  const char* table = static_cast<const char*>(p.table);
  const int64_t* idx = p.index;
  char* y = static_cast<char*>(p.y);
  int64_t rows = p.table_rows, bytes = p.row_elements * p.element_bytes;
  move::pieces(pool, p.count, 4 * move::kGrain / (bytes + 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (idx[i] < 0 || idx[i] >= rows) move::bad_index(idx[i], i, 0, rows);
      if (p.panel == 1)
        std::memcpy(y + i * bytes, table + idx[i] * bytes, static_cast<size_t>(bytes));
      else
        move::by_size(p.element_bytes, [&](auto* type) {
          using T = std::remove_pointer_t<decltype(type)>;
          const T* from = static_cast<const T*>(p.table) +
                          idx[i] / p.panel * p.panel * p.row_elements + idx[i] % p.panel;
          T* to = static_cast<T*>(p.y) + i * p.row_elements;
          for (int64_t k = 0; k < p.row_elements; ++k) to[k] = from[k * p.panel];
        });
    }
  });
}

// Advanced indexing: each tuple of indices copies `block` contiguous elements. An index without a
// buffer reads coordinate 0; a negative one counts from the end once; others throw
// std::out_of_range.
static void index_nd(Pool& pool, const abi::IndexNdArgs& p) {
  if (p.indices > kMaxRank || p.rank > kMaxRank) throw std::invalid_argument("index_nd: bad rank");
  const int64_t elem = p.element_bytes, bytes = p.block * elem;
  const int k = static_cast<int>(p.indices), nd = static_cast<int>(p.rank);
  const int64_t* extent = p.extents;
  const int64_t* strides = p.index_strides;
  int64_t total = 1;
  for (int d = 0; d < nd; ++d) total *= extent[d];
  const char* x = static_cast<const char*>(p.x);
  char* y = static_cast<char*>(p.y);
  move::pieces(pool, total, 4 * move::kGrain / (bytes + 16), [&](int64_t begin, int64_t end) {
    int64_t digit[kMaxRank], at[kMaxRank] = {};
    int64_t rest = begin;
    for (int d = nd - 1; d >= 0; --d) {
      digit[d] = rest % extent[d];
      rest /= extent[d];
      for (int j = 0; j < k; ++j) at[j] += digit[d] * strides[j * nd + d];
    }
    for (int64_t i = begin; i < end; ++i) {
      int64_t offset = 0;
      for (int j = 0; j < k; ++j) {
        const int64_t* idx = static_cast<const int64_t*>(p.index[j]);
        if (!idx) continue;
        const int64_t size = p.x_sizes[j], v = idx[at[j]];
        if (v < -size || v >= size) move::bad_index(v, i, -size, size);
        offset += (v < 0 ? v + size : v) * p.x_steps[j];
      }
      std::memcpy(y + i * bytes, x + offset * elem, static_cast<size_t>(bytes));
      for (int d = nd - 1; d >= 0; --d) {
        bool carry = ++digit[d] == extent[d];
        int64_t step = carry ? 1 - extent[d] : 1;
        if (carry) digit[d] = 0;
        for (int j = 0; j < k; ++j) at[j] += step * strides[j * nd + d];
        if (!carry) break;
      }
    }
  });
}

// y[o, i, c] = x[o, index[o, i, c], c]; all contiguous. An index outside [0, x_n) throws
// std::out_of_range.
static void gather_axis(Pool& pool, const abi::GatherAxisArgs& p) {
  const int64_t n_x = p.x_n, n_idx = p.index_n, inner = p.inner;
  const int64_t* idx = p.index;
  move::by_size(p.element_bytes, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T* x = static_cast<const T*>(p.x);
    T* y = static_cast<T*>(p.y);
    int64_t rows = p.outer * n_idx;
    move::pieces(pool, rows, move::kGrain / (inner + 1), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* from = x + r / n_idx * n_x * inner;
        for (int64_t c = 0; c < inner; ++c) {
          int64_t v = idx[r * inner + c];
          if (v < 0 || v >= n_x) move::bad_index(v, r * inner + c, 0, n_x);
          y[r * inner + c] = from[v * inner + c];
        }
      }
    });
  });
}

// y[i] = pattern, its low element_bytes bytes.
static void fill(Pool& pool, const abi::FillArgs& p) {
  move::by_size(p.element_bytes, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    T* y = static_cast<T*>(p.y);
    T v = static_cast<T>(p.pattern);
    move::pieces(pool, p.n, 4 * move::kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y[i] = v;
    });
  });
}

// y[i] = start + step * i, wrapping.
static void iota(Pool& pool, const abi::IotaArgs& p) {
  int64_t* y = p.y;
  const uint64_t start = static_cast<uint64_t>(p.start), step = static_cast<uint64_t>(p.step);
  move::pieces(pool, p.n, move::kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      y[i] = static_cast<int64_t>(start + step * static_cast<uint64_t>(i));
  });
}

// y = x with every NaN made canonical; x and y may be the same.
static void canonical_copy(Pool& pool, const abi::CanonicalCopyArgs& p) {
  const float* x = p.x;
  float* y = p.y;
  move::pieces(pool, p.n, 2 * move::kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) {
      const int n = static_cast<int>(std::min<int64_t>(W, end - i));
      store_partial(y + i, canonical(load_partial(x + i, n)), n);
    }
  });
}

}  // namespace ree::REE_ISA
