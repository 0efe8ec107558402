// Kernels called as plans call them, on buffers of exactly the size they need.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plan.hpp"

namespace ree::test {

inline std::vector<std::string> instruction_sets() {
  std::string_view names[8];
  const int n = isa_names(names, 8);
  return std::vector<std::string>(names, names + n);
}

// One kernel on operands and results; params as kernels/abi.py orders them.
inline void call(Pool& pool, const std::string& isa, const std::string& kernel,
                 const std::vector<int64_t>& params, const std::vector<const void*>& buffers) {
  Plan plan(isa);
  std::vector<int32_t> slots;
  std::vector<void*> table;
  for (const void* b : buffers) {
    slots.push_back(static_cast<int32_t>(table.size()));
    table.push_back(const_cast<void*>(b));
  }
  plan.add(kernel, slots, params);
  plan.run(pool, table.data(), static_cast<int64_t>(table.size()));
}

struct Random {  // splitmix64
  uint64_t state;
  uint64_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
};

}  // namespace ree::test
