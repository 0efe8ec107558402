// Compares float32 results with a reference: double first, 80-bit where it could set a new maximum.
// Built and called by exhaustive_scalar.py.
#include <cmath>
#include <cstdint>
#include <cstring>

extern "C" int batch_reference(const char* function, const double* x, double* y, int n);

namespace {

constexpr int kBlock = 2048;

struct Function {
  const char* name;
  double (*fast)(double);
  long double (*exact)(long double);
};

template <class R>
R recip_sqrt(R x) {
  return 1 / std::sqrt(x);
}
template <class R>
R logistic(R x) {
  return 1 / (1 + std::exp(-x));
}
template <class R>
R softplus(R x) {
  return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
}
#define REE_STD(name)                                                                        \
  {                                                                                          \
#name, [](double x) { return std::name(x); }, [](long double x) { return std::name(x); } \
  }
const Function kFunctions[] = {
    REE_STD(exp),
    REE_STD(exp2),
    REE_STD(expm1),
    REE_STD(log),
    REE_STD(log2),
    REE_STD(log1p),
    REE_STD(tanh),
    REE_STD(erf),
    REE_STD(sin),
    REE_STD(cos),
    REE_STD(tan),
    REE_STD(asin),
    REE_STD(acos),
    REE_STD(atan),
    REE_STD(sinh),
    REE_STD(cosh),
    REE_STD(asinh),
    REE_STD(acosh),
    REE_STD(atanh),
    REE_STD(erfc),
    {"rsqrt", recip_sqrt<double>, recip_sqrt<long double>},
    {"sigmoid", logistic<double>, logistic<long double>},
    {"softplus", softplus<double>, softplus<long double>},
};

// 1 / (one unit in the last place of a float32 near f, a normal double).
inline double ulps(double f) {
  uint64_t u;
  std::memcpy(&u, &f, sizeof u);
  int e = (int)(u >> 52 & 0x7ff) - 1023;
  e = e < -126 ? -126 : e > 127 ? 127 : e;
  u = (uint64_t)(1023 + 23 - e) << 52;
  std::memcpy(&f, &u, sizeof f);
  return f;
}

double exact_error(float y, long double f) {
  int e;
  std::frexp(f, &e);  // |f| in [2^(e-1), 2^e)
  e = e - 24 < -149 ? -149 : e > 128 ? 104 : e - 24;
  const long double got = std::isinf(y) ? std::copysign(0x1p128L, y) : (long double)y;
  return (double)std::ldexp(std::fabs(got - f), -e);
}

uint32_t bits(float x) {
  uint32_t u;
  std::memcpy(&u, &x, sizeof u);
  return u;
}

struct Stats {
  double max_ulp;
  uint32_t worst_input, worst_output;
  int64_t finite;      // results compared in ulps
  int64_t mismatches;  // NaN, infinity or zero wanted or got, and the bits differ
  uint32_t mismatch_input, unused;
};

// Compares a result with the true one, given in double and, on demand, in 80 bits.
template <class Exact>
void judge(double f, float y, uint32_t in, Stats& stats, Exact exact_value) {
  const float rounded = (float)f;
  bool wrong;
  if (f != f) {
    wrong = bits(y) != 0x7fc00000u;
  } else if (std::isinf(rounded) && std::isinf(y)) {
    wrong = bits(y) != bits(rounded);  // overflow, or infinite in truth
  } else if (f == 0 && y == 0) {
    wrong = bits(y) != bits(rounded);
  } else if (y != y || std::signbit(y) != std::signbit(f)) {
    wrong = true;
  } else {
    wrong = false;
    ++stats.finite;
    // just below a power of two f may have been rounded up to it, where the ulp is twice as big
    const double e = std::fabs(y - f) * ulps(f * (1 - 0x1p-40));
    if (!(e < stats.max_ulp - 1e-3)) {
      const double exact = exact_error(y, exact_value());
      if (exact > stats.max_ulp || (exact == stats.max_ulp && in < stats.worst_input)) {
        stats.max_ulp = exact;
        stats.worst_input = in;
        stats.worst_output = bits(y);
      }
    }
  }
  if (wrong && stats.mismatches++ == 0) stats.mismatch_input = in;
}

}  // namespace

extern "C" {

// y[i] = result for the input of bits first + i; stats carries the maximum so far in and out.
// Returns 0, or 1 if there is no such function.
int compare(const char* name, uint32_t first, int64_t count, const float* y, Stats* stats) {
  for (const Function& fn : kFunctions) {
    if (std::strcmp(fn.name, name) != 0) continue;
    double x[kBlock], f[kBlock];
    for (int64_t i = 0; i < count; i += kBlock) {
      const int n = (int)(count - i < kBlock ? count - i : kBlock);
      for (int j = 0; j < n; ++j) {
        const uint32_t in = first + (uint32_t)(i + j);
        float xj;
        std::memcpy(&xj, &in, sizeof xj);
        x[j] = xj;
      }
      if (!batch_reference(name, x, f, n))
        for (int j = 0; j < n; ++j) f[j] = fn.fast(x[j]);
      for (int j = 0; j < n; ++j)
        judge(f[j], y[i + j], first + (uint32_t)(i + j), *stats, [&] { return fn.exact(x[j]); });
    }
    return 0;
  }
  return 1;
}

// The same for y[i] = x[i] ^ b[i]; worst_input is a position.
void compare_pow(const float* x, const float* b, const float* y, int64_t count, Stats* stats) {
  for (int64_t i = 0; i < count; ++i)
    judge(std::pow((double)x[i], (double)b[i]), y[i], (uint32_t)i, *stats,
          [&] { return std::pow((long double)x[i], (long double)b[i]); });
}
}
