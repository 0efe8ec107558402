// The register kernels of a contraction. Every output element is
//   total = +0; per kSegment consecutive k: s = +0, s = fma(a, b, s) ascending, total = total + s
// whatever kernel, tile or thread computes it: lanes are different outputs, chains stay whole.
#pragma once
#include "gemm_stored.inl"

namespace ree::REE_ISA::contraction {

// One segment of a tile of rows x columns.
struct TileStep {
  const float* a;   // rows of kSegment floats
  const float* b;   // `k` rows of kPanel floats
  int64_t k;        // at most kSegment
  const float* in;  // totals of the segments before, rows of kPanel floats; nullptr: +0
  float* out;       // where the new totals go, rows of kPanel floats; nullptr: to c
  float* c;
  int64_t c_row;
  int64_t columns;  // of c
  // Prefetched on the way, every kTurn k: two lines of next_b to L2, a row of next_c to L1.
  const char *next_b, *next_c;
  int64_t next_b_step, next_c_step;  // bytes
  // Copying steps also pack rows of A that a later step uses, one row every kTurn k, and prefetch
  // those of the step after it; `k` is then kSegment.
  const float *copy_from, *later_a;
  float* copy_to;
  int64_t copy_row, copy_rows;
};
inline constexpr int kTurn = 8;
static_assert(kSegment / kTurn >= kTileRows, "a step has a turn for every row it copies");

template <int R, int V>
inline void tile_k(const float* a, const float* b, F (&s)[R][V]) {
  F column[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) column[v] = load(b + v * W);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    F x = set1(a[r * kSegment]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      s[r][v] = fma(x, column[v], s[r][v]);
      keep(s[r][v]);
    }
  }
}

template <int R, int V, bool Copy>
void tile_step(const TileStep& t) {
  F s[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) s[r][v] = zero();
  const float *a = t.a, *b = t.b;
  const char *next_b = t.next_b, *next_c = t.next_c;
  const int64_t next_b_step = t.next_b_step, next_c_step = t.next_c_step;
  const float *from = t.copy_from, *later_a = t.later_a;
  float* to = t.copy_to;
  int64_t k = t.k, rows = Copy ? t.copy_rows : 0;
  const int64_t copy_row = t.copy_row;
  // One branch a turn, at its end: more of them keep it out of the decoded-instruction cache.
  if (k >= kTurn) do {
#pragma GCC unroll 8
      for (int u = 0; u < kTurn; ++u) {
        tile_k<R, V>(a + u, b + u * kPanel, s);
        if (u % 4 == 1) {
          __builtin_prefetch(next_b, 0, 2);
          next_b += next_b_step;
        }
        if (u == 3) __builtin_prefetch(next_c, 1, 3);
        if (u == 7) __builtin_prefetch(next_c + (kPanel - 1) * 4, 1, 3);
        if (Copy) {
          constexpr int n = kSegment / kTurn;
          for (int i = 0; i < n; i += W) store(to + u * n + i, load(from + u * n + i));
          __builtin_prefetch(later_a + u * n, 0, 2);
        }
      }
      a += kTurn;
      b += kTurn * kPanel;
      next_c += next_c_step;
      if (Copy) {  // the last row is copied again when they have run out
        const int64_t more = --rows > 0 ? -1 : 0;
        from += more & copy_row;
        later_a += copy_row;
        to += more & kSegment;
      }
    } while ((k -= kTurn) >= kTurn);
  for (; k > 0; --k, ++a, b += kPanel) tile_k<R, V>(a, b, s);
  // The first segment is added to +0, not copied: the total is then never -0.
  const float* in = t.in;
  if (in) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) s[r][v] = add(load(in + r * kPanel + v * W), s[r][v]);
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) s[r][v] = add(zero(), s[r][v]);
  }
  float* out = t.out;
  if (out) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(out + r * kPanel + v * W, s[r][v]);
    return;
  }
  out = t.c;
  if (t.columns >= V * W) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r, out += t.c_row)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(out + v * W, canonical(s[r][v]));
    return;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r, out += t.c_row)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      store_partial(out + v * W, canonical(s[r][v]), static_cast<int>(t.columns) - v * W);
}

using TileStepFn = void (*)(const TileStep&);
template <int... R>
struct TileSteps {
  static constexpr TileStepFn full[] = {&tile_step<R + 1, kTileVectors, false>...};
  static constexpr TileStepFn narrow[] = {&tile_step<R + 1, 1, false>...};  // one vector of columns
  static constexpr TileStepFn copying[] = {&tile_step<R + 1, kTileVectors, true>...};
};
template <int N, int... R>
struct MakeTileSteps : MakeTileSteps<N - 1, N - 1, R...> {};
template <int... R>
struct MakeTileSteps<0, R...> : TileSteps<R...> {};
using TileTable = MakeTileSteps<kTileRows>;

// How far to fetch ahead: in place a few k, since what follows a row of B there belongs to others.
// Panels are streams that the processor sees by itself: a distance of 256 to 6144 floats made Zen 4
// 15 to 20 % slower, from memory and from its cache, and touching the line that is read 10 % faster
// than nothing.
inline constexpr int64_t kAheadPacked = 0, kAheadRows = 4;

// All of K for R rows (A in place) and P panels: totals stay in registers or on the stack.
template <class S>
struct FewRows {
  const float* a;
  int64_t a_row;
  const typename S::T* b;
  int64_t b_k;      // floats from one k to the next
  int64_t b_panel;  // from one panel to the next
  int64_t ahead;    // to what is fetched early
  int64_t k;
  float* c;
  int64_t c_row;
  int64_t columns;  // at most P * kPanel
  // where S has terms: a row of them for `block` k
  const float *scale, *offset;
  int64_t block;
};

template <int R, int P, class S>
void few_rows(const FewRows<S>& t) {
  constexpr int V = P * kTileVectors;
  F total[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) total[r][v] = zero();
  const typename S::T* b = t.b;
  const int64_t run = S::kTerms ? t.block : kSegment, terms = S::kTerms ? t.k / run * kPanel : 0;
  const float *scale = t.scale, *offset = t.offset;
  for (int64_t start = 0; start < t.k; start += kSegment) {
    F s[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) s[r][v] = zero();
    const float* a = t.a + start;
    const float* stop = t.a + (start + kSegment < t.k ? start + kSegment : t.k);
    while (a != stop) {
      F m[V], o[V];
      if (S::kTerms > 0) {
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) {
          const int64_t at = v / kTileVectors * terms + v % kTileVectors * W;
          m[v] = load(scale + at);
          if (S::kTerms > 1) o[v] = load(offset + at);
        }
        scale += kPanel;
        if (S::kTerms > 1) offset += kPanel;
      }
      const float* end = S::kTerms ? a + run : stop;
      for (; a != end; ++a, b += t.b_k) {
        F x[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) x[r] = set1(a[r * t.a_row]);
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
          for (int v = 0; v < kTileVectors; ++v) {
            const typename S::T* q = b + p * t.b_panel + v * W;
            F y = S::widen(q);
            if (S::kTerms > 0) y = mul(y, m[p * kTileVectors + v]);
            if (S::kTerms > 1) y = add(y, o[p * kTileVectors + v]);
            if (S::kTerms == 0 && v * W % 16 == 0) __builtin_prefetch(q + t.ahead, 0, 3);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r)
              s[r][p * kTileVectors + v] = fma(x[r], y, s[r][p * kTileVectors + v]);
          }
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) total[r][v] = add(total[r][v], s[r][v]);
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v)
      store_partial(t.c + r * t.c_row + v * W, canonical(total[r][v]),
                    static_cast<int>(t.columns) - v * W);
}

}  // namespace ree::REE_ISA::contraction
