// Contraction of 8-bit integers: `pack_i8` and `gemm_i8`. Totals are exact, so nothing here is
// order; sums wrap at 2^32 on the way and come out right, since the total fits.
//
// Both sides lie in words of four bytes: two consecutive k as i16, or four as i8, where the
// processor multiplies bytes (ree::byte_group). Its instruction takes one side unsigned: B is
// stored 128 too high, and a row starts from -128 times the sum of its A.
#pragma once
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "common.inl"
#include "gemm_micro.inl"

namespace ree::REE_ISA::bytes {

// Words of one tile of R rows x panels.
struct Step {
  const uint32_t* a;     // [words][R]
  const uint32_t* b;     // [words][kPanel], panels b_panel words apart
  const int32_t* start;  // of each row
  int32_t* c;
  int64_t words, b_panel, c_row, columns;
};

inline I load_words(const uint32_t* p) { return bits(load(reinterpret_cast<const float*>(p))); }
inline void store_words(int32_t* p, I x, int64_t columns) {
  float* to = reinterpret_cast<float*>(p);
  if (columns >= W) return store(to, from_bits(x));
  store_partial(to, from_bits(x), static_cast<int>(columns));
}
inline void keep_words(I& x) {
  F f = from_bits(x);
  keep(f);
  x = bits(f);
}

// A tile, with a dot product of words as `Dot`.
#define REE_TILE_I8(NAME, DOT, TARGET)                                              \
  template <int R, int P>                                                           \
  TARGET void NAME(const Step& t) {                                                 \
    constexpr int V = P * kTileVectors;                                             \
    I s[R][V];                                                                      \
    _Pragma("GCC unroll 16") for (int r = 0; r < R; ++r)                            \
        _Pragma("GCC unroll 16") for (int v = 0; v < V; ++v) s[r][v] =              \
            set1i(static_cast<uint32_t>(t.start[r]));                               \
    const uint32_t *a = t.a, *b = t.b;                                              \
    const int64_t b_panel = t.b_panel;                                              \
    for (int64_t q = t.words; q > 0; --q, a += R, b += kPanel) {                    \
      I column[V];                                                                  \
      _Pragma("GCC unroll 16") for (int v = 0; v < V; ++v) column[v] =              \
          load_words(b + v / kTileVectors * b_panel + v % kTileVectors * W);        \
      _Pragma("GCC unroll 16") for (int r = 0; r < R; ++r) {                        \
        const I x = set1i(a[r]);                                                    \
        _Pragma("GCC unroll 16") for (int v = 0; v < V; ++v) {                      \
          s[r][v] = DOT(s[r][v], column[v], x);                                     \
          keep_words(s[r][v]);                                                      \
        }                                                                           \
      }                                                                             \
    }                                                                               \
    _Pragma("GCC unroll 16") for (int r = 0; r < R; ++r)                            \
        _Pragma("GCC unroll 16") for (int v = 0; v < V; ++v) if (t.columns > v * W) \
            store_words(t.c + r * t.c_row + v * W, s[r][v], t.columns - v * W);     \
  }
REE_TILE_I8(pairs, dot_pairs, )
#if defined(REE_QUADS)
REE_TILE_I8(quads, dot_quads, REE_QUADS)
#endif
#undef REE_TILE_I8

using TileKernel = void (*)(const Step&);
// Rows of a tile, and how many panels a kernel of so many rows takes at once.
constexpr int panels_at_once(int rows) { return rows == 1 ? 4 : rows <= kTileRows / 4 ? 2 : 1; }

template <int R, bool Quads, bool One>
constexpr TileKernel kernel() {
  constexpr int P = One ? 1 : panels_at_once(R);
#if defined(REE_QUADS)
  if constexpr (Quads) return quads<R, P>;
#endif
  return pairs<R, P>;
}
template <bool Quads, bool One, int... R>
constexpr TileKernel pick(int rows, std::integer_sequence<int, R...>) {
  constexpr TileKernel all[] = {kernel<R + 1, Quads, One>()...};
  return all[rows - 1];
}
// The kernel of so many rows, for as many panels as it takes at once, or for one.
inline TileKernel tile_kernel(bool quads, bool one, int64_t rows) {
  constexpr auto all = std::make_integer_sequence<int, kTileRows>();
  const int r = static_cast<int>(rows);
  if (quads) return one ? pick<true, true>(r, all) : pick<true, false>(r, all);
  return one ? pick<false, true>(r, all) : pick<false, false>(r, all);
}

// `count` bytes at `from`, `step` apart, as a word of pairs or quads; zeros behind them.
inline uint32_t word_of(const int8_t* from, int64_t step, int64_t count, bool quads,
                        uint32_t flip) {
  uint32_t word = 0;
  const int64_t n = std::min<int64_t>(count, quads ? 4 : 2);
  for (int64_t i = 0; i < n; ++i)
    word |= quads ? ((static_cast<uint32_t>(from[i * step]) & 255u) ^ flip) << 8 * i
                  : (static_cast<uint32_t>(from[i * step]) & 65535u) << 16 * i;
  return word;
}

// Rows of A as [words][rows], and where their totals start.
inline void pack_rows(const int8_t* a, int64_t k, int64_t rows, bool quads, uint32_t* to,
                      int32_t* start) {
  const int64_t group = quads ? 4 : 2, words = ceil_div(k, group), whole = k / group;
  for (int64_t r = 0; r < rows; ++r) {
    const int8_t* row = a + r * k;
    uint32_t* out = to + r;
    if (quads) {
      for (int64_t q = 0; q < whole; ++q) std::memcpy(out + q * rows, row + 4 * q, 4);
    } else {
      for (int64_t q = 0; q < whole; ++q) out[q * rows] = word_of(row + 2 * q, 1, 2, false, 0);
    }
    if (whole < words)
      out[whole * rows] = word_of(row + whole * group, 1, k - whole * group, quads, 0);
    int32_t sum = 0;
    if (quads)
      for (int64_t i = 0; i < k; ++i) sum += row[i];
    start[r] = -128 * sum;
  }
}

struct Blocks {
  int64_t tiles, rows, columns;  // tiles of rows, blocks of tiles, blocks of panels
};

inline constexpr int64_t kBlockWords = 100 << 10;  // of packed A: they stay in L2
inline constexpr int64_t kGroup = 4;               // panels between two calls of the tile function

inline Blocks choose_blocks(const abi::GemmI8Args& p, int64_t words, int threads) {
  Blocks s;
  const int64_t panels = ceil_div(p.n, kPanel), groups = ceil_div(panels, kGroup);
  s.tiles = ceil_div(p.m, kTileRows);
  const int64_t fit = std::max<int64_t>(1, kBlockWords / std::max<int64_t>(1, words * kTileRows));
  s.rows = ceil_div(s.tiles, fit);
  s.columns = 1;
  if (threads == 1) return s;
  // an item for about 2^19 products
  const double work =
      static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
  const int64_t worth = work > 524288.0 * 4096 ? 4096 : static_cast<int64_t>(work / 524288.0);
  const int64_t wanted = std::min<int64_t>(4 * threads, std::max<int64_t>(1, worth));
  if (s.rows < wanted) s.columns = std::min<int64_t>(groups, ceil_div(wanted, s.rows));
  if (s.rows * s.columns < wanted) s.rows = std::min<int64_t>(s.tiles, ceil_div(wanted, s.columns));
  return s;
}

// Rows [r0, r1) of tiles [t0, t1), and panels [p0, p1).
inline void block(const abi::GemmI8Args& p, const Blocks& s, int64_t t0, int64_t t1, int64_t p0,
                  int64_t p1, uint32_t* scratch) {
  const bool quads = p.group == 4;
  const int64_t words = ceil_div(p.k, p.group), size = words * kPanel;
  auto row = [&](int64_t t) { return t * p.m / s.tiles; };
  int32_t* start = reinterpret_cast<int32_t*>(scratch);
  uint32_t* a = scratch + ceil_div((row(t1) - row(t0)), 16) * 16;
  for (int64_t t = t0; t < t1; ++t)
    pack_rows(p.a + row(t) * p.k, p.k, row(t + 1) - row(t), quads, a + (row(t) - row(t0)) * words,
              start + row(t) - row(t0));
  for (int64_t g = p0; g < p1; g += kGroup) {
    const int64_t end = std::min<int64_t>(g + kGroup, p1);
    for (int64_t j = g; j < end;) {
      int64_t taken = 1;
      for (int64_t t = t0; t < t1; ++t) {
        const int64_t rows = row(t + 1) - row(t), at_once = panels_at_once(static_cast<int>(rows));
        const int64_t first = row(t) - row(t0);
        Step step{a + first * words,
                  p.packed + j * size,
                  start + first,
                  p.c + row(t) * p.n + j * kPanel,
                  words,
                  size,
                  p.n,
                  p.n - j * kPanel};
        const bool many = t1 - t0 == 1 && at_once > 1 && end - j >= at_once;
        if (many) taken = at_once;
        tile_kernel(quads, !many, rows)(step);
      }
      j += taken;
    }
    if (p.tile)
      p.tile(p.tile_buffers, p.tile_params, row(t0), row(t1), g * kPanel,
             std::min<int64_t>(end * kPanel, p.n));
  }
}

inline void check_group(int64_t group) {
  if (group != 2 && group != byte_group(kIsaName))
    throw std::invalid_argument("this processor does not multiply bytes in fours");
}

}  // namespace ree::REE_ISA::bytes

namespace ree::REE_ISA {

// B into the panels that `gemm_i8` reads.
static void pack_i8(Pool& pool, const abi::PackI8Args& p) {
  bytes::check_group(p.group);
  const bool quads = p.group == 4;
  const int64_t words = ceil_div(p.k, p.group), run = 64, runs = ceil_div(words, run);
  pool.parallel_for(ceil_div(p.n, kPanel) * runs, [&](int64_t i, int) {
    const int64_t panel = i / runs, q0 = i % runs * run, q1 = std::min<int64_t>(words, q0 + run);
    uint32_t* to = p.packed + panel * words * kPanel;
    const int64_t columns = std::min<int64_t>(kPanel, p.n - panel * kPanel);
    for (int64_t j = 0; j < kPanel; ++j) {
      const int8_t* from = p.b + (panel * kPanel + j) * p.stride_n;
      for (int64_t q = q0; q < q1; ++q) {
        const int64_t k = q * p.group;
        to[q * kPanel + j] =
            j < columns ? bytes::word_of(from + k * p.stride_k, p.stride_k, p.k - k, quads, 128)
                        : 0;
      }
    }
  });
}

// C of dense A and packed B (as `pack_i8` gives it). The tile function is called once for every
// element, in blocks, when C holds their totals.
static void gemm_i8(Pool& pool, const abi::GemmI8Args& p) {
  bytes::check_group(p.group);
  if (p.m <= 0 || p.n <= 0) return;
  const int64_t words = ceil_div(p.k, p.group), panels = ceil_div(p.n, kPanel);
  const bytes::Blocks s = bytes::choose_blocks(p, words, pool.threads());
  const int64_t rows = ceil_div(s.tiles, s.rows) * kTileRows;
  const size_t size = 4 * static_cast<size_t>(rows * (words + 1) + 16);
  const int64_t groups = ceil_div(panels, bytes::kGroup);
  pool.parallel_for(s.rows * s.columns, [&](int64_t i, int thread) {
    const int64_t row = i / s.columns, column = i % s.columns;
    bytes::block(p, s, row * s.tiles / s.rows, (row + 1) * s.tiles / s.rows,
                 column * groups / s.columns * bytes::kGroup,
                 std::min<int64_t>(panels, (column + 1) * groups / s.columns * bytes::kGroup),
                 static_cast<uint32_t*>(pool.scratch(thread, size)));
  });
}

}  // namespace ree::REE_ISA
