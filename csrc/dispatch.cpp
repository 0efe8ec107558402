// The only CPU-feature test of the project.
#include <cstring>

#include "hash/instructions.hpp"
#include "kernel.hpp"
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace ree {
#if defined(__x86_64__)
namespace avx512 {
extern const KernelTable table;
}
namespace avx2 {
extern const KernelTable table;
}
namespace sha_x86 {
extern const ShaCompress compress;
}
#elif defined(__aarch64__)
namespace neon {
extern const KernelTable table;
}
namespace sha_arm {
extern const ShaCompress compress;
}
#endif
namespace portable {
extern const KernelTable table;
}

namespace {
struct Candidate {
  const KernelTable* table;
  bool usable;
  int sha_up_to;  // ShaInstructions::up_to: estimates, docs/decisions/0012
};

const Candidate* candidates(int* n) {
  static const Candidate list[] = {  // best first
#if defined(__x86_64__)
    {&avx512::table,
     (__builtin_cpu_init(),
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")),
     9},
    {&avx2::table,
     (__builtin_cpu_init(), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                                __builtin_cpu_supports("f16c")),
     8},
#elif defined(__aarch64__)
    {&neon::table, true, 4},  // part of the architecture
#endif
    {&portable::table, true, 0},
  };
  *n = static_cast<int>(sizeof list / sizeof list[0]);
  return list;
}

// The CPU's SHA-256 instructions, or nullptr.
ShaCompress sha_of_cpu() {
#if defined(REE_NO_SHA)
  return nullptr;  // for comparing without them
#elif defined(__x86_64__)
  unsigned a, b, c, d;        // the compilers we build with do not all know the name "sha"
  const bool has = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
  return has && __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("ssse3")
             ? sha_x86::compress
             : nullptr;
#elif defined(__aarch64__) && defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_SHA2 ? sha_arm::compress : nullptr;
#else
  return nullptr;
#endif
}
}  // namespace

ShaInstructions sha_instructions(std::string_view isa) {
  static const ShaCompress own = sha_of_cpu();
  int n;
  const Candidate* c = candidates(&n);
  for (int i = 0; i < n; ++i)
    if (own && c[i].table->isa == isa && c[i].sha_up_to > 0) return {own, c[i].sha_up_to};
  return {nullptr, -1};
}

const KernelTable* find_isa(std::string_view name) {
  int n;
  const Candidate* c = candidates(&n);
  for (int i = 0; i < n; ++i)
    if (c[i].usable && c[i].table->isa == name) return c[i].table;
  return nullptr;
}

int isa_names(std::string_view* out, int capacity) {
  int n, used = 0;
  const Candidate* c = candidates(&n);
  for (int i = 0; i < n && used < capacity; ++i)
    if (c[i].usable) out[used++] = c[i].table->isa;
  return used;
}

int byte_group([[maybe_unused]] std::string_view isa) {
#if defined(__x86_64__)
  static const bool quads = (__builtin_cpu_init(), __builtin_cpu_supports("avx512vnni"));
  if (quads && isa == "avx512") return 4;
#endif
  return 2;
}

std::string_view best_isa() {
  std::string_view name;
  isa_names(&name, 1);
  return name;
}

const KernelEntry* find_kernel(const KernelTable& table, std::string_view name) {
  for (int i = 0; i < table.count; ++i)
    if (table.entries[i].name == name) return &table.entries[i];
  return nullptr;
}

}  // namespace ree
