// The three SHA-256 instructions of x86 in C++, after their description in Intel's manual, for
// processors that lack them.
#pragma once
#include <cstdint>
#include <cstring>

namespace emulated {
struct Four {
  uint32_t w[4];
  explicit Four(__m128i x) { std::memcpy(w, &x, sizeof w); }
  Four(uint32_t a, uint32_t b, uint32_t c, uint32_t d) : w{a, b, c, d} {}
  operator __m128i() const {
    __m128i x;
    std::memcpy(&x, w, sizeof x);
    return x;
  }
};
inline uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

// a holds C D G H and b holds A B E F, highest word first; two rounds with words 0 and 1 of k
inline __m128i rnds2(__m128i x, __m128i y, __m128i z) {
  const Four cdgh(x), abef(y), k(z);
  uint32_t a = abef.w[3], b = abef.w[2], c = cdgh.w[3], d = cdgh.w[2];
  uint32_t e = abef.w[1], f = abef.w[0], g = cdgh.w[1], h = cdgh.w[0];
  for (int i = 0; i < 2; ++i) {
    const uint32_t t = h + k.w[i] + ((e & f) ^ (~e & g)) + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25));
    const uint32_t u = ((a & b) ^ (a & c) ^ (b & c)) + (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22));
    h = g, g = f, f = e, e = d + t, d = c, c = b, b = a, a = t + u;
  }
  return Four(f, e, b, a);
}
inline __m128i msg1(__m128i x, __m128i y) {
  const Four a(x), b(y);
  const auto s0 = [](uint32_t v) { return turn(v, 7) ^ turn(v, 18) ^ v >> 3; };
  return Four(a.w[0] + s0(a.w[1]), a.w[1] + s0(a.w[2]), a.w[2] + s0(a.w[3]), a.w[3] + s0(b.w[0]));
}
inline __m128i msg2(__m128i x, __m128i y) {
  const Four a(x), b(y);
  const auto s1 = [](uint32_t v) { return turn(v, 17) ^ turn(v, 19) ^ v >> 10; };
  const uint32_t w16 = a.w[0] + s1(b.w[2]), w17 = a.w[1] + s1(b.w[3]);
  return Four(w16, w17, a.w[2] + s1(w16), a.w[3] + s1(w17));
}
}  // namespace emulated

#define _mm_sha256rnds2_epu32 emulated::rnds2
#define _mm_sha256msg1_epu32 emulated::msg1
#define _mm_sha256msg2_epu32 emulated::msg2
