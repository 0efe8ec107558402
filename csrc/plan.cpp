#include "plan.hpp"

#include <algorithm>
#include <stdexcept>

namespace ree {
namespace {
const KernelTable& require_isa(const std::string& isa) {
  const KernelTable* t = find_isa(isa);
  if (!t) throw std::invalid_argument("instruction set '" + isa + "' is not available here");
  return *t;
}
}  // namespace

Plan::Plan(const std::string& isa) : table_(require_isa(isa)) {}

void Plan::add(const std::string& kernel, std::vector<int32_t> slots, std::vector<int64_t> params) {
  Kernel fn = find_kernel(table_, kernel);
  if (!fn) throw std::invalid_argument("unknown kernel '" + kernel + "'");
  for (int32_t s : slots) max_slot_ = std::max(max_slot_, s);
  steps_.push_back({fn, std::move(slots), std::move(params)});
}

void Plan::run(Pool& pool, void* const* table, int64_t table_size) const {
  if (max_slot_ >= table_size) throw std::invalid_argument("buffer table too short");
  FloatMode mode;
  std::vector<void*> bufs;
  for (const Step& s : steps_) {
    bufs.resize(s.slots.size());
    for (size_t i = 0; i < bufs.size(); ++i) bufs[i] = s.slots[i] < 0 ? nullptr : table[s.slots[i]];
    s.fn(pool, bufs.data(), s.params.data());
  }
}

bool has_nan(const uint32_t* x, int64_t n) {
  constexpr int64_t kBlock = 4096;
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t end = std::min(n, i + kBlock);
    uint32_t found = 0;
    for (int64_t j = i; j < end; ++j) found |= (uint32_t)((x[j] & 0x7fffffffu) > 0x7f800000u);
    if (found) return true;
  }
  return false;
}

}  // namespace ree
