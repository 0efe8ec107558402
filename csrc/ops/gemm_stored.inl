// How the packed side of a contraction is kept: as float32, or narrower and widened where it is
// used, so that the chains see the float32 that the program's dequantisation gives.
#pragma once
#include "common.inl"

namespace ree::REE_ISA {
inline constexpr int kPanel = kTileVectors * W;  // columns of one packed panel
}

namespace ree::REE_ISA::contraction {

// T: an element; kTerms: 1 if the widened element is multiplied by its block's scale, 2 if the
// block's offset is then added; widen(p): W elements.
struct StoredF32 {
  using T = float;
  static constexpr int kTerms = 0;
  static F widen(const T* p) { return load(p); }
};
struct StoredBf16 {
  using T = uint16_t;
  static constexpr int kTerms = 0;
  static F widen(const T* p) { return from_bits(shl(load_u16(p), 16)); }
};
struct StoredF16 {
  using T = uint16_t;
  static constexpr int kTerms = 0;
  static F widen(const T* p) { return load_f16(p); }
};
template <int Terms>
struct StoredI8 {
  using T = int8_t;
  static constexpr int kTerms = Terms;
  static F widen(const T* p) { return i2f(load_i8(p)); }
};

// A packed weight that is not float32. Scales and offsets lie in panels as the elements do, one row
// for `block` rows of these; a block divides a segment.
struct Stored {
  int64_t storage;
  const void* elements;
  const float *scale, *offset;
  int64_t block;

  // f of the type that says how elements are kept.
  template <class Fn>
  void visit(Fn f) const {
    if (storage == kStoredBf16) return f(StoredBf16{});
    if (storage == kStoredF16) return f(StoredF16{});
    offset ? f(StoredI8<2>{}) : f(StoredI8<1>{});
  }
};

// Rows k .. k + count of a panel of K rows as float32, k at the start of a block.
inline void widen_rows(const Stored& s, int64_t K, int64_t panel, int64_t k, int64_t count,
                       float* dst) {
  s.visit([&](auto kind) {
    using S = decltype(kind);
    const auto* from = static_cast<const typename S::T*>(s.elements) + (panel * K + k) * kPanel;
    const int64_t run = S::kTerms ? s.block : count;
    const int64_t terms = S::kTerms ? (panel * (K / run) + k / run) * kPanel : 0;
    const float *scale = s.scale + terms, *offset = s.offset + (S::kTerms > 1 ? terms : 0);
    for (; count > 0; count -= run, scale += kPanel, offset += kPanel) {
      F m[kTileVectors], b[kTileVectors];
      for (int v = 0; v < kTileVectors; ++v) {
        m[v] = S::kTerms > 0 ? load(scale + v * W) : zero();
        b[v] = S::kTerms > 1 ? load(offset + v * W) : zero();
      }
      for (int64_t i = 0; i < run; ++i, from += kPanel, dst += kPanel)
        for (int v = 0; v < kTileVectors; ++v) {
          F x = S::widen(from + v * W);
          if (S::kTerms > 0) x = mul(x, m[v]);
          if (S::kTerms > 1) x = add(x, b[v]);
          store(dst + v * W, x);
        }
    }
  });
}

}  // namespace ree::REE_ISA::contraction
