// Packing of contraction operands: pure copies, so any blocking is free.
#pragma once
#include <type_traits>

#include "gemm_micro.inl"

namespace ree::REE_ISA::contraction {

// dst[i * dst_row + j] = src[i + j * src_column], i < rows, j < columns
inline void copy_transposed(const float* src, int64_t src_column, float* dst, int64_t dst_row,
                            int64_t rows, int64_t columns) {
  int64_t i = 0;
  for (; i + W <= rows; i += W) {
    int64_t j = 0;
    for (; j + W <= columns; j += W) {
      F r[W];
      for (int x = 0; x < W; ++x) r[x] = load(src + i + (j + x) * src_column);
      transpose(r);
      for (int x = 0; x < W; ++x) store(dst + (i + x) * dst_row + j, r[x]);
    }
    for (; j < columns; ++j)
      for (int x = 0; x < W; ++x) dst[(i + x) * dst_row + j] = src[i + x + j * src_column];
  }
  for (; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) dst[i * dst_row + j] = src[i + j * src_column];
}

inline void copy_row(const float* src, float* dst, int64_t n) {
  int64_t i = 0;
  for (; i + W <= n; i += W) store(dst + i, load(src + i));
  if (i < n)
    store_partial(dst + i, load_partial(src + i, static_cast<int>(n - i)), static_cast<int>(n - i));
}

// `count` rows k of up to kPanel columns, zeros in the columns past n.
inline void pack_panel(const float* b, int64_t b_k, int64_t b_n, int64_t count, int64_t n,
                       float* dst) {
  if (n < kPanel)
    for (int64_t k = 0; k < count; ++k)
      for (int v = 0; v < kTileVectors; ++v) store(dst + k * kPanel + v * W, zero());
  if (b_n == 1 && n >= kPanel) {
    for (int64_t k = 0; k < count; ++k)
      for (int v = 0; v < kTileVectors; ++v)
        store(dst + k * kPanel + v * W, load(b + k * b_k + v * W));
  } else if (b_n == 1) {
    for (int64_t k = 0; k < count; ++k) copy_row(b + k * b_k, dst + k * kPanel, n);
  } else if (b_k == 1) {
    copy_transposed(b, b_n, dst, kPanel, count, n < kPanel ? n : kPanel);
  } else {
    for (int64_t k = 0; k < count; ++k)
      for (int64_t j = 0; j < n && j < kPanel; ++j) dst[k * kPanel + j] = b[k * b_k + j * b_n];
  }
}

// As above, of elements that are not float32.
template <class T>
void pack_panel(const T* b, int64_t b_k, int64_t b_n, int64_t count, int64_t n, T* dst) {
  for (int64_t k = 0; k < count; ++k)
    for (int64_t j = 0; j < kPanel; ++j) dst[k * kPanel + j] = j < n ? b[k * b_k + j * b_n] : T(0);
}

// Rows of A for one run of k: dst[segment][row][kSegment], `dst_rows` rows to a segment.
inline void pack_rows(const float* a, int64_t a_row, int64_t a_k, int64_t rows, int64_t count,
                      float* dst, int64_t dst_rows) {
  for (int64_t start = 0; start < count; start += kSegment, dst += dst_rows * kSegment) {
    int64_t n = count - start < kSegment ? count - start : kSegment;
    const float* src = a + start * a_k;
    if (a_k == 1) {
      for (int64_t r = 0; r < rows; ++r) copy_row(src + r * a_row, dst + r * kSegment, n);
    } else if (a_row == 1) {
      copy_transposed(src, a_k, dst, kSegment, rows, n);
    } else {
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t k = 0; k < n; ++k) dst[r * kSegment + k] = src[r * a_row + k * a_k];
    }
  }
}

// packed is [batch][ceil(N / kPanel)][K][kPanel], zeros past N.
template <class T>
void pack_batch(Pool& pool, const T* b, T* packed, int64_t K, int64_t N, int64_t stride_k,
                int64_t stride_n, int64_t batch, int64_t b_batch) {
  const int64_t panels = ceil_div(N, kPanel);
  const int64_t run = 256, runs = ceil_div(K, run);
  pool.parallel_for(batch * panels * runs, [&](int64_t i, int) {
    int64_t k = i % runs * run, panel = i / runs % panels, e = i / runs / panels;
    pack_panel(b + e * b_batch + k * stride_k + panel * kPanel * stride_n, stride_k, stride_n,
               K - k < run ? K - k : run, N - panel * kPanel,
               packed + ((e * panels + panel) * K + k) * kPanel);
  });
}

}  // namespace ree::REE_ISA::contraction

namespace ree::REE_ISA {

// B into the panels that `gemm` reads.
static void pack(Pool& pool, const abi::PackArgs& p) {
  using contraction::pack_batch;
  auto run = [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    pack_batch(pool, static_cast<const T*>(p.b), static_cast<T*>(p.packed), p.k, p.n, p.stride_k,
               p.stride_n, p.batch, p.b_batch);
  };
  if (p.element_bytes == 4) return run(static_cast<float*>(nullptr));
  if (p.element_bytes == 2) return run(static_cast<uint16_t*>(nullptr));
  run(static_cast<int8_t*>(nullptr));
}

}  // namespace ree::REE_ISA
