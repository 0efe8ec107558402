// Convolution. The chain of an output element is that of a contraction whose k runs over (channel,
// window position); blocks, packing and threads are free, as in gemm.inl. Images are copied first
// (conv_image.inl).
#pragma once
#include "conv_tiles.inl"
#include "gemm.inl"

namespace ree::REE_ISA::contraction {

// Up to kFewChannels channels of a group: no panels, whose vectors would be used too few times.
inline constexpr int64_t kFewChannels = 8;

// All taps for R channels and up to V vectors of pixels.
template <int R, int V>
void taps(const float* const* at, const int64_t* offsets, const float* w, int64_t K,
          float* const* out, int64_t c_row, const int64_t* length) {
  F total[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) total[r][v] = zero();
  for (int64_t start = 0; start < K; start += kSegment) {
    F s[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) s[r][v] = zero();
    const int64_t end = std::min<int64_t>(start + kSegment, K);
    for (int64_t k = start; k < end; ++k) {
      const int64_t o = offsets[k];
      F y[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) y[v] = load(at[v] + o);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const F x = set1(w[r * K + k]);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) s[r][v] = fma(x, y[v], s[r][v]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) total[r][v] = add(total[r][v], s[r][v]);
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v)
      store_partial(out[v] + r * c_row, canonical(total[r][v]), static_cast<int>(length[v]));
}

// Lines [l0, l1) of R channels; base is the group's copy, w and c the first channel's.
template <int R>
void lines_of(const Convolution& conv, const float* base, const int64_t* offsets, const float* w,
              float* c, int64_t l0, int64_t l1) {
  constexpr int V = R < 3 ? 6 : 4;
  const int64_t width = conv.out[2];
  const float* at[V];
  float* out[V];
  int64_t length[V];
  int n = 0;
  for (int64_t l = l0; l < l1; ++l) {
    const float* line = base + conv.line(l);
    for (int64_t i = 0; i < width; i += W) {
      at[n] = line + i;
      out[n] = c + l * width + i;
      length[n] = width - i;
      if (++n < V) continue;
      taps<R, V>(at, offsets, w, conv.K, out, conv.pixels, length);
      n = 0;
    }
  }
  for (int i = 0; i < n; ++i)
    taps<R, 1>(at + i, offsets, w, conv.K, out + i, conv.pixels, length + i);
}

// Lines [l0, l1) of all channels of group g of image i, whose copy is at `base`.
inline void few_channels(const Convolution& conv, const Contraction& x, const int64_t* offsets,
                         const float* base, int64_t i, int64_t g, int64_t l0, int64_t l1) {
  const int64_t row = (i * conv.groups + g) * conv.M, width = conv.out[2];
  for (int64_t m = 0; m < conv.M; m += 4) {
    const float* w = x.a + (g * conv.M + m) * conv.K;
    float* c = x.c + (row + m) * conv.pixels;
    switch (std::min<int64_t>(4, conv.M - m)) {
      case 1: lines_of<1>(conv, base, offsets, w, c, l0, l1); break;
      case 2: lines_of<2>(conv, base, offsets, w, c, l0, l1); break;
      case 3: lines_of<3>(conv, base, offsets, w, c, l0, l1); break;
      case 4: lines_of<4>(conv, base, offsets, w, c, l0, l1); break;
    }
  }
  if (x.tile) x.tile(x.tile_bufs, x.tile_params, row, row + conv.M, l0 * width, l1 * width);
}

// Many groups of few channels: each is copied and convolved while it is in L1.
inline void convolve_groups(Pool& pool, Convolution conv, const Contraction& x, const float* images,
                            int64_t in) {
  conv.hold(conv.CG);
  int64_t* offsets = static_cast<int64_t*>(pool.shared(8 * static_cast<size_t>(conv.K)));
  conv.fill_offsets(offsets);
  const size_t bytes = 4 * static_cast<size_t>(conv.image + 2 * W);
  pool.parallel_for(conv.N * conv.groups, [&](int64_t e, int thread) {
    float* copy = static_cast<float*>(pool.scratch(thread, bytes));
    for (int64_t c = 0; c < conv.CG; ++c)
      conv.copy_channel(images + (e * conv.CG + c) * in, copy + c * conv.channel);
    few_channels(conv, x, offsets, copy, e / conv.groups, e % conv.groups, 0,
                 conv.out[0] * conv.out[1]);
  });
}

// Copies `count` images, of `in` floats a channel.
inline void copy_images(Pool& pool, const Convolution& conv, const float* images, int64_t in,
                        int64_t count, float* copy) {
  const int64_t channels = count * conv.C, rows = conv.rows[1];
  if (channels == 0) return;
  const int64_t floats = channels * rows * conv.rows[0] * conv.channel;
  const int64_t parts = std::min<int64_t>(ceil_div(floats, 8192), 8 * pool.threads());
  const int64_t cuts = std::min<int64_t>(ceil_div(parts, channels), rows);  // of a channel
  const int64_t share = std::max<int64_t>(1, channels / std::max<int64_t>(1, parts));
  pool.parallel_for(ceil_div(channels, share) * cuts, [&](int64_t i, int) {
    const int64_t first = i / cuts * share, cut = i % cuts;
    for (int64_t c = first; c < std::min<int64_t>(first + share, channels); ++c)
      conv.copy_rows(images + c * in, copy + c / conv.C * conv.image + c % conv.C * conv.channel,
                     cut * rows / cuts, (cut + 1) * rows / cuts);
  });
}

inline void convolve(Pool& pool, const Convolution& conv, const Contraction& x,
                     const float* images) {
  const int64_t in = conv.in[0] * conv.in[1] * conv.in[2], lines = conv.out[0] * conv.out[1];
  const bool few = conv.M <= kFewChannels;
  if (few && conv.N * conv.groups >= 4 * pool.threads())
    return convolve_groups(pool, conv, x, images, in);
  // offsets, weights, then the copy of some images, and what a last vector reads beyond: as many
  // images as stay in L2, or more where they have few pixels for weights to be packed for
  const int64_t fit = std::max<int64_t>(1, (int64_t(1) << 18) / std::max<int64_t>(1, conv.image));
  const int64_t enough = std::min<int64_t>(
      ceil_div(1024, conv.pixels),
      std::max<int64_t>(1, (int64_t(1) << 21) / std::max<int64_t>(1, conv.image)));
  const int64_t each = std::min<int64_t>(fit > enough ? fit : enough, conv.N);
  const PixelBlock some(conv, x, nullptr, nullptr, 0, 0);
  const int64_t uses = ceil_div(conv.N, each) * blocks_of(some, each * lines, pool.threads());
  const int64_t weights = few ? 0 : packed_floats(conv, uses);
  char* shared =
      static_cast<char*>(pool.shared(8 * static_cast<size_t>(conv.K + 8) +
                                     4 * static_cast<size_t>(weights + each * conv.image + 2 * W)));
  int64_t* offsets = reinterpret_cast<int64_t*>(shared);
  float* packed = reinterpret_cast<float*>(shared + (conv.K + 7) / 8 * 64);
  float* copy = packed + weights;
  conv.fill_offsets(offsets);
  if (weights)
    pack_batch(pool, x.a, packed, conv.K, conv.M, 1, conv.K, conv.groups, conv.M * conv.K);
  for (int64_t done = 0; done < conv.N; done += each) {
    const int64_t count = std::min<int64_t>(each, conv.N - done);
    copy_images(pool, conv, images + done * conv.C * in, in, count, copy);
    if (few) {
      const int64_t groups = count * conv.groups;
      const int64_t cuts =
          std::max<int64_t>(1, std::min<int64_t>(8 * pool.threads() / groups, lines));
      pool.parallel_for(groups * cuts, [&](int64_t i, int) {
        const int64_t e = i / cuts, cut = i % cuts;
        const float* base =
            copy + e / conv.groups * conv.image + e % conv.groups * conv.CG * conv.channel;
        few_channels(conv, x, offsets, base, done + e / conv.groups, e % conv.groups,
                     cut * lines / cuts, (cut + 1) * lines / cuts);
      });
      continue;
    }
    convolve_tiles(pool, conv, x, copy, offsets, weights ? packed : nullptr, done, count);
  }
}

}  // namespace ree::REE_ISA::contraction

namespace ree::REE_ISA {

// w, x and y are contiguous, and have three axes behind the channels. The tile function's rows are
// images * y_channels, its columns the pixels.
static void convolution(Pool& pool, const abi::ConvolutionArgs& p) {
  using namespace contraction;
  const Convolution conv(p);
  if (conv.N <= 0 || conv.CO <= 0 || conv.pixels <= 0) return;
  Contraction x{};
  x.batch1 = conv.groups;
  x.count = conv.N * conv.groups;
  x.M = conv.M, x.N = conv.pixels, x.K = conv.K;
  x.a = p.w;
  x.a_b1 = conv.M * conv.K, x.a_row = conv.K, x.a_k = 1;
  x.c = p.y;
  x.c_b0 = conv.CO * conv.pixels, x.c_b1 = conv.M * conv.pixels, x.c_row = conv.pixels;
  x.take_tile(p);
  if (!conv.is_one_by_one()) return convolve(pool, conv, x, p.x);
  x.b = p.x;
  x.b_b0 = conv.C * conv.pixels, x.b_b1 = conv.CG * conv.pixels;
  x.b_k = conv.pixels, x.b_n = 1;
  contract(pool, x);
}

}  // namespace ree::REE_ISA
