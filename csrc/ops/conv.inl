// Convolution. The chain of an output element is that of a contraction whose k runs over (channel,
// window position); blocks, packing and threads are free, as in gemm.inl. Output rows are channels,
// output columns pixels, so weights are the left operand and the right one is made a panel at a time
// from a copy of the image that has its border of +0, and its columns sorted by their remainder
// modulo the stride: what one k needs for neighbouring pixels then lies side by side.
#include <cstring>

namespace ree::REE_ISA::contraction {

struct Convolution {
  int64_t N, C, in[3], CO, out[3], kernel[3], stride[3], pad[3], dilation[3], groups;
  int64_t CG, M, K, pixels;   // channels of a group in and out, taps, pixels of an output channel
  int64_t rows[2], width;     // of the copy: planes and rows used, floats of one remainder
  int64_t row, plane, channel, image;  // floats of the copy

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
    for (int i = 0; i < 2; ++i) rows[i] = (out[i] - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1;
    width = ceil_div((out[2] - 1) * stride[2] + (kernel[2] - 1) * dilation[2] + 1, stride[2]);
    row = width * stride[2];
    plane = row * rows[1];
    channel = plane * rows[0];
    image = channel * C;
  }

  bool is_one_by_one() const {
    for (int i = 0; i < 3; ++i)
      if (kernel[i] != 1 || stride[i] != 1 || pad[i] != 0) return false;
    return true;
  }
  // Where tap k lies, relative to its pixel.
  int64_t offset(int64_t k) const {
    const int64_t w = k % kernel[2] * dilation[2], h = k / kernel[2] % kernel[1] * dilation[1];
    const int64_t d = k / kernel[2] / kernel[1] % kernel[0] * dilation[0];
    const int64_t c = k / kernel[2] / kernel[1] / kernel[0];
    return c * channel + d * plane + h * row + w % stride[2] * width + w / stride[2];
  }
  // Where the first of a row of pixels lies; line counts rows of all planes.
  int64_t line(int64_t i) const {
    return i / out[1] * stride[0] * plane + i % out[1] * stride[1] * row;
  }
  bool is_read(int axis, int64_t at) const {
    for (int64_t k = 0; k < kernel[axis]; ++k) {
      int64_t first = at - k * dilation[axis];
      if (first >= 0 && first % stride[axis] == 0) return true;
    }
    return false;
  }

  void copy_columns(const float* x, float* to) const {
    for (int64_t r = 0; r < stride[2]; ++r, to += width) {
      // column i holds x[i * stride + r - pad]
      int64_t low = smaller(ceil_div(pad[2] > r ? pad[2] - r : 0, stride[2]), width);
      int64_t high = in[2] + pad[2] > r ? ceil_div(in[2] + pad[2] - r, stride[2]) : 0;
      high = smaller(high < low ? low : high, width);
      for (int64_t i = 0; i < low; ++i) to[i] = 0.0f;
      const float* from = x + low * stride[2] + r - pad[2];
      if (stride[2] == 1) {
        if (high > low) std::memcpy(to + low, from, 4 * (size_t)(high - low));
      } else {
        for (int64_t i = low; i < high; ++i, from += stride[2]) to[i] = *from;
      }
      for (int64_t i = high; i < width; ++i) to[i] = 0.0f;
    }
  }
  void copy_channel(const float* x, float* to) const {
    for (int64_t d = 0; d < rows[0]; ++d) {
      if (!is_read(0, d)) continue;
      const int64_t xd = d - pad[0];
      for (int64_t h = 0; h < rows[1]; ++h) {
        if (!is_read(1, h)) continue;
        const int64_t xh = h - pad[1];
        float* line = to + d * plane + h * row;
        if (xd < 0 || xd >= in[0] || xh < 0 || xh >= in[1])
          std::memset(line, 0, 4 * (size_t)row);
        else
          copy_columns(x + (xd * in[1] + xh) * in[2], line);
      }
    }
  }
};

// Right-hand panels of a contraction, made from the copy.
struct Patches {
  const Convolution& conv;
  const float* copy;  // of the images from `first_image` on
  int64_t first_image;
  const int64_t* offsets;  // of each k

  const float* of(int64_t e) const {
    return copy + (e / conv.groups - first_image) * conv.image +
           e % conv.groups * conv.CG * conv.channel;
  }
  // Rows k .. k + count of panel j; writes up to W - 1 floats more. Columns past the last pixel are
  // not defined.
  void pack(int64_t e, int64_t j, int64_t k, int64_t count, float* dst) const {
    struct Run {
      int64_t source, column, length;
    } runs[kPanel];
    int n = 0;
    const int64_t width = conv.out[2], end = smaller((j + 1) * kPanel, conv.pixels);
    for (int64_t p = j * kPanel; p < end; ++n) {
      int64_t length = smaller(width - p % width, end - p);
      runs[n] = {conv.line(p / width) + p % width, p - j * kPanel, length};
      p += length;
    }
    const float* base = of(e);
    for (int64_t i = 0; i < count; ++i, dst += kPanel) {
      const float* from = base + offsets[k + i];
      for (int r = 0; r < n; ++r)
        for (int64_t c = 0; c < runs[r].length; c += W)
          store(dst + runs[r].column + c, load(from + runs[r].source + c));
    }
  }
};

inline void pack_patches(const Patches& p, int64_t e, int64_t j, int64_t k, int64_t count,
                         float* dst) {
  p.pack(e, j, k, count, dst);
}

inline constexpr int64_t kFewChannels = 3;  // of a group, up to which panels do not pay
inline constexpr int kWays = 6;             // vectors of pixels at once

// All taps for up to kWays vectors of pixels of one channel.
template <int V>
void taps(const float* const (&at)[kWays], const int64_t* offsets, const float* w, int64_t K,
          float* const (&out)[kWays], const int64_t (&length)[kWays]) {
  F total[V];
  for (int v = 0; v < V; ++v) total[v] = zero();
  for (int64_t start = 0; start < K; start += kSegment) {
    F s[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) s[v] = zero();
    const int64_t end = smaller(start + kSegment, K);
    for (int64_t k = start; k < end; ++k) {
      const F x = set1(w[k]);
      const int64_t o = offsets[k];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) s[v] = fma(x, load(at[v] + o), s[v]);
    }
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) total[v] = add(total[v], s[v]);
  }
  for (int v = 0; v < V; ++v) store_partial(out[v], canonical(total[v]), (int)length[v]);
}

// Lines [l0, l1) of output channel m of element e.
inline void few_channels(const Contraction& x, const Patches& p, int64_t e, int64_t m, int64_t l0,
                         int64_t l1) {
  const Convolution& conv = p.conv;
  const int64_t width = conv.out[2];
  const float *base = p.of(e), *w = x.a_of(e) + m * x.a_row;
  float* c = x.c_of(e) + m * x.c_row;
  const float* at[kWays];
  float* out[kWays];
  int64_t length[kWays];
  int n = 0;
  for (int64_t l = l0; l < l1; ++l)
    for (int64_t i = 0; i < width; i += W) {
      at[n] = base + conv.line(l) + i;
      out[n] = c + l * width + i;
      length[n] = width - i;
      if (++n < kWays) continue;
      taps<kWays>(at, p.offsets, w, conv.K, out, length);
      n = 0;
    }
  for (int i = 0; i < n; ++i) {
    at[0] = at[i], out[0] = out[i], length[0] = length[i];
    taps<1>(at, p.offsets, w, conv.K, out, length);
  }
  const int64_t r = e * x.M + m;
  if (x.tile) x.tile(x.tile_bufs, x.tile_params, r, r + 1, l0 * width, l1 * width);
}

inline void convolve(Pool& pool, const Convolution& conv, Contraction x, const float* images) {
  // offsets, then the copy of as many images as stay in cache, and what a last vector reads beyond
  const int64_t each = smaller(at_least_one((int64_t(1) << 20) / at_least_one(conv.image)), conv.N);
  char* shared = static_cast<char*>(
      pool.shared(8 * (size_t)(conv.K + 8) + 4 * (size_t)(each * conv.image + 2 * W)));
  int64_t* offsets = reinterpret_cast<int64_t*>(shared);
  float* copy = reinterpret_cast<float*>(shared + (conv.K + 7) / 8 * 64);
  for (int64_t k = 0; k < conv.K; ++k) offsets[k] = conv.offset(k);
  const int64_t in = conv.in[0] * conv.in[1] * conv.in[2], lines = conv.out[0] * conv.out[1];
  for (int64_t done = 0; done < conv.N; done += each) {
    const int64_t count = smaller(each, conv.N - done), channels = count * conv.C;
    const int64_t share = at_least_one(smaller(channels / 16, 16384 / at_least_one(conv.channel)));
    pool.parallel_for(ceil_div(channels, share), [&](int64_t i, int) {
      for (int64_t c = i * share; c < smaller((i + 1) * share, channels); ++c)
        conv.copy_channel(images + (done * conv.C + c) * in, copy + c * conv.channel);
    });
    const Patches patches{conv, copy, done, offsets};
    x.first = done * conv.groups;
    x.count = count * conv.groups;
    if (x.M > kFewChannels) {
      x.patches = &patches;
      contract_blocks(pool, x, choose_blocks(x, pool.threads()));
      continue;
    }
    const int64_t rows = x.count * x.M;
    const int64_t cuts = at_least_one(smaller(smaller(worthwhile(x), 8 * pool.threads()) / rows, lines));
    pool.parallel_for(rows * cuts, [&](int64_t i, int) {
      const int64_t r = i / cuts, cut = i % cuts;
      few_channels(x, patches, x.first + r / x.M, r % x.M, cut * lines / cuts,
                   (cut + 1) * lines / cuts);
    });
  }
}

}  // namespace ree::REE_ISA::contraction

namespace ree::REE_ISA {

// bufs W, X, Y, then the tile function's, all contiguous; params N, C, (D, H, W) of x, CO, (D, H, W)
// of y, window, stride, padding and dilation by axis, groups, tile function or 0, then its own. The
// tile function's rows are N * CO, its columns the pixels.
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
