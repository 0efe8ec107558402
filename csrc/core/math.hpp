// Small arithmetic that every kernel shares.
#pragma once
#include <cstdint>
#include <cstring>

#include "constants.hpp"

namespace ree {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
// x within [0, high]; 0 if high is below 0.
inline int64_t clamp64(int64_t x, int64_t high) { return x < 0 ? 0 : x > high ? high : x; }

inline uint32_t bits_of(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return u;
}
inline float float_of(uint32_t u) {
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}
// Every stored float32 result has the canonical NaN.
inline float canonical(float x) { return x != x ? float_of(kCanonicalNan) : x; }

}  // namespace ree
