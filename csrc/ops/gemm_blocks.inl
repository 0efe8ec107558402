// Blocks of a contraction with more than a few rows. A block of rows is packed once and stays in
// L2; a segment of one panel of B stays in L1 while all tiles of the block use it.
#pragma once
#include <algorithm>

#include "gemm_micro.inl"
#include "gemm_pack.inl"

namespace ree::REE_ISA::contraction {

struct Contraction {
  int64_t batch1, first, count;  // elements first .. first + count of (batch0, batch1), row-major
  int64_t M, N, K;
  const float* a;
  int64_t a_b0, a_b1, a_row, a_k;
  const float* b;  // strided, or panels as `pack` lays them out (is_packed; b_b0, b_b1 then count
  int64_t b_b0, b_b1, b_k, b_n;  // floats of the panels)
  bool is_packed;
  Stored stored;  // in place of b, unless elements are float32
  float* c;
  int64_t c_b0, c_b1, c_row;
  TileFn tile;
  void* const* tile_bufs;
  const int64_t* tile_params;

  // The tile function of a kernel's arguments.
  template <class Args>
  void take_tile(const Args& args) {
    tile = args.tile;
    tile_bufs = args.tile_buffers;
    tile_params = args.tile_params;
  }
  bool is_stored() const { return stored.storage != kStoredF32; }
  int64_t panels() const { return ceil_div(N, kPanel); }
  const float* a_of(int64_t e) const { return a + e / batch1 * a_b0 + e % batch1 * a_b1; }
  const float* b_of(int64_t e) const { return b + e / batch1 * b_b0 + e % batch1 * b_b1; }
  float* c_of(int64_t e) const { return c + e / batch1 * c_b0 + e % batch1 * c_b1; }
  // Rows [r0, r1) x panels [p0, p1) of element e are final.
  void finish(int64_t e, int64_t r0, int64_t r1, int64_t p0, int64_t p1) const {
    int64_t end = p1 * kPanel < N ? p1 * kPanel : N;
    if (tile) tile(tile_bufs, tile_params, e * M + r0, e * M + r1, p0 * kPanel, end);
  }
};

// How many items are worth their overhead: one for about 2^17 multiply-adds.
inline int64_t worthwhile(const Contraction& x) {
  double work = static_cast<double>(x.count) * static_cast<double>(x.M) * static_cast<double>(x.N) *
                static_cast<double>(x.K + 8);
  return work > 131072.0 * 4096 ? 4096
                                : std::max<int64_t>(1, static_cast<int64_t>(work / 131072.0));
}

inline constexpr int64_t kDepth = 6 * kSegment;    // k of one pass over a block
inline constexpr int64_t kBlockBytes = 400 << 10;  // of packed A
inline constexpr int64_t kBlockTiles = 16;
inline constexpr int64_t kGroup = 8;  // panels between two calls of the tile function

struct Blocking {
  int64_t tiles, row_blocks, column_blocks, depth;
  int64_t tile_row(const Contraction& x, int64_t t) const { return t * x.M / tiles; }
};

inline Blocking choose_blocks(const Contraction& x, int threads) {
  Blocking s;
  s.tiles = ceil_div(x.M, kTileRows);
  const int64_t segments = std::max<int64_t>(1, ceil_div(x.K, kSegment));
  s.depth = ceil_div(segments, ceil_div(segments * kSegment, kDepth)) * kSegment;
  int64_t fit = kBlockBytes / (s.depth * 4 * kTileRows);
  fit = std::min<int64_t>(std::max<int64_t>(1, fit), kBlockTiles);
  s.row_blocks = ceil_div(s.tiles, fit);
  s.column_blocks = 1;
  int64_t wanted = threads > 1 ? std::min<int64_t>(4 * threads, worthwhile(x)) : 1;
  if (x.count * s.row_blocks < wanted)
    s.column_blocks = std::min<int64_t>(x.panels(), ceil_div(wanted, x.count * s.row_blocks));
  if (x.count * s.row_blocks * s.column_blocks < wanted)
    s.row_blocks = std::min<int64_t>(s.tiles, ceil_div(wanted, x.count * s.column_blocks));
  return s;
}

// Tiles [t0, t1) x panels [p0, p1) of element e.
struct Block {
  const Contraction& x;
  const Blocking& s;
  int64_t e, t0, t1, p0, p1;
  float* packed;      // rows of the block, as pack_rows lays them out
  float* totals;      // rows x kPanel
  float* segment_b;   // one segment of one panel, where B is not packed
  int64_t k0, depth;  // the pass
  bool last_pass;

  // Set once a block and once a panel: divisions cost more than they look.
  int64_t first_row[kBlockTiles + 1];
  const float *a, *b;  // of the element
  float* c;
  int64_t column;  // where the panel starts in C

  Block(const Contraction& x, const Blocking& s) : x(x), s(s) {}
  void start() {
    a = x.a_of(e), b = x.b_of(e), c = x.c_of(e);
    for (int64_t t = t0; t <= t1; ++t) first_row[t - t0] = s.tile_row(x, t);
  }
  void start_panel(int64_t j) { column = j * kPanel; }
  int64_t row(int64_t t) const { return first_row[t - t0]; }
  int64_t rows(int64_t t) const { return row(t + 1) - row(t); }
  int64_t block_rows() const { return row(t1) - row(t0); }
  int64_t segments() const { return std::max<int64_t>(1, ceil_div(depth, kSegment)); }
  float* packed_at(int64_t t, int64_t g) const {
    return packed + (g * block_rows() + row(t) - row(t0)) * kSegment;
  }
  const float* a_at(int64_t t, int64_t g) const {
    return a + row(t) * x.a_row + (k0 + g * kSegment) * x.a_k;
  }
  float* c_at(int64_t t) const { return c + row(t) * x.c_row + column; }

  const float* b_at(int64_t j, int64_t g) const {
    const int64_t k = k0 + g * kSegment, count = std::min<int64_t>(kSegment, depth - g * kSegment);
    if (x.is_stored()) {
      widen_rows(x.stored, x.K, j, k, count, segment_b);
      return segment_b;
    }
    if (x.is_packed) return b + (j * x.K + k) * kPanel;
    pack_panel(b + k * x.b_k + j * kPanel * x.b_n, x.b_k, x.b_n, count, x.N - j * kPanel,
               segment_b);
    return segment_b;
  }

  // What one tile does with segment g of panel j, before the call of its kernel.
  void prepare(TileStep& step, int64_t t, int64_t j, int64_t g) const {
    float* total = totals + (row(t) - row(t0)) * kPanel;
    const bool first = g == 0, last = g + 1 == segments(), rereads = k0 > 0;
    step.a = packed_at(t, g);
    step.k = std::min<int64_t>(kSegment, depth - g * kSegment);
    step.columns = std::min<int64_t>(kPanel, x.N - j * kPanel);
    step.c = c_at(t);
    step.c_row = x.c_row;
    step.in = first && !rereads ? nullptr : total;
    step.out = last ? nullptr : total;
    if (first && rereads)  // from the pass before; its NaN are canonical already
      for (int64_t r = 0; r < rows(t); ++r)
        copy_row(step.c + r * x.c_row, total + r * kPanel, step.columns);
    const bool next_is_read = rereads && first && t + 1 < t1;
    step.next_c = reinterpret_cast<const char*>(last ? step.c : next_is_read ? c_at(t + 1) : total);
    step.next_c_step = last || next_is_read ? x.c_row * 4 : 0;
  }

  // The first panel, a tile at a time: while a step computes, it packs A for the next one.
  void pack_and_run(int64_t j) {
    start_panel(j);
    const int64_t n = segments(), steps = (t1 - t0) * n;
    pack_rows(a_at(t0, 0), x.a_row, 1, rows(t0), kSegment, packed_at(t0, 0), 0);
    TileStep step{};
    for (int64_t q = 0; q < steps; ++q) {
      const int64_t t = t0 + q / n, g = q % n;
      prepare(step, t, j, g);
      step.b = b_at(j, g);
      step.next_b = reinterpret_cast<const char*>(step.b);
      const int64_t t2 = t0 + (q + 1) / n, g2 = (q + 1) % n;
      if (q + 1 < steps) {
        step.copy_from = a_at(t2, g2);
        step.copy_row = x.a_row;
        step.copy_to = packed_at(t2, g2);
        step.copy_rows = rows(t2);
        step.later_a = q + 2 < steps ? a_at(t0 + (q + 2) / n, (q + 2) % n) : step.copy_from;
      }
      (q + 1 < steps ? TileTable::copying : TileTable::full)[rows(t) - 1](step);
    }
  }

  void run_panel(int64_t j) {
    start_panel(j);
    TileStep step{};
    for (int64_t g = 0; g < segments(); ++g) {
      step.b = b_at(j, g);
      const char* next_b = reinterpret_cast<const char*>(step.b);
      const bool in_place = x.is_packed && !x.is_stored();
      if (in_place && g + 1 < segments()) next_b = reinterpret_cast<const char*>(b_at(j, g + 1));
      if (in_place && g + 1 == segments() && j + 1 < p1)
        next_b = reinterpret_cast<const char*>(b_at(j + 1, 0));
      // the panel's next segment moves to L2, a share of it per tile
      step.next_b_step = ceil_div(kTurn / 2 * kPanel * 4, (t1 - t0) * 64) * 64;
      if (next_b == reinterpret_cast<const char*>(step.b)) step.next_b_step = 0;
      step.next_b = next_b;
      for (int64_t t = t0; t < t1; ++t) {
        prepare(step, t, j, g);
        (step.columns > W ? TileTable::full : TileTable::narrow)[rows(t) - 1](step);
        step.next_b += step.k / kTurn * 2 * step.next_b_step;
      }
    }
  }

  // is_in_scratch: the block's rows of A were packed by the task before.
  void run(bool is_in_scratch) {
    start();
    for (k0 = 0; k0 == 0 || k0 < x.K; k0 += s.depth) {
      depth = std::min<int64_t>(s.depth, x.K - k0);
      last_pass = k0 + depth >= x.K;
      const bool on_the_way = !is_in_scratch && x.a_k == 1 && depth > 0 && depth % kSegment == 0 &&
                              x.N - p0 * kPanel > W;
      if (!is_in_scratch && !on_the_way)
        pack_rows(a_at(t0, 0), x.a_row, x.a_k, block_rows(), depth, packed, block_rows());
      for (int64_t g = p0; g < p1; g += kGroup) {
        const int64_t end = std::min<int64_t>(g + kGroup, p1);
        for (int64_t j = g; j < end; ++j) j == p0&& on_the_way ? pack_and_run(j) : run_panel(j);
        if (last_pass) x.finish(e, row(t0), row(t1), g, end);
      }
    }
  }
};

inline void contract_blocks(Pool& pool, const Contraction& x, const Blocking& s) {
  const int64_t panels = x.panels(), block_rows = ceil_div(s.tiles, s.row_blocks) * kTileRows;
  const int64_t a_floats = block_rows * s.depth;
  const size_t bytes =
      4 * static_cast<size_t>(a_floats + block_rows * kPanel + kSegment * kPanel + W);
  constexpr int kRemembered = 256;  // threads whose packed block is known
  int64_t packed_block[kRemembered];
  for (int t = 0; t < kRemembered; ++t) packed_block[t] = -1;
  pool.parallel_for(x.count * s.row_blocks * s.column_blocks, [&](int64_t i, int thread) {
    const int64_t block = i / s.column_blocks, column = i % s.column_blocks;
    const int64_t row = block % s.row_blocks;
    float* scratch = static_cast<float*>(pool.scratch(thread, bytes));
    Block b(x, s);
    b.e = x.first + block / s.row_blocks;
    b.t0 = row * s.tiles / s.row_blocks;
    b.t1 = (row + 1) * s.tiles / s.row_blocks;
    b.p0 = column * panels / s.column_blocks;
    b.p1 = (column + 1) * panels / s.column_blocks;
    b.packed = scratch;
    b.totals = scratch + a_floats;
    b.segment_b = scratch + a_floats + block_rows * kPanel;
    const bool remembers = thread < kRemembered && s.depth >= x.K;
    b.run(remembers && packed_block[thread] == block);
    if (remembers) packed_block[thread] = block;
  });
}

}  // namespace ree::REE_ISA::contraction
