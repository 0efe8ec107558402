// Writing at indices along the middle axis of [outer, n, inner].
#pragma once
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "movement.inl"

namespace ree::REE_ISA {
namespace scattering {

struct Put {
  template <class T>
  static T apply(T, T update) {
    return update;
  }
};
struct Add {
  static float apply(float x, float update) { return canonical(x + update); }
  static int64_t apply(int64_t x, int64_t u) {
    return static_cast<int64_t>(static_cast<uint64_t>(x) + static_cast<uint64_t>(u));
  }
};

struct Shape {
  int64_t outer, n, inner, k;
  bool shared;
  template <class Args>
  explicit Shape(const Args& p)
      : outer(p.outer), n(p.n), inner(p.inner), k(p.updates), shared(p.shared != 0) {}
  // where the entry at position `at` of the index points
  int64_t target(int64_t v, int64_t at) const {
    int64_t low = shared ? -n : 0;
    if (v < low || v >= n) move::bad_index(v, at, low, n);
    return v < 0 ? v + n : v;
  }
};

// Items are (outer, strip of columns): no two write the same elements, and each walks the updates
// of its columns in order.
template <class Op, class T>
void run(Pool& pool, const T* x, const int64_t* idx, const T* src, T* y, Shape s) {
  if (s.inner == 0) return;
  int64_t work = s.outer * (s.n + s.k) * s.inner / (4 * pool.threads());
  int64_t strip = std::max<int64_t>(work / std::max<int64_t>(s.n + s.k, 1), 64);
  strip = std::min(strip, s.inner);
  int64_t strips = ceil_div(s.inner, strip);
  int64_t grain = move::kGrain / ((s.n + s.k) * strip + 1);
  move::pieces(pool, s.outer * strips, grain, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      int64_t o = item / strips, c0 = item % strips * strip;
      int64_t width = std::min(strip, s.inner - c0);
      const T* from = x + o * s.n * s.inner + c0;
      T* to = y + o * s.n * s.inner + c0;
      const T* update = src + o * s.k * s.inner + c0;
      for (int64_t r = 0; r < s.n && from != to; ++r)
        std::memcpy(to + r * s.inner, from + r * s.inner, static_cast<size_t>(width) * sizeof(T));
      for (int64_t j = 0; j < s.k; ++j, update += s.inner) {
        if (s.shared) {
          T* row = to + s.target(idx[j], j) * s.inner;
          for (int64_t c = 0; c < width; ++c) row[c] = Op::apply(row[c], update[c]);
          continue;
        }
        int64_t at = (o * s.k + j) * s.inner + c0;
        for (int64_t c = 0; c < width; ++c) {
          T* place = to + s.target(idx[at + c], at + c) * s.inner + c;
          *place = Op::apply(*place, update[c]);
        }
      }
    }
  });
}

}  // namespace scattering

// y = x, with y[o, index, c] = src[o, j, c] for j ascending; y may be x. The index is [outer,
// updates, inner], or, if shared, [updates] with negative indices from the end. Other indices throw
// std::out_of_range.
static void scatter(Pool& pool, const abi::ScatterArgs& p) {
  move::by_size(p.element_bytes, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    scattering::run<scattering::Put>(pool, static_cast<const T*>(p.x), p.index,
                                     static_cast<const T*>(p.src), static_cast<T*>(p.y),
                                     scattering::Shape(p));
  });
}

// As scatter, with y[o, index, c] += src[o, j, c].
static void scatter_add_f32(Pool& pool, const abi::ScatterAddF32Args& p) {
  scattering::run<scattering::Add>(pool, p.x, p.index, p.src, p.y, scattering::Shape(p));
}
static void scatter_add_i64(Pool& pool, const abi::ScatterAddI64Args& p) {
  scattering::run<scattering::Add>(pool, p.x, p.index, p.src, p.y, scattering::Shape(p));
}

}  // namespace ree::REE_ISA
