// Contraction kernels: `gemm` (packed right-hand side), `bmm` (both sides strided), and `tile`
// (pointwise code alone). Blocking, packing and threads decide who computes an element and when,
// never the order inside it: see gemm_micro.inl.
#pragma once
#include <algorithm>

#include "gemm_blocks.inl"

namespace ree::REE_ISA::contraction {

// M at most kFewRows: every packed element is used at once for all rows, straight from memory.
inline constexpr int64_t kFewRows = std::min(8, kTileRows);
inline constexpr int few_panels(int64_t rows) {
  return rows == 1 ? 4 : rows == 2 ? 2 : 1;
}  // at once

template <int R, class S>
void few_rows_panels(FewRows<S> t, int64_t panels) {
  constexpr int P = few_panels(R);
  while (panels > 0) {
    int64_t n = panels >= P ? P : 1;
    n == P ? few_rows<R, P>(t) : few_rows<R, 1>(t);
    panels -= n;
    t.b += n * t.b_panel;
    if (S::kTerms > 0) t.scale += n * (t.k / t.block) * kPanel;
    if (S::kTerms > 1) t.offset += n * (t.k / t.block) * kPanel;
    t.c += n * kPanel;
    t.columns -= n * kPanel;
  }
}

// The function of x.M rows among those of R and fewer.
template <int R, class S>
void few_rows_of(const Contraction& x, const FewRows<S>& t, int64_t panels) {
  if (x.M == R) return few_rows_panels<R>(t, panels);
  if constexpr (R > 1) few_rows_of<R - 1>(x, t, panels);
}

// Panels q0 .. q1, whose elements start at t.b.
template <class S>
void few_rows_range(const Contraction& x, FewRows<S> t, int64_t e, int64_t q0, int64_t q1) {
  t.c = x.c_of(e) + q0 * kPanel;
  t.columns = x.N - q0 * kPanel;
  few_rows_of<kFewRows>(x, t, q1 - q0);
}

inline void few_rows_stored(const Contraction& x, int64_t e, int64_t p0, int64_t p1) {
  const Stored& w = x.stored;
  w.visit([&](auto kind) {
    using S = decltype(kind);
    const int64_t terms = S::kTerms > 0 ? p0 * (x.K / w.block) * kPanel : 0;
    const auto* b = static_cast<const typename S::T*>(w.elements) + p0 * x.K * kPanel;
    few_rows_range(
        x,
        FewRows<S>{x.a_of(e), x.a_row, b, kPanel, x.K * kPanel, 0, x.K, nullptr, x.c_row, 0,
                   w.scale + terms, S::kTerms > 1 ? w.offset + terms : nullptr, w.block},
        e, p0, p1);
  });
  x.finish(e, 0, x.M, p0, p1);
}

inline void few_rows_task(const Contraction& x, int64_t e, int64_t p0, int64_t p1, float* scratch) {
  if (x.is_stored()) return few_rows_stored(x, e, p0, p1);
  FewRows<StoredF32> t{x.a_of(e),    x.a_row, x.b_of(e), kPanel,  x.K * kPanel,
                       kAheadPacked, x.K,     nullptr,   x.c_row, 0,
                       nullptr,      nullptr, 0};
  if (x.a_k != 1) {
    for (int64_t r = 0; r < x.M; ++r)
      for (int64_t k = 0; k < x.K; ++k) scratch[r * x.K + k] = t.a[r * x.a_row + k * x.a_k];
    t.a = scratch;
    t.a_row = x.K;
    scratch += ceil_div(x.M * x.K, 16) * 16;
  }
  auto run = [&](int64_t q0, int64_t q1) { few_rows_range(x, t, e, q0, q1); };
  if (x.is_packed) {
    t.b += p0 * t.b_panel;
    run(p0, p1);
  } else {
    const float* b = t.b;
    int64_t whole = x.b_n == 1 ? std::min<int64_t>(p1, x.N / kPanel) : p0;  // panels read in place
    if (whole > p0) {
      t.b = b + p0 * kPanel;
      t.b_k = x.b_k;
      t.b_panel = kPanel;
      t.ahead = kAheadRows * x.b_k;
      run(p0, whole);
    }
    t.b_k = kPanel;
    t.ahead = kAheadPacked;
    for (int64_t q = whole > p0 ? whole : p0; q < p1; ++q) {
      pack_panel(b + q * kPanel * x.b_n, x.b_k, x.b_n, x.K, x.N - q * kPanel, scratch);
      t.b = scratch;
      run(q, q + 1);
    }
  }
  x.finish(e, 0, x.M, p0, p1);
}

inline void contract_few_rows(Pool& pool, const Contraction& x) {
  const int64_t panels = x.panels(), at_once = few_panels(x.M);
  int64_t items = std::max<int64_t>(
      1, std::min<int64_t>(std::min<int64_t>(worthwhile(x), 8 * pool.threads()) / x.count,
                           ceil_div(panels, at_once)));
  int64_t groups = ceil_div(panels, at_once);
  size_t bytes = 4 * static_cast<size_t>(x.K * kPanel + (x.a_k != 1 ? x.M * x.K + 16 : 0));
  pool.parallel_for(x.count * items, [&](int64_t i, int thread) {
    int64_t e = x.first + i / items, g = i % items;
    int64_t p0 = g * groups / items * at_once, p1 = (g + 1) * groups / items * at_once;
    float* scratch = static_cast<float*>(pool.scratch(thread, bytes));
    few_rows_task(x, e, p0, std::min<int64_t>(p1, panels), scratch);
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
  const int64_t each =
      one_b ? x.count : std::max<int64_t>(1, (int64_t(1) << 20) / std::max<int64_t>(1, size));
  for (int64_t done = 0; done < x.count; done += each) {
    Contraction part = x;
    part.first = x.first + done;
    part.count = std::min<int64_t>(each, x.count - done);
    const int64_t distinct = one_b ? 1 : part.count;
    float* packed = static_cast<float*>(
        pool.shared(4 * static_cast<size_t>(std::max<int64_t>(1, distinct * size))));
    // Runs are short, and neighbouring panels follow each other: rows of B are then read whole.
    const int64_t run = kSegment, runs = ceil_div(x.K, run), panels = x.panels();
    const int64_t group = 8, groups = ceil_div(panels, group);
    pool.parallel_for(distinct * groups * runs, [&](int64_t i, int) {
      const int64_t g = i % groups, r = i / groups % runs, e = i / groups / runs;
      const int64_t end = std::min<int64_t>(x.K, (r + 1) * run),
                    last = std::min<int64_t>(panels, (g + 1) * group);
      for (int64_t k = r * run; k < end; k += 16)
        for (int64_t j = g * group; j < last; ++j)
          pack_panel(x.b_of(part.first + e) + k * x.b_k + j * kPanel * x.b_n, x.b_k, x.b_n,
                     std::min<int64_t>(16, end - k), x.N - j * kPanel,
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

// C of A and packed B (as `pack` gives it). A and C have unit stride along k and n; with b_batch 0,
// B is shared, as it is when it is stored otherwise than as float32. The tile function is called
// with rows batch * M + m once for every element, in blocks, when C holds their totals.
static void gemm(Pool& pool, const abi::GemmArgs& p) {
  contraction::Contraction x{};
  x.batch1 = std::max<int64_t>(1, p.batch);
  x.count = p.batch;
  x.M = p.m, x.N = p.n, x.K = p.k;
  x.a = p.a;
  x.a_b1 = p.a_batch, x.a_row = p.a_row, x.a_k = 1;
  x.b = static_cast<const float*>(p.packed);
  x.b_b1 = p.b_batch;
  x.is_packed = true;
  x.stored = {p.storage, p.packed, p.scale, p.offset, p.block};
  x.c = p.c;
  x.c_b1 = p.c_batch, x.c_row = p.c_row;
  x.take_tile(p);
  contraction::contract(pool, x);
}

// C of A and B, any strides; as gemm otherwise.
static void bmm(Pool& pool, const abi::BmmArgs& p) {
  contraction::Contraction x{};
  x.batch1 = std::max<int64_t>(1, p.batch1);
  x.count = p.batch0 * p.batch1;
  x.M = p.m, x.N = p.n, x.K = p.k;
  x.a = p.a;
  x.a_b0 = p.a_batch0, x.a_b1 = p.a_batch1, x.a_row = p.a_row, x.a_k = p.a_k;
  x.b = p.b;
  x.b_b0 = p.b_batch0, x.b_b1 = p.b_batch1, x.b_k = p.b_k, x.b_n = p.b_n;
  x.c = p.c;
  x.c_b0 = p.c_batch0, x.c_b1 = p.c_batch1, x.c_row = p.c_row;
  x.take_tile(p);
  contraction::contract(pool, x);
}

// A tile function alone, over rows x columns.
static void tile(Pool& pool, const abi::TileArgs& p) {
  const int64_t rows = p.rows, columns = p.columns;
  if (rows <= 0 || columns <= 0) return;
  constexpr int64_t kChunk = 32768, kUnit = 64;  // elements of an item; columns are cut at units
  const int64_t chunks = ceil_div(rows * columns, kChunk);
  const int64_t row_parts = std::min<int64_t>(rows, chunks), units = ceil_div(columns, kUnit);
  const int64_t column_parts = std::min<int64_t>(units, ceil_div(chunks, row_parts));
  pool.parallel_for(row_parts * column_parts, [&](int64_t i, int) {
    int64_t r = i / column_parts, c = i % column_parts;
    p.tile(p.tile_buffers, p.tile_params, r * rows / row_parts, (r + 1) * rows / row_parts,
           c * units / column_parts * kUnit,
           std::min<int64_t>((c + 1) * units / column_parts * kUnit, columns));
  });
}

}  // namespace ree::REE_ISA
