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
  // 0 where errors count in ulps of the result, else what they count in: f(x), x
  double (*unit)(double, double) = nullptr;
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

// The y with erf(y) = x: a start within 1e-4 (Winitzki), then Halley's steps on erf, or on erfc
// near 1.
template <class R>
R inverse_erf(R x) {
  const R a = std::fabs(x), rest = 1 - a;  // exact for a float32
  if (!(a < 1)) return a == 1 ? std::copysign((R)INFINITY, x) : (R)NAN;
  const R half_root_pi = 0.886226925452758013649083741670572591L;
  if (a < (R)1e-7) return x * half_root_pi;
  const R l = std::log(rest * (1 + a)), c = (R)0.147, m = 2 / (3.14159265358979323846L * c) + l / 2;
  R y = std::sqrt(std::sqrt(m * m - l / c) - m);
  for (int i = 0; i < (sizeof(R) > 8 ? 4 : 3); ++i) {
    const R e =
        (a < (R)0.5 ? std::erf(y) - a : rest - std::erfc(y)) * half_root_pi * std::exp(y * y);
    y -= e / (1 + y * e);
  }
  return std::copysign(y, x);
}

template <class R>
R log_gamma(R x) {
  if constexpr (sizeof(R) > 8) {
    int sign;
    return lgammal_r(x, &sign);
  } else {
    int sign;
    return lgamma_r(x, &sign);
  }
}

// Up to 20 by recurrence, there the asymptotic series (DLMF 5.11.2); reflected below 0
// (DLMF 5.5.4).
template <class R>
R digamma(R x) {
  if (x == 0) return std::copysign((R)INFINITY, -x);
  if (x < 0) {
    constexpr R pi = 3.14159265358979323846264338327950288L;
    const R near = x - std::round(x);  // exact
    return near == 0 || near != near ? NAN : digamma(1 - x) - pi / std::tan(pi * near);
  }
  R less = 0;
  for (; x < 20; x += 1) less += 1 / x;
  if (std::isinf(x)) return x;
  const R w = 1 / (x * x);
  const R series =
      w * (1.0L / 12 -
           w * (1.0L / 120 -
                w * (1.0L / 252 -
                     w * (1.0L / 240 -
                          w * (1.0L / 132 -
                               w * (691.0L / 32760 - w * (1.0L / 12 - w * (3617.0L / 8160))))))));
  return std::log(x) - 1 / (2 * x) - series - less;
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
    {"erfinv", inverse_erf<double>, inverse_erf<long double>},
    {"lgamma", log_gamma<double>, log_gamma<long double>,
     [](double f, double x) {
       return x > -0.5 ? 0 : 0x1p-24 * (1 + std::fabs(f) + std::fabs(log_gamma(-x)));
     }},
    {"digamma", digamma<double>, digamma<long double>,
     [](double f, double x) {
       return x > 0 ? 0 : 0x1p-24 * (1 + std::fabs(f) + std::fabs(digamma(1 - x)));
     }},
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
  int64_t finite;      // results compared in ulps, or in the function's unit
  int64_t mismatches;  // NaN, infinity or zero wanted or got, and the bits differ
  uint32_t mismatch_input, unused;
};

// Compares a result with the true one, given in double and, on demand, in 80 bits; unit 0 is an
// ulp.
template <class Exact>
void judge(double f, float y, uint32_t in, Stats& stats, Exact exact_value, double unit = 0) {
  const float rounded = (float)f;
  bool wrong;
  if (f != f) {
    wrong = bits(y) != 0x7fc00000u;
  } else if (std::isinf(rounded) && std::isinf(y)) {
    wrong = bits(y) != bits(rounded);  // overflow, or infinite in truth
  } else if (f == 0 && y == 0) {
    wrong = bits(y) != bits(rounded);
  } else if (y != y || (unit == 0 && std::signbit(y) != std::signbit(f))) {
    wrong = true;
  } else {
    wrong = false;
    ++stats.finite;
    // just below a power of two f may have been rounded up to it, where the ulp is twice as big
    const double e = std::fabs(y - f) * (unit == 0 ? ulps(f * (1 - 0x1p-40)) : 1 / unit);
    if (!(e < stats.max_ulp - 1e-3)) {
      const double exact =
          unit == 0 ? exact_error(y, exact_value()) : (double)(std::fabs(y - exact_value()) / unit);
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
        judge(
            f[j], y[i + j], first + (uint32_t)(i + j), *stats, [&] { return fn.exact(x[j]); },
            fn.unit ? fn.unit(f[j], x[j]) : 0);
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
