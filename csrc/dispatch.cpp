// The only CPU-feature test of the project.
#include <cstring>

#include "kernel.hpp"

namespace ree {
#if defined(__x86_64__)
namespace avx512 { extern const KernelTable table; }
namespace avx2 { extern const KernelTable table; }
#elif defined(__aarch64__)
namespace neon { extern const KernelTable table; }
#endif
namespace portable { extern const KernelTable table; }

namespace {
struct Candidate {
  const KernelTable* table;
  bool usable;
};

const Candidate* candidates(int* n) {
  static const Candidate list[] = {  // best first
#if defined(__x86_64__)
      {&avx512::table, (__builtin_cpu_init(), __builtin_cpu_supports("avx512f") &&
                                                  __builtin_cpu_supports("avx512bw") &&
                                                  __builtin_cpu_supports("avx512dq") &&
                                                  __builtin_cpu_supports("avx512vl"))},
      {&avx2::table, (__builtin_cpu_init(), __builtin_cpu_supports("avx2") &&
                                                __builtin_cpu_supports("fma") &&
                                                __builtin_cpu_supports("f16c"))},
#elif defined(__aarch64__)
      {&neon::table, true},  // part of the architecture
#endif
      {&portable::table, true},
  };
  *n = (int)(sizeof list / sizeof list[0]);
  return list;
}
}  // namespace

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

std::string_view best_isa() {
  std::string_view name;
  isa_names(&name, 1);
  return name;
}

Kernel find_kernel(const KernelTable& table, std::string_view name) {
  for (int i = 0; i < table.count; ++i)
    if (table.entries[i].name == name) return table.entries[i].fn;
  return nullptr;
}

}  // namespace ree
