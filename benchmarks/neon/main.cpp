// The kernels on deterministic operands, without Python: one line "case digest" each, to be equal
// for every instruction set and processor.
//
//   main ISA [--full | --hashes]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../../csrc/kernel.hpp"
#include "constants.hpp"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ree {
using Words = std::vector<uint32_t>;
#define REE_DECLARE(name)                                                 \
  namespace name {                                                        \
  void layer(const Words& a, const Words& b, const Words& c, Words& out); \
  }
REE_DECLARE(portable)
#if defined(__x86_64__)
REE_DECLARE(avx2)
REE_DECLARE(avx512)
#elif defined(__aarch64__)
REE_DECLARE(neon)
#endif
}  // namespace ree

namespace {
using namespace ree;
using Floats = std::vector<float>;
using Ints = std::vector<int64_t>;

const KernelTable* g_isa;
Pool* g_pool;

void set_flushing() {  // subnormals are lost in this thread, and in threads born of it
#if defined(__x86_64__)
  _mm_setcsr(0x9fc0);
#else
  asm volatile("msr fpcr, %0" ::"r"(uint64_t(1) << 24));
#endif
}

void call(const char* kernel, std::vector<const void*> bufs, const Ints& params) {
  const KernelEntry* entry = find_kernel(*g_isa, kernel);
  if (!entry || !entry->fits(bufs.size(), params.data(), params.size())) {
    std::fprintf(stderr, "no kernel %s with these arguments\n", kernel);
    std::exit(2);
  }
  FloatMode mode;
  entry->fn(*g_pool, const_cast<void* const*>(reinterpret_cast<const void* const*>(bufs.data())),
            params.data());
}

// Digests are made by one kernel for all: the portable SHA-256, which the driver checks.
std::string digest(const void* data, size_t bytes) {
  static Pool one(1);
  uint8_t out[32];
  void* bufs[] = {const_cast<void*>(data), out};
  const int64_t params[] = {1, (int64_t)bytes, (int64_t)bytes};
  find_kernel(*find_isa("portable"), "sha256_many")->fn(one, bufs, params);
  std::string text;
  char hex[3];
  for (uint8_t b : out) {
    std::snprintf(hex, sizeof hex, "%02x", b);
    text += hex;
  }
  return text;
}
template <class T>
void report(const std::string& name, const std::vector<T>& x) {
  std::printf("%s %s\n", name.c_str(), digest(x.data(), x.size() * sizeof(T)).c_str());
}

struct Random {
  uint64_t state;
  uint64_t next() {  // splitmix64
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t n) { return (int64_t)(next() % (uint64_t)n); }
};

float from_bits(uint32_t u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

// Kinds of operands: 0 of size about 1; 1 products that underflow; 2 sums that cancel; 3 with
// infinities, NaN, zeros of both signs and subnormals among them.
Floats floats(int64_t n, int kind, uint64_t seed) {
  Random r{seed};
  Floats x((size_t)n);
  for (float& f : x) {
    const uint64_t u = r.next();
    const uint32_t sign = (uint32_t)(u >> 63) << 31, mantissa = (uint32_t)u & 0x7fffffu;
    const uint32_t spread = (uint32_t)(u >> 32) & 7;
    uint32_t exponent = 123 + spread % 5;
    if (kind == 1) exponent = 52 + spread * 2;
    if (kind == 2) exponent = 127 + spread * 3;
    f = from_bits(sign | exponent << 23 | mantissa);
    if (kind == 3) {
      static const uint32_t odd[] = {0x80000000u, 0u,          0x7f800000u, 0xff800000u,
                                     0x7fc00000u, 0x00000001u, 0x807fffffu, 0x7f7fffffu};
      if ((u >> 40) % 61 == 0) f = from_bits(odd[(u >> 50) % 8]);
    }
  }
  return x;
}

std::string label(const char* name, std::initializer_list<int64_t> sizes, int kind) {
  std::string s = name;
  for (int64_t n : sizes) s += "/" + std::to_string(n);
  return s + "/kind" + std::to_string(kind);
}

void run_layer(bool full) {
  Random r{7};
  const int64_t n = full ? 1 << 16 : 1 << 13;
  Words a((size_t)n), b((size_t)n), c((size_t)n), out;
  for (int part = 0; part < 3; ++part) {
    Words& x = part == 0 ? a : part == 1 ? b : c;
    for (int64_t i = 0; i < n; ++i) {
      uint32_t u = (uint32_t)r.next();
      if (i % 4 == 1) {  // floats near each other, ties of rounding, values around 2^31
        const float f = floats(1, 0, u)[0] * (i % 8 == 1 ? 4.0f : 2147483648.0f);
        std::memcpy(&u, &f, 4);
        u &= 0xffff0000u;
      }
      if (i % 4 == 2) u &= 0x807fffffu;  // subnormal
      if (i % 16 == 3) {
        static const uint32_t odd[] = {0u,          0x80000000u, 0x7f800000u, 0xff800000u,
                                       0x7fc00000u, 0x7f800001u, 0x3f000000u, 0xbf000000u,
                                       0x4f000000u, 0xcf000000u, 0x4b000001u, 0x7f7fffffu};
        u = odd[r.next() % 12];
      }
      x[(size_t)i] = u;
    }
  }
#define REE_RUN(name) \
  if (g_isa->isa == #name) name::layer(a, b, c, out);
  {
    FloatMode mode;
    REE_RUN(portable)
#if defined(__x86_64__)
    REE_RUN(avx2)
    REE_RUN(avx512)
#elif defined(__aarch64__)
    REE_RUN(neon)
#endif
  }
  for (size_t i = 0; i * (size_t)n < out.size(); ++i)  // one digest an operation
    report("layer/" + std::to_string(i),
           Words(out.begin() + (int64_t)i * n, out.begin() + (int64_t)(i + 1) * n));
}

#include "contractions.inl"

void run_rows() {
  for (int64_t n : {1, 5, 63, 64, 100, 384, 1000, 1024, 1025, 4099})
    for (int kind = 0; kind < 4; ++kind) {
      const int64_t rows = 7;
      const Floats x = floats(rows * n * 3, kind, (uint64_t)n), w = floats(n, 0, 1),
                   b = floats(n, 0, 2);
      Floats y((size_t)(rows * n), 7.0f), f((size_t)rows), g((size_t)(rows * 3));
      Ints i((size_t)rows), j((size_t)(rows * 3));
      for (int64_t mode : {0, 1}) {
        call("sum", {x.data(), f.data()}, {rows, n, 1, n, 1, 1, mode});
        report(label(mode ? "mean" : "sum", {n}, kind), f);
        call("sum", {x.data(), g.data()}, {rows, n, 3, 3 * n, 3, 1, mode});
        report(label(mode ? "mean_columns" : "sum_columns", {n}, kind), g);
      }
      for (const char* name : {"amax", "amin"}) {
        call(name, {x.data(), f.data()}, {rows, n, 1, n, 1, 1});
        report(label(name, {n}, kind), f);
        call(name, {x.data(), g.data()}, {rows, n, 3, 3 * n, 3, 1});
        report(label(name, {n, 3}, kind), g);
      }
      call("argmax", {x.data(), i.data()}, {rows, n, 1, n, 1, 1});
      report(label("argmax", {n}, kind), i);
      call("argmax", {x.data(), j.data()}, {rows, n, 3, 3 * n, 3, 1});
      report(label("argmax", {n, 3}, kind), j);
      call("softmax", {x.data(), y.data()}, {rows, n, n, n});
      report(label("softmax", {n}, kind), y);
      const int64_t eps = bits_of(1e-5f);
      call("layer_norm", {x.data(), w.data(), b.data(), y.data()}, {rows, n, n, n, eps});
      report(label("layer_norm", {n}, kind), y);
      call("rms_norm", {x.data(), w.data(), y.data()}, {rows, n, n, n, eps});
      report(label("rms_norm", {n}, kind), y);
      call("cumsum_f32", {x.data(), y.data()}, {rows, n, 1});
      report(label("cumsum", {n}, kind), y);
    }
}

void run_attention() {
  struct Case {
    int64_t heads, kv_heads, queries, keys, d, dv, causal, offset, window, mask;
  };
  const Case cases[] = {
      {2, 2, 70, 70, 32, 32, 0, 0, 0, 0},     {4, 2, 130, 130, 64, 64, 1, 0, 0, 0},
      {4, 1, 1, 300, 64, 64, 1, 299, 0, 0},   {2, 2, 33, 261, 20, 17, 0, 0, 0, 2},
      {2, 1, 50, 200, 16, 48, 1, 150, 60, 1}, {3, 3, 5, 129, 8, 8, 0, 0, 0, 1}};
  for (const Case& c : cases)
    for (int kind : {0, 3}) {
      const int64_t batch = 2;
      const Floats q = floats(batch * c.heads * c.queries * c.d, kind, 1),
                   k = floats(batch * c.kv_heads * c.keys * c.d, kind, 2),
                   v = floats(batch * c.kv_heads * c.keys * c.dv, kind, 3),
                   added = floats(c.queries * c.keys, 0, 4);
      std::vector<uint8_t> allowed((size_t)(c.queries * c.keys));
      Random r{5};
      for (uint8_t& x : allowed) x = r.below(5) > 0;
      Floats o((size_t)(batch * c.heads * c.queries * c.dv), 7.0f);
      const void* mask = c.mask == 0   ? nullptr
                         : c.mask == 1 ? (const void*)allowed.data()
                                       : (const void*)added.data();
      call("attention", {q.data(), k.data(), v.data(), mask, o.data()},
           {batch,
            c.heads,
            c.kv_heads,
            c.queries,
            c.keys,
            c.d,
            c.dv,
            bits_of(0.125f),
            c.causal,
            c.offset,
            c.window,
            c.mask,
            c.heads * c.queries * c.d,
            c.queries * c.d,
            c.d,
            c.kv_heads * c.keys * c.d,
            c.keys * c.d,
            c.d,
            c.kv_heads * c.keys * c.dv,
            c.keys * c.dv,
            c.dv,
            0,
            0,
            c.keys,
            1,
            c.heads * c.queries * c.dv,
            c.queries * c.dv,
            c.dv});
      report(
          label("attention", {c.heads, c.queries, c.keys, c.d, c.causal, c.window, c.mask}, kind),
          o);
    }
}

void run_movement() {
  const Floats x = floats(60 * 70 * 3, 3, 1);
  Floats y(60 * 70 * 3);
  call("strided_copy", {x.data(), y.data()}, {4, 3, 3, 70, 60, 1, 180, 3, 4200, 60, 1});
  report("strided_copy", y);
  Random r{3};
  Ints rows(90), at(60 * 31 * 3);
  for (int64_t& i : rows) i = r.below(60);
  for (int64_t& i : at) i = r.below(70);
  Floats picked(90 * 210), gathered(60 * 31 * 3);
  call("gather_rows", {x.data(), rows.data(), picked.data()}, {90, 210, 60, 4, 1});
  report("gather_rows", picked);
  call("index_nd", {x.data(), picked.data(), rows.data()}, {4, 1, 1, 210, 90, 1, 210, 60});
  report("index_nd", picked);
  call("gather_axis", {x.data(), at.data(), gathered.data()}, {4, 60, 70, 31, 3});
  report("gather_axis", gathered);
  Ints numbers(1001);
  call("iota", {numbers.data()}, {1001, -5, 3});
  report("iota", numbers);
  Ints sums(1001);
  call("cumsum_i64", {numbers.data(), sums.data()}, {7, 143, 1});
  report("cumsum_i64", sums);
  call("canonical_copy", {x.data(), y.data()}, {(int64_t)x.size()});
  report("canonical_copy", y);
  call("fill", {y.data()}, {(int64_t)y.size(), 4, 0x3f800001});
  report("fill", y);
}

void run_sampling() {
  const int64_t rows = 12, n = 3000;
  Floats x = floats(rows * n, 0, 5), ones((size_t)rows, 1.0f), top_p = ones, min_p((size_t)rows);
  for (float& f : x) f = f * 8;
  Ints top_k((size_t)rows), seed((size_t)rows, -3), at((size_t)rows), tokens((size_t)rows);
  for (size_t r = 0; r < (size_t)rows; ++r) {
    at[r] = (int64_t)r;
    top_k[r] = std::vector<int64_t>{0, 5, 700}[r % 3];
    top_p[r] = r % 2 ? 0.8f : 1.0f;
    min_p[r] = r % 5 ? 0.0f : 0.01f;
  }
  call("sample",
       {x.data(), ones.data(), top_p.data(), min_p.data(), top_k.data(), seed.data(), at.data(),
        at.data(), tokens.data()},
       {rows, n});
  report("sample", tokens);
}

void run_hashes() {
  std::vector<uint8_t> data(1 << 19), out(32 * 40);
  Random r{11};
  for (uint8_t& b : data) b = (uint8_t)r.next();
  for (int64_t n : {0, 1, 63, 511, 512, 513, 1024, 5000, 65536, 100001, 1 << 19}) {
    call("tree_hash", {data.data(), out.data()}, {n});
    report("tree_hash/" + std::to_string(n), out);
  }
  std::vector<const void*> bufs;
  Ints params{37};
  for (int64_t i = 0; i < 37; ++i) {
    bufs.push_back(data.data() + i * 1000);
    params.push_back(i * i * 9);
  }
  bufs.push_back(out.data());
  call("tree_hash_many", bufs, params);
  report("tree_hash_many", out);
  for (int64_t n : {0, 1, 55, 56, 63, 64, 65, 119, 120, 1000}) {
    call("sha256_many", {data.data(), out.data()}, {37, n, n + 3});
    report("sha256_many/" + std::to_string(n), out);
  }
}

void run_scalars(bool full) {
  const uint32_t step = full ? 257 : 16411;  // odd: every exponent, all low bits
  Floats x;
  for (uint64_t u = 0; u < uint64_t(1) << 32; u += step) x.push_back(from_bits((uint32_t)u));
  for (uint32_t u : {0x80000000u, 0x7f800000u, 0xff800000u, 0x7fc00000u, 0x00000001u, 0x7f7fffffu})
    x.push_back(from_bits(u));
  Floats y(x.size());
  for (int i = 0; i < g_isa->count; ++i) {
    const std::string name(g_isa->entries[i].name);
    if (name.rfind("unary_", 0) != 0) continue;
    call(name.c_str(), {x.data(), y.data()}, {(int64_t)x.size()});
    report(name, y);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool full = argc > 2 && std::strcmp(argv[2], "--full") == 0;
  const bool hashes = argc > 2 && std::strcmp(argv[2], "--hashes") == 0;
  g_isa = argc > 1 ? find_isa(argv[1]) : nullptr;
  if (!g_isa) {
    std::fprintf(stderr, "instruction set not built, or not of this processor\n");
    return 2;
  }
  std::vector<uint8_t> all(256);
  for (int i = 0; i < 256; ++i) all[(size_t)i] = (uint8_t)i;
  report("bytes_0_to_255", all);
  set_flushing();  // which nothing below may notice
  Pool pool(3);
  g_pool = &pool;
  if (FloatMode::is_clean()) return 3;
  if (hashes) {
    run_hashes();
    return 0;
  }
  run_layer(full);
  run_contractions();
  run_bytes();
  run_narrow();
  run_rows();
  run_attention();
  run_movement();
  run_sampling();
  run_hashes();
  run_scalars(full);
}
