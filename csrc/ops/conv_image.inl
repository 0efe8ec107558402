// The shape of a convolution, and the copy of its images that the kernels read: with their border
// of +0, the channels of a row next to each other, and columns sorted by their remainder modulo the
// stride. What one k needs for neighbouring pixels then lies side by side.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "gemm_pack.inl"

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

  explicit Convolution(const abi::ConvolutionArgs& p)
      : N(p.images), C(p.channels), CO(p.y_channels), groups(p.groups) {
    for (int i = 0; i < 3; ++i) {
      in[i] = p.x_size[i], out[i] = p.y_size[i], kernel[i] = p.window[i];
      stride[i] = p.stride[i], pad[i] = p.padding[i], dilation[i] = p.dilation[i];
    }
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
      int64_t low = std::min<int64_t>(ceil_div(pad[2] > r ? pad[2] - r : 0, stride[2]), width);
      int64_t high = in[2] + pad[2] > r ? ceil_div(in[2] + pad[2] - r, stride[2]) : 0;
      remainders.push_back({is_read(2, r), low, std::min<int64_t>(high < low ? low : high, width)});
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
      const auto [is_read, low, high] = remainders[static_cast<size_t>(r)];
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
      if (!is_row_read[0][static_cast<size_t>(d)]) continue;
      const int64_t xd = d - pad[0];
      for (int64_t h = h0; h < h1; ++h) {
        if (!is_row_read[1][static_cast<size_t>(h)]) continue;
        const int64_t xh = h - pad[1];
        float* line = to + d * plane + h * row;
        if (xd < 0 || xd >= in[0] || xh < 0 || xh >= in[1])
          std::memset(line, 0, 4 * static_cast<size_t>(channel));
        else
          copy_columns(x + (xd * in[1] + xh) * in[2], line);
      }
    }
  }
};

}  // namespace ree::REE_ISA::contraction
