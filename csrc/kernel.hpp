// The one kernel signature, and the table of kernels an ISA provides.
#pragma once
#include <cstdint>
#include <string_view>

#include "pool.hpp"

namespace ree {

// bufs: operands then results, in the order the kernel's comment states; params: sizes, strides and
// flags. Float attributes travel as their 32-bit pattern in a parameter.
using Kernel = void (*)(Pool& pool, void* const* bufs, const int64_t* params);

// Pointwise code compiled at run time: computes rows [r0, r1) x columns [c0, c1) of a 2-D region.
using TileFn = void (*)(void* const* bufs, const int64_t* params, int64_t r0, int64_t r1,
                        int64_t c0, int64_t c1);

struct KernelEntry {
  std::string_view name;
  Kernel fn;
};

struct KernelTable {
  std::string_view isa;
  const KernelEntry* entries;
  int count;
  int lanes;
  int panel;  // columns of one packed panel of a contraction (gemm.inl)
};

// dispatch.cpp: the only place that asks the CPU what it can do.
const KernelTable* find_isa(std::string_view name);  // nullptr: not built, or this CPU lacks it
std::string_view best_isa();
int isa_names(std::string_view* out, int capacity);  // usable here, best first
Kernel find_kernel(const KernelTable& table, std::string_view name);

inline float param_f32(int64_t p) {
  uint32_t u = (uint32_t)p;
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}

}  // namespace ree
