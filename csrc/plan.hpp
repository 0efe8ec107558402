// A bound program: a list of kernel calls over a table of buffer slots, run without Python.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernel.hpp"

namespace ree {

class Plan {
 public:
  explicit Plan(const std::string& isa);
  // slots index the table given to run(); throws std::invalid_argument for an unknown kernel, and
  // for more or fewer buffers or parameters than it takes.
  void add(const std::string& kernel, std::vector<int32_t> slots, std::vector<int64_t> params);
  // poll: called between two kernels, about every 50 ms; what it throws ends the run there.
  void run(Pool& pool, void* const* table, int64_t table_size,
           const std::function<void()>& poll = {}) const;
  int size() const { return static_cast<int>(steps_.size()); }

 private:
  struct Step {
    Kernel fn;
    std::vector<int32_t> slots;
    std::vector<int64_t> params;
  };
  const KernelTable& table_;
  std::vector<Step> steps_;
  int32_t max_slot_ = -1;
};

// Waking threads takes as long as looking at so many elements.
constexpr int64_t kScanAlone = 8 * 65536;
// Whether one of n float32, given as bits, is NaN; above kScanAlone the pool's threads help, if
// there is one.
bool has_nan(const uint32_t* x, int64_t n, Pool* pool);

}  // namespace ree
