// Convolution. The chain of an output element is that of a contraction whose k runs over (channel,
// window position); blocks, packing and threads are free, as in gemm.inl. Images are copied first:
// with their border of +0, the channels of a row next to each other, and columns sorted by their
// remainder modulo the stride. What one k needs for neighbouring pixels then lies side by side.
#include <cstring>
#include <vector>

namespace ree::REE_ISA::contraction {

struct Convolution {
  int64_t N, C, in[3], CO, out[3], kernel[3], stride[3], pad[3], dilation[3], groups;
  int64_t CG, M, K, pixels;  // channels of a group in and out, taps, pixels of an output channel
  int64_t rows[2], width;    // of the copy: planes and rows used, floats of one remainder
  int64_t row, plane, channel, image;  // floats of the copy
  std::vector<char> is_row_read[2];    // planes and rows that some window holds
  struct Remainder {
    bool is_read;
    int64_t low, high;  // columns [low, high) hold x[i * stride + remainder - pad]; the rest are +0
  };
  std::vector<Remainder> remainders;

  explicit Convolution(const int64_t* p) {
    int64_t* const at[] = {&N, &C, in, in + 1, in + 2, &CO, out, out + 1, out + 2};
    for (int64_t* v : at) *v = *p++;
    for (int64_t* v : {kernel, stride, pad, dilation})
      for (int i = 0; i < 3; ++i) v[i] = *p++;
    groups = *p;
    CG = C / groups;
    M = CO / groups;
    K = CG * kernel[0] * kernel[1] * kernel[2];
    pixels = out[0] * out[1] * out[2];
    for (int i = 0; i < 2; ++i)
      rows[i] = (out[i] - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1;
    width = ceil_div((out[2] - 1) * stride[2] + (kernel[2] - 1) * dilation[2] + 1, stride[2]);
    hold(C);
    for (int i = 0; i < 2; ++i)
      for (int64_t r = 0; r < rows[i]; ++r) is_row_read[i].push_back(is_read(i, r));
    for (int64_t r = 0; r < stride[2]; ++r) {
      int64_t low = smaller(ceil_div(pad[2] > r ? pad[2] - r : 0, stride[2]), width);
      int64_t high = in[2] + pad[2] > r ? ceil_div(in[2] + pad[2] - r, stride[2]) : 0;
      remainders.push_back({is_read(2, r), low, smaller(high < low ? low : high, width)});
    }
  }

  // The copy holds so many channels.
  void hold(int64_t channels) {
    channel = width * stride[2];
    row = channel * channels;
    plane = row * rows[1];
    image = plane * rows[0];
  }
  bool is_one_by_one() const {
    for (int i = 0; i < 3; ++i)
      if (kernel[i] != 1 || stride[i] != 1 || pad[i] != 0) return false;
    return true;
  }
  // Where each tap lies, relative to its pixel.
  void fill_offsets(int64_t* to) const {
    for (int64_t c = 0; c < CG; ++c)
      for (int64_t d = 0; d < kernel[0]; ++d)
        for (int64_t h = 0; h < kernel[1]; ++h)
          for (int64_t w = 0; w < kernel[2]; ++w)
            *to++ = c * channel + d * dilation[0] * plane + h * dilation[1] * row +
                    w * dilation[2] % stride[2] * width + w * dilation[2] / stride[2];
  }
  // Where the first of a row of pixels lies; line counts rows of all planes.
  int64_t line(int64_t i) const {
    return i / out[1] * stride[0] * plane + i % out[1] * stride[1] * row;
  }
  // Whether some window holds a plane, row or column of remainder `at` modulo the stride.
  bool is_read(int axis, int64_t at) const {
    if (stride[axis] == 1) return true;
    for (int64_t k = 0; k < kernel[axis]; ++k)
      if ((at - k * dilation[axis]) % stride[axis] == 0) return true;
    return false;
  }

  void copy_columns(const float* x, float* to) const {
    for (int64_t r = 0; r < stride[2]; ++r, to += width) {
      const auto [is_read, low, high] = remainders[(size_t)r];
      if (!is_read) continue;
      for (int64_t i = 0; i < low; ++i) to[i] = 0.0f;
      const float* from = x + low * stride[2] + r - pad[2];
      if (stride[2] == 1) {
        copy_row(from, to + low, high - low);
      } else if (stride[2] == 2) {
        for (int64_t i = low; i < high; ++i) to[i] = from[2 * (i - low)];
      } else {
        for (int64_t i = low; i < high; ++i, from += stride[2]) to[i] = *from;
      }
      for (int64_t i = high; i < width; ++i) to[i] = 0.0f;
    }
  }
  void copy_channel(const float* x, float* to) const { copy_rows(x, to, 0, rows[1]); }
  // Rows [h0, h1) of each plane.
  void copy_rows(const float* x, float* to, int64_t h0, int64_t h1) const {
    for (int64_t d = 0; d < rows[0]; ++d) {
      if (!is_row_read[0][(size_t)d]) continue;
      const int64_t xd = d - pad[0];
      for (int64_t h = h0; h < h1; ++h) {
        if (!is_row_read[1][(size_t)h]) continue;
        const int64_t xh = h - pad[1];
        float* line = to + d * plane + h * row;
        if (xd < 0 || xd >= in[0] || xh < 0 || xh >= in[1])
          std::memset(line, 0, 4 * (size_t)channel);
        else
          copy_columns(x + (xd * in[1] + xh) * in[2], line);
      }
    }
  }
};

}  // namespace ree::REE_ISA::contraction

#include "conv_tiles.inl"

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
    const int64_t end = smaller(start + kSegment, K);
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
      store_partial(out[v] + r * c_row, canonical(total[r][v]), (int)length[v]);
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
    switch (smaller(4, conv.M - m)) {
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
  int64_t* offsets = static_cast<int64_t*>(pool.shared(8 * (size_t)conv.K));
  conv.fill_offsets(offsets);
  const size_t bytes = 4 * (size_t)(conv.image + 2 * W);
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
  const int64_t floats = channels * rows * conv.rows[0] * conv.channel;
  const int64_t parts = smaller(ceil_div(floats, 8192), 8 * pool.threads());
  const int64_t cuts = smaller(ceil_div(parts, channels), rows);  // of a channel
  const int64_t share = at_least_one(channels / at_least_one(parts));
  pool.parallel_for(ceil_div(channels, share) * cuts, [&](int64_t i, int) {
    const int64_t first = i / cuts * share, cut = i % cuts;
    for (int64_t c = first; c < smaller(first + share, channels); ++c)
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
  const int64_t fit = at_least_one((int64_t(1) << 18) / at_least_one(conv.image));
  const int64_t enough = smaller(ceil_div(1024, conv.pixels),
                                 at_least_one((int64_t(1) << 21) / at_least_one(conv.image)));
  const int64_t each = smaller(fit > enough ? fit : enough, conv.N);
  const PixelBlock some(conv, x, nullptr, nullptr, 0, 0);
  const int64_t uses = ceil_div(conv.N, each) * blocks_of(some, each * lines, pool.threads());
  const int64_t weights = few ? 0 : packed_floats(conv, uses);
  char* shared = static_cast<char*>(
      pool.shared(8 * (size_t)(conv.K + 8) + 4 * (size_t)(weights + each * conv.image + 2 * W)));
  int64_t* offsets = reinterpret_cast<int64_t*>(shared);
  float* packed = reinterpret_cast<float*>(shared + (conv.K + 7) / 8 * 64);
  float* copy = packed + weights;
  conv.fill_offsets(offsets);
  if (weights)
    pack_batch(pool, x.a, packed, conv.K, conv.M, 1, conv.K, conv.groups, conv.M * conv.K);
  for (int64_t done = 0; done < conv.N; done += each) {
    const int64_t count = smaller(each, conv.N - done);
    copy_images(pool, conv, images + done * conv.C * in, in, count, copy);
    if (few) {
      const int64_t groups = count * conv.groups;
      const int64_t cuts = at_least_one(smaller(8 * pool.threads() / groups, lines));
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

// bufs W, X, Y, then the tile function's, all contiguous; params N, C, (D, H, W) of x, CO, (D, H,
// W) of y, window, stride, padding and dilation by axis, groups, tile function or 0, then its own.
// The tile function's rows are N * CO, its columns the pixels.
void convolution(Pool& pool, void* const* bufs, const int64_t* p) {
  using namespace contraction;
  const Convolution conv(p);
  if (conv.N <= 0 || conv.CO <= 0 || conv.pixels <= 0) return;
  const float* images = static_cast<const float*>(bufs[1]);
  Contraction x{};
  x.batch1 = conv.groups;
  x.count = conv.N * conv.groups;
  x.M = conv.M, x.N = conv.pixels, x.K = conv.K;
  x.a = static_cast<const float*>(bufs[0]);
  x.a_b1 = conv.M * conv.K, x.a_row = conv.K, x.a_k = 1;
  x.c = static_cast<float*>(bufs[2]);
  x.c_b0 = conv.CO * conv.pixels, x.c_b1 = conv.M * conv.pixels, x.c_row = conv.pixels;
  x.tile = reinterpret_cast<TileFn>(p[22]);
  x.tile_bufs = bufs + 3;
  x.tile_params = p + 23;
  if (!conv.is_one_by_one()) return convolve(pool, conv, x, images);
  x.b = images;
  x.b_b0 = conv.C * conv.pixels, x.b_b1 = conv.CG * conv.pixels;
  x.b_k = conv.pixels, x.b_n = 1;
  contract(pool, x);
}

}  // namespace ree::REE_ISA

#define REE_CONV_KERNELS REE_KERNEL(convolution)
