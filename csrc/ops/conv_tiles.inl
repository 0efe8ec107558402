// Convolution with more than a few channels out. A tile is kTileRows pixels or fewer by a panel of
// channels: pixels are read where they lie in the copy of the image, one broadcast each, and
// weights are packed, a segment of a panel at a time, for all tiles of a block.
#pragma once
#include <algorithm>

#include "conv_image.inl"
#include "gemm_blocks.inl"

namespace ree::REE_ISA::contraction {

// Pixels of a tile come in up to kPieces runs of neighbours.
inline constexpr int kPieces = 4;
constexpr int pieces_of(int pixels) {
  return pixels * kPieces <= kTileRows ? kPieces : kTileRows / pixels;
}

// One segment of a tile.
struct PixelStep {
  const float* at[kPieces];  // where the first pixel of each piece lies
  const int64_t* offsets;    // of the taps
  const float* w;            // `k` rows of kPanel floats
  int64_t k;                 // at most kSegment
  float* total;              // rows of kPanel floats
  bool is_first;
};

template <int P, int H, int V>
inline void pixels_k(const float* const* at, int64_t o, const float* w, F (&s)[P * H][V]) {
  F y[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) y[v] = load(w + v * W);
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 16
    for (int i = 0; i < P; ++i) {
      const F x = set1(at[h][o + i]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        s[h * P + i][v] = fma(x, y[v], s[h * P + i][v]);
        keep(s[h * P + i][v]);
      }
    }
}

template <int P, int H, int V>
void pixel_step(const PixelStep& t) {
  F s[P * H][V];
#pragma GCC unroll 16
  for (int r = 0; r < P * H; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) s[r][v] = zero();
  const float* at[H];
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h) at[h] = t.at[h];
  const int64_t* offsets = t.offsets;
  const float* w = t.w;
  int64_t k = t.k;
  const float* next = t.total + P * H * kPanel;  // totals of the next tile, a line a turn
  for (; k >= 4; k -= 4, offsets += 4, w += 4 * kPanel, next += 16) {
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) pixels_k<P, H, V>(at, offsets[u], w + u * kPanel, s);
    __builtin_prefetch(next, 1, 3);
  }
  for (; k > 0; --k, ++offsets, w += kPanel) pixels_k<P, H, V>(at, *offsets, w, s);
  // The first segment is added to +0, not copied: the total is then never -0.
  float* total = t.total;
  if (t.is_first) {
#pragma GCC unroll 16
    for (int r = 0; r < P * H; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(total + r * kPanel + v * W, add(zero(), s[r][v]));
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < P * H; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        float* to = total + r * kPanel + v * W;
        store(to, add(load(to), s[r][v]));
      }
  }
}

using PixelStepFn = void (*)(const PixelStep&);
template <int... P>
struct PixelSteps {
  static constexpr PixelStepFn full[] = {&pixel_step<P + 1, pieces_of(P + 1), kTileVectors>...};
  static constexpr PixelStepFn narrow[] = {&pixel_step<P + 1, pieces_of(P + 1), 1>...};
  static constexpr PixelStepFn single[] = {&pixel_step<P + 1, 1, kTileVectors>...};
  static constexpr PixelStepFn single_narrow[] = {&pixel_step<P + 1, 1, 1>...};
};
template <int N, int... P>
struct MakePixelSteps : MakePixelSteps<N - 1, N - 1, P...> {};
template <int... P>
struct MakePixelSteps<0, P...> : PixelSteps<P...> {};
using PixelTable = MakePixelSteps<kTileRows>;

// Some neighbours of a line: where their copy starts, how many they are.
struct Piece {
  const float* at;
  int64_t pixels;
};

// Lines of pixels, of all images at hand, cut into pieces whose lengths differ by one at most.
// Whole lines share tiles where several of them fit.
struct PixelBlock {
  const Convolution& conv;
  const Contraction& x;
  const float* base;       // the group's copy of the first image
  const int64_t* offsets;  // of each k
  int64_t first_image, group;
  int64_t lines, width, cuts;  // of an image, of a line, pieces of a line
  int64_t H;                   // pieces of a tile

  PixelBlock(const Convolution& conv, const Contraction& x, const float* copy,
             const int64_t* offsets, int64_t first_image, int64_t group)
      : conv(conv),
        x(x),
        base(copy + group * conv.CG * conv.channel),
        offsets(offsets),
        first_image(first_image),
        group(group),
        lines(conv.out[0] * conv.out[1]),
        width(conv.out[2]),
        cuts(ceil_div(width, kTileRows)),
        H(cuts == 1 ? pieces_of(static_cast<int>(width)) : 1) {}

  // Calls fn(image, line of the image, lines) for the parts of lines [l0, l1) in one image each.
  template <class Fn>
  void for_images(int64_t l0, int64_t l1, Fn fn) const {
    for (int64_t l = l0; l < l1;) {
      const int64_t line = l % lines, n = std::min<int64_t>(lines - line, l1 - l);
      fn(l / lines, line, n);
      l += n;
    }
  }
  float* target(int64_t image, int64_t channel) const {
    return x.c + (((first_image + image) * conv.groups + group) * conv.M + channel) * conv.pixels;
  }

  // Rows of totals, one for each of `pixels` neighbours, to columns of C.
  void write(const float* total, float* c, int64_t pixels, int64_t channels) const {
    for (int v = 0; v * W < channels; ++v)
      for (int64_t i = 0; i < pixels; i += W) {
        const int n = static_cast<int>(std::min<int64_t>(pixels - i, W));
        F r[W];
        for (int j = 0; j < W; ++j)
          r[j] = j < n ? canonical(load(total + (i + j) * kPanel + v * W)) : zero();
        transpose(r);
        float* to = c + v * W * conv.pixels + i;
        const int64_t last = std::min<int64_t>(channels - v * W, W);
        for (int64_t j = 0; j < last; ++j, to += conv.pixels) store_partial(to, r[j], n);
      }
  }

  // Lines [l0, l1) of channels [m0, m0 + kPanel). packed: their weights, or null, and then they are
  // packed into `weights`, a segment at a time. parts: as many as there are pieces.
  void run(int64_t m0, int64_t l0, int64_t l1, const float* packed, float* weights, float* totals,
           Piece* parts) const {
    const int64_t channels = std::min<int64_t>(kPanel, conv.M - m0), pieces = (l1 - l0) * cuts;
    Piece* to = parts;
    for_images(l0, l1, [&](int64_t image, int64_t line, int64_t n) {
      for (int64_t l = line; l < line + n; ++l)
        for (int64_t cut = 0; cut < cuts; ++cut) {
          const int64_t start = cut * width / cuts, end = (cut + 1) * width / cuts;
          *to++ = {base + image * conv.image + conv.line(l) + start, end - start};
        }
    });
    const bool is_narrow = channels <= W;
    const PixelStepFn* const steps =
        H == 1 ? (is_narrow ? PixelTable::single_narrow : PixelTable::single)
               : (is_narrow ? PixelTable::narrow : PixelTable::full);
    const float* w = x.a + (group * conv.M + m0) * conv.K;
    PixelStep t{};
    for (int64_t k = 0; k == 0 || k < conv.K; k += kSegment) {
      t.k = std::min<int64_t>(kSegment, conv.K - k);
      t.offsets = offsets + k;
      t.is_first = k == 0;
      t.w = packed ? packed + k * kPanel : weights;
      if (!packed) pack_panel(w + k, 1, conv.K, t.k, channels, weights);
      t.total = totals;
      for (int64_t q = 0; q < pieces; q += H) {
        for (int64_t h = 0; h < H; ++h) t.at[h] = parts[std::min<int64_t>(q + h, pieces - 1)].at;
        steps[parts[q].pixels - 1](t);
        t.total += parts[q].pixels * H * kPanel;
      }
    }
    for_images(l0, l1, [&](int64_t image, int64_t line, int64_t n) {
      float* c = target(image, m0);
      write(totals, c + line * width, n * width, channels);
      totals += n * width * kPanel;
      const int64_t row = ((first_image + image) * conv.groups + group) * conv.M + m0;
      if (x.tile)
        x.tile(x.tile_bufs, x.tile_params, row, row + channels, line * width, (line + n) * width);
    });
  }
};

// How lines are divided: into blocks of about kBlockTiles tiles, but enough of them for all
// threads.
inline int64_t blocks_of(const PixelBlock& some, int64_t lines, int threads) {
  constexpr int64_t kBlockTiles = 32;
  const int64_t columns = ceil_div(some.conv.M, kPanel) * some.conv.groups;
  const int64_t blocks = ceil_div(lines * ceil_div(some.cuts, some.H), kBlockTiles);
  const int64_t wanted = threads > 1 ? ceil_div(8 * threads, columns) : 1;
  return std::min<int64_t>(blocks > wanted ? blocks : wanted, lines);
}

// Floats of all weights as panels, where those of a panel are used more than once.
inline int64_t packed_floats(const Convolution& conv, int64_t uses) {
  return uses > 1 ? conv.groups * ceil_div(conv.M, kPanel) * conv.K * kPanel : 0;
}

// `count` images, whose copy is at `copy`. packed: the weights, or null.
inline void convolve_tiles(Pool& pool, const Convolution& conv, const Contraction& x,
                           const float* copy, const int64_t* offsets, const float* packed,
                           int64_t first_image, int64_t count) {
  const PixelBlock some(conv, x, copy, offsets, first_image, 0);
  const int64_t lines = count * some.lines, panels = ceil_div(conv.M, kPanel);
  const int64_t blocks = blocks_of(some, lines, pool.threads());
  const int64_t most = ceil_div(lines, blocks), rows = (most + some.H) * some.width;
  const size_t floats = static_cast<size_t>(kSegment * kPanel + rows * kPanel);
  const size_t bytes = 4 * floats + sizeof(Piece) * static_cast<size_t>(most * some.cuts);
  pool.parallel_for(conv.groups * blocks * panels, [&](int64_t i, int thread) {
    const int64_t panel = i % panels, block = i / panels % blocks, group = i / panels / blocks;
    float* scratch = static_cast<float*>(pool.scratch(thread, bytes));
    const float* w = packed ? packed + (group * panels + panel) * conv.K * kPanel : nullptr;
    PixelBlock(conv, x, copy, offsets, first_image, group)
        .run(panel * kPanel, block * lines / blocks, (block + 1) * lines / blocks, w, scratch,
             scratch + kSegment * kPanel, reinterpret_cast<Piece*>(scratch + floats));
  });
}

}  // namespace ree::REE_ISA::contraction
