// The one kernel signature, and the table of kernels an ISA provides.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "pool.hpp"

namespace ree {

// bufs: operands and results; params: sizes, strides and flags, floats as their 32 bits. The order
// of both is the kernel's signature (kernels/abi.py); kernels see a struct of its names (abi.hpp).
using Kernel = void (*)(Pool& pool, void* const* bufs, const int64_t* params);

// Pointwise code compiled at run time: computes rows [r0, r1) x columns [c0, c1) of a 2-D region.
using TileFn = void (*)(void* const* bufs, const int64_t* params, int64_t r0, int64_t r1,
                        int64_t c0, int64_t c1);

struct KernelEntry {
  std::string_view name;
  Kernel fn;
  // Whether a call has as many buffers and parameters as it must.
  bool (*fits)(size_t bufs, const int64_t* params, size_t count);
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
// How many 8-bit products an instruction of the set adds at once here: 4, or 2 of 16 bits.
int byte_group(std::string_view isa);
int isa_names(std::string_view* out, int capacity);  // usable here, best first
const KernelEntry* find_kernel(const KernelTable& table, std::string_view name);

}  // namespace ree
