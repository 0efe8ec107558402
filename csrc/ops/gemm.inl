// Contraction kernels: `gemm` (packed right-hand side), `bmm` (both sides strided), and `tile`
// (pointwise code alone). Blocking, packing and threads decide who computes an element and when,
// never the order inside it: see gemm_micro.inl.
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
  float* c;
  int64_t c_b0, c_b1, c_row;
  TileFn tile;
  void* const* tile_bufs;
  const int64_t* tile_params;

  int64_t panels() const { return (N + kPanel - 1) / kPanel; }
  const float* a_of(int64_t e) const { return a + e / batch1 * a_b0 + e % batch1 * a_b1; }
  const float* b_of(int64_t e) const { return b + e / batch1 * b_b0 + e % batch1 * b_b1; }
  float* c_of(int64_t e) const { return c + e / batch1 * c_b0 + e % batch1 * c_b1; }
  // Rows [r0, r1) x panels [p0, p1) of element e are final.
  void finish(int64_t e, int64_t r0, int64_t r1, int64_t p0, int64_t p1) const {
    int64_t end = p1 * kPanel < N ? p1 * kPanel : N;
    if (tile) tile(tile_bufs, tile_params, e * M + r0, e * M + r1, p0 * kPanel, end);
  }
};

inline int64_t at_least_one(int64_t x) { return x < 1 ? 1 : x; }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How many items are worth their overhead: one for about 2^17 multiply-adds.
inline int64_t worthwhile(const Contraction& x) {
  double work = (double)x.count * (double)x.M * (double)x.N * (double)(x.K + 8);
  return work > 131072.0 * 4096 ? 4096 : at_least_one((int64_t)(work / 131072.0));
}

// M at most kFewRows: every packed element is used at once for all rows, straight from memory.
inline constexpr int64_t kFewRows = 4;
inline constexpr int kFewPanels[kFewRows + 1] = {0, 4, 2, 1, 1};  // panels at once, by rows

template <int R>
void few_rows_panels(FewRows t, int64_t panels) {
  constexpr int P = kFewPanels[R];
  while (panels > 0) {
    int64_t n = panels >= P ? P : 1;
    n == P ? few_rows<R, P>(t) : few_rows<R, 1>(t);
    panels -= n;
    t.b += n * t.b_panel;
    t.c += n * kPanel;
    t.columns -= n * kPanel;
  }
}

inline void few_rows_task(const Contraction& x, int64_t e, int64_t p0, int64_t p1,
                          float* scratch) {
  FewRows t{x.a_of(e), x.a_row, x.b_of(e), kPanel, x.K * kPanel, x.K, x.c_of(e), x.c_row, x.N};
  if (x.a_k != 1) {
    for (int64_t r = 0; r < x.M; ++r)
      for (int64_t k = 0; k < x.K; ++k) scratch[r * x.K + k] = t.a[r * x.a_row + k * x.a_k];
    t.a = scratch;
    t.a_row = x.K;
    scratch += ceil_div(x.M * x.K, 16) * 16;
  }
  auto run = [&](int64_t q0, int64_t q1) {
    t.c = x.c_of(e) + q0 * kPanel;
    t.columns = x.N - q0 * kPanel;
    if (x.M == 1) few_rows_panels<1>(t, q1 - q0);
    if (x.M == 2) few_rows_panels<2>(t, q1 - q0);
    if (x.M == 3) few_rows_panels<3>(t, q1 - q0);
    if (x.M == 4) few_rows_panels<4>(t, q1 - q0);
  };
  if (x.is_packed) {
    t.b += p0 * t.b_panel;
    run(p0, p1);
  } else {
    const float* b = t.b;
    int64_t whole = x.b_n == 1 ? smaller(p1, x.N / kPanel) : p0;  // panels read in place
    if (whole > p0) {
      t.b = b + p0 * kPanel;
      t.b_k = x.b_k;
      t.b_panel = kPanel;
      run(p0, whole);
    }
    t.b_k = kPanel;
    for (int64_t q = whole > p0 ? whole : p0; q < p1; ++q) {
      pack_panel(b + q * kPanel * x.b_n, x.b_k, x.b_n, x.K, x.N - q * kPanel, scratch);
      t.b = scratch;
      run(q, q + 1);
    }
  }
  x.finish(e, 0, x.M, p0, p1);
}

inline void contract_few_rows(Pool& pool, const Contraction& x) {
  const int64_t panels = x.panels(), at_once = kFewPanels[x.M];
  int64_t items = at_least_one(smaller(smaller(worthwhile(x), 8 * pool.threads()) / x.count,
                                       ceil_div(panels, at_once)));
  int64_t groups = ceil_div(panels, at_once);
  size_t bytes = 4 * (size_t)(x.K * kPanel + (x.a_k != 1 ? x.M * x.K + 16 : 0));
  pool.parallel_for(x.count * items, [&](int64_t i, int thread) {
    int64_t e = x.first + i / items, g = i % items;
    int64_t p0 = g * groups / items * at_once, p1 = (g + 1) * groups / items * at_once;
    float* scratch = static_cast<float*>(pool.scratch(thread, bytes));
    few_rows_task(x, e, p0, smaller(p1, panels), scratch);
  });
}

// M above kFewRows. A block of rows is packed once and stays in L2; a segment of one panel of B
// stays in L1 while all tiles of the block use it.
#ifndef KD
#define KD 16
#endif
#ifndef KB
#define KB 400
#endif
inline constexpr int64_t kDepth = KD * kSegment;    // k per pass over a block
inline constexpr int64_t kBlockBytes = KB << 10;   // of packed A
inline constexpr int64_t kGroup = 8;                // panels between two calls of the tile function

struct Blocking {
  int64_t tiles, row_blocks, column_blocks, depth;
  int64_t tile_row(const Contraction& x, int64_t t) const { return t * x.M / tiles; }
};

inline Blocking choose_blocks(const Contraction& x, int threads) {
  Blocking s;
  s.tiles = ceil_div(x.M, kTileRows);
  s.depth = at_least_one(smaller(x.K, kDepth));
  int64_t fit = kBlockBytes / (s.depth * 4 * kTileRows);
  fit = fit < 2 ? 2 : fit > 16 ? 16 : fit;
  s.row_blocks = ceil_div(s.tiles, fit);
  s.column_blocks = 1;
  int64_t wanted = threads > 1 ? smaller(4 * threads, worthwhile(x)) : 1;
  if (x.count * s.row_blocks < wanted)
    s.column_blocks = smaller(x.panels(), ceil_div(wanted, x.count * s.row_blocks));
  if (x.count * s.row_blocks * s.column_blocks < wanted)
    s.row_blocks = smaller(s.tiles, ceil_div(wanted, x.count * s.column_blocks));
  return s;
}

struct BlockScratch {
  float* a;       // packed rows of one block and pass
  float* totals;  // rows x kPanel
  float* b;       // one segment of one panel
};

// Tiles [t0, t1) x panels [p0, p1) of element e.
inline void block_task(const Contraction& x, const Blocking& s, int64_t e, int64_t t0, int64_t t1,
                       int64_t p0, int64_t p1, bool a_packed, int64_t rows_ahead,
                       int64_t next_rows, const BlockScratch& scratch) {
  const int64_t r0 = s.tile_row(x, t0), rows = s.tile_row(x, t1) - r0;
  const float *a = x.a_of(e) + r0 * x.a_row, *b = x.b_of(e);
  float* c = x.c_of(e) + r0 * x.c_row;
  TileStep step;
  // the rows of the block this thread is likely to take next
  const bool dense = x.a_k == 1 && x.a_row <= x.K + x.K / 4 && next_rows > 0;
  step.later_a = (const char*)(dense ? a + rows_ahead * x.a_row : a);
  const char* later_end = step.later_a + (dense ? next_rows * x.a_row * 4 : 0);
  for (int64_t k0 = 0; k0 == 0 || k0 < x.K; k0 += s.depth) {
    const int64_t depth = smaller(s.depth, x.K - k0);
    const bool last_pass = k0 + depth >= x.K;
    if (!a_packed) pack_rows(a + k0 * x.a_k, x.a_row, x.a_k, rows, depth, scratch.a);
    for (int64_t g = p0; g < p1; g += kGroup) {
      const int64_t g_end = smaller(g + kGroup, p1);
      for (int64_t j = g; j < g_end; ++j) {
        step.c_row = x.c_row;
        step.columns = smaller(kPanel, x.N - j * kPanel);
        const TileStepFn* table = step.columns > W ? TileTable::full : TileTable::narrow;
        step.a = scratch.a;
        for (int64_t k = 0; k == 0 || k < depth; k += kSegment) {
          const bool last = k + kSegment >= depth;
          step.k = smaller(kSegment, depth - k);
          if (x.is_packed) {
            step.b = b + (j * x.K + k0 + k) * kPanel;
          } else {
            pack_panel(b + (k0 + k) * x.b_k + j * kPanel * x.b_n, x.b_k, x.b_n, step.k,
                       x.N - j * kPanel, scratch.b);
            step.b = scratch.b;
          }
          // the panel's next segment moves to L2, a share of it per tile
          const int64_t turns = step.k / kTurn * 2;
          step.next_b = (const char*)(step.b + (x.is_packed ? step.k * kPanel : 0));
          step.next_b_step =
              x.is_packed ? ceil_div(kTurn / 2 * kPanel * 4, (t1 - t0) * 64) * 64 : 0;
          for (int64_t t = t0; t < t1; ++t) {
            const int64_t at = s.tile_row(x, t) - r0, n = s.tile_row(x, t + 1) - r0 - at;
            step.c = c + at * x.c_row + j * kPanel;
            float* totals = scratch.totals + at * kPanel;
            step.in = k > 0 || k0 > 0 ? totals : nullptr;
            step.out = last ? nullptr : totals;
            if (k == 0 && k0 > 0)  // of the pass before; its NaN are canonical already
              for (int64_t r = 0; r < n; ++r)
                copy_row(step.c + r * x.c_row, totals + r * kPanel, step.columns);
            step.next_c = (const char*)(last ? step.c : totals);
            step.next_c_step = last ? x.c_row * 4 : 0;
            table[n - 1](step);
            step.a += n * kSegment;
            step.next_b += turns * step.next_b_step;
            if (step.later_a < later_end) step.later_a += turns * 64;
          }
        }
      }
      if (last_pass) x.finish(e, r0, r0 + rows, g, g_end);
    }
  }
}

inline void contract_blocks(Pool& pool, const Contraction& x, const Blocking& s) {
  const int64_t panels = x.panels(), block_rows = ceil_div(s.tiles, s.row_blocks) * kTileRows;
  const int64_t a_floats = block_rows * ceil_div(s.depth, kSegment) * kSegment;
  const size_t bytes = 4 * (size_t)(a_floats + block_rows * kPanel + kSegment * kPanel);
  constexpr int kRemembered = 256;  // threads whose packed block is known
  int64_t packed_block[kRemembered];
  for (int t = 0; t < kRemembered; ++t) packed_block[t] = -1;
  pool.parallel_for(x.count * s.row_blocks * s.column_blocks, [&](int64_t i, int thread) {
    BlockScratch scratch;
    scratch.a = static_cast<float*>(pool.scratch(thread, bytes));
    scratch.totals = scratch.a + a_floats;
    scratch.b = scratch.totals + block_rows * kPanel;
    const int64_t block = i / s.column_blocks, column = i % s.column_blocks;
    const int64_t row = block % s.row_blocks;
    const bool a_packed =
        thread < kRemembered && s.depth == x.K && packed_block[thread] == block;
    if (thread < kRemembered) packed_block[thread] = block;
    const int64_t t0 = row * s.tiles / s.row_blocks, t1 = (row + 1) * s.tiles / s.row_blocks;
    const int64_t ahead = s.column_blocks > 1 ? 1 : pool.threads();
    const int64_t n0 = smaller(row + ahead, s.row_blocks) * s.tiles / s.row_blocks;
    const int64_t n1 = smaller(row + ahead + 1, s.row_blocks) * s.tiles / s.row_blocks;
    block_task(x, s, x.first + block / s.row_blocks, t0, t1, column * panels / s.column_blocks,
               (column + 1) * panels / s.column_blocks, a_packed,
               s.tile_row(x, n0) - s.tile_row(x, t0), s.tile_row(x, n1) - s.tile_row(x, n0),
               scratch);
  });
}

inline void contract(Pool& pool, const Contraction& x) {
  if (x.count <= 0 || x.M <= 0 || x.N <= 0) return;
  if (x.M <= kFewRows) return contract_few_rows(pool, x);
  Blocking s = choose_blocks(x, pool.threads());
  const bool one_b = x.count == 1 || (x.b_b0 == 0 && x.b_b1 == 0);
  if (x.is_packed || (s.row_blocks == 1 && !(one_b && x.count > 1)))
    return contract_blocks(pool, x, s);  // each element of B is packed once, on the way
  // Row blocks share B: pack it first, a few elements at a time.
  const int64_t size = x.panels() * x.K * kPanel;
  const int64_t each = one_b ? x.count : at_least_one((int64_t(1) << 20) / at_least_one(size));
  for (int64_t done = 0; done < x.count; done += each) {
    Contraction part = x;
    part.first = x.first + done;
    part.count = smaller(each, x.count - done);
    const int64_t distinct = one_b ? 1 : part.count;
    float* packed = static_cast<float*>(pool.shared(4 * (size_t)at_least_one(distinct * size)));
    const int64_t run = 8 * kSegment, runs = ceil_div(x.K, run), panels = x.panels();
    pool.parallel_for(distinct * panels * runs, [&](int64_t i, int) {
      int64_t k = i % runs * run, j = i / runs % panels, e = i / runs / panels;
      pack_panel(x.b_of(part.first + e) + k * x.b_k + j * kPanel * x.b_n, x.b_k, x.b_n,
                 smaller(run, x.K - k), x.N - j * kPanel,
                 packed + ((e * panels + j) * x.K + k) * kPanel);
    });
    part.is_packed = true;
    part.b_b0 = one_b ? 0 : size * x.batch1;
    part.b_b1 = one_b ? 0 : size;
    part.b = packed - (one_b ? 0 : part.first * size);
    contract_blocks(pool, part, s);
  }
}

}  // namespace ree::REE_ISA::contraction

namespace ree::REE_ISA {

// bufs A, packed B (as `pack` gives it), C, then the tile function's; params batch, M, N, K,
// a_batch, a_row, b_batch (0: shared), c_batch, c_row, tile function or 0, then its own. A and C
// have unit stride along k and n. The tile function is called with rows batch * M + m once for
// every element, in blocks, when C holds their totals.
void gemm(Pool& pool, void* const* bufs, const int64_t* p) {
  contraction::Contraction x{};
  x.batch1 = contraction::at_least_one(p[0]);
  x.count = p[0];
  x.M = p[1], x.N = p[2], x.K = p[3];
  x.a = static_cast<const float*>(bufs[0]);
  x.a_b1 = p[4], x.a_row = p[5], x.a_k = 1;
  x.b = static_cast<const float*>(bufs[1]);
  x.b_b1 = p[6];
  x.is_packed = true;
  x.c = static_cast<float*>(bufs[2]);
  x.c_b1 = p[7], x.c_row = p[8];
  x.tile = reinterpret_cast<TileFn>(p[9]);
  x.tile_bufs = bufs + 3;
  x.tile_params = p + 10;
  contraction::contract(pool, x);
}

// bufs A, B, C, then the tile function's; params batch0, batch1, M, N, K, a_b0, a_b1, a_row, a_k,
// b_b0, b_b1, b_k, b_n, c_b0, c_b1, c_row, tile function or 0, then its own; as gemm otherwise.
void bmm(Pool& pool, void* const* bufs, const int64_t* p) {
  contraction::Contraction x{};
  x.batch1 = contraction::at_least_one(p[1]);
  x.count = p[0] * p[1];
  x.M = p[2], x.N = p[3], x.K = p[4];
  x.a = static_cast<const float*>(bufs[0]);
  x.a_b0 = p[5], x.a_b1 = p[6], x.a_row = p[7], x.a_k = p[8];
  x.b = static_cast<const float*>(bufs[1]);
  x.b_b0 = p[9], x.b_b1 = p[10], x.b_k = p[11], x.b_n = p[12];
  x.c = static_cast<float*>(bufs[2]);
  x.c_b0 = p[13], x.c_b1 = p[14], x.c_row = p[15];
  x.tile = reinterpret_cast<TileFn>(p[16]);
  x.tile_bufs = bufs + 3;
  x.tile_params = p + 17;
  contraction::contract(pool, x);
}

// bufs: the tile function's; params its address, rows, columns, then its own.
void tile(Pool& pool, void* const* bufs, const int64_t* p) {
  using namespace contraction;
  const TileFn fn = reinterpret_cast<TileFn>(p[0]);
  const int64_t rows = p[1], columns = p[2];
  if (rows <= 0 || columns <= 0) return;
  constexpr int64_t kChunk = 32768, kUnit = 64;  // elements of an item; columns are cut at units
  const int64_t chunks = ceil_div(rows * columns, kChunk);
  const int64_t row_parts = smaller(rows, chunks), units = ceil_div(columns, kUnit);
  const int64_t column_parts = smaller(units, ceil_div(chunks, row_parts));
  pool.parallel_for(row_parts * column_parts, [&](int64_t i, int) {
    int64_t r = i / column_parts, c = i % column_parts;
    fn(bufs, p + 3, r * rows / row_parts, (r + 1) * rows / row_parts,
       c * units / column_parts * kUnit,
       smaller((c + 1) * units / column_parts * kUnit, columns));
  });
}

}  // namespace ree::REE_ISA

#define REE_GEMM_KERNELS REE_KERNEL(pack) REE_KERNEL(gemm) REE_KERNEL(bmm) REE_KERNEL(tile)
