// Double-precision references in vectors (libmvec, a few units in the last place of a double), as
// the first look of exhaustive_scalar.cpp. Compiled by itself with -ffast-math, which is what makes
// the vector forms visible.
#include <cmath>
#include <cstring>

#define REE_BATCH(name)                            \
  if (std::strcmp(function, #name) == 0) {         \
    for (int i = 0; i < n; ++i) y[i] = name(x[i]); \
    return 1;                                      \
  }

// y = function(x) for n finite or infinite x; 0 if there is no vector form of it.
extern "C" int batch_reference(const char* function, const double* x, double* y, int n) {
  // clang-format off
  REE_BATCH(tan) REE_BATCH(asin) REE_BATCH(acos) REE_BATCH(atan) REE_BATCH(sinh) REE_BATCH(cosh)
  REE_BATCH(asinh) REE_BATCH(acosh) REE_BATCH(atanh) REE_BATCH(erfc)
  return 0;
  // clang-format on
}
