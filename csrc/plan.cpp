#include "plan.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>

namespace ree {
namespace {
const KernelTable& require_isa(const std::string& isa) {
  const KernelTable* t = find_isa(isa);
  if (!t) throw std::invalid_argument("instruction set '" + isa + "' is not available here");
  return *t;
}
}  // namespace

namespace {
// Integers alone, so every instruction set finds the same. The loader chooses among clones before a
// thread sanitizer has started, which would crash.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_THREAD__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
bool any_nan(const uint32_t* x, int64_t n) {
  constexpr int64_t kStep = 4096;  // what is known is looked at now and then
  for (int64_t at = 0; at < n; at += kStep) {
    const int64_t end = std::min(n, at + kStep);
    uint32_t top = 0;
    for (int64_t j = at; j < end; ++j) top = std::max(top, x[j] & 0x7fffffffu);
    if (top > 0x7f800000u) return true;
  }
  return false;
}
}  // namespace

Plan::Plan(const std::string& isa) : table_(require_isa(isa)) {}

void Plan::add(const std::string& kernel, std::vector<int32_t> slots, std::vector<int64_t> params) {
  const KernelEntry* entry = find_kernel(table_, kernel);
  if (!entry) throw std::invalid_argument("unknown kernel '" + kernel + "'");
  if (!entry->fits(slots.size(), params.data(), params.size()))
    throw std::invalid_argument("kernel '" + kernel + "' does not take " +
                                std::to_string(slots.size()) + " buffers and " +
                                std::to_string(params.size()) + " parameters");
  for (int32_t s : slots) max_slot_ = std::max(max_slot_, s);
  steps_.push_back({entry->fn, std::move(slots), std::move(params)});
}

void Plan::run(Pool& pool, void* const* table, int64_t table_size,
               const std::function<void()>& poll) const {
  if (max_slot_ >= table_size) throw std::invalid_argument("buffer table too short");
  const auto mine = pool.exclusive();
  FloatMode mode;
  std::vector<void*> bufs;
  using Clock = std::chrono::steady_clock;
  auto polled = Clock::now();
  for (const Step& s : steps_) {
    if (poll && Clock::now() - polled > std::chrono::milliseconds(50)) {
      poll();
      polled = Clock::now();
    }
    bufs.resize(s.slots.size());
    for (size_t i = 0; i < bufs.size(); ++i) bufs[i] = s.slots[i] < 0 ? nullptr : table[s.slots[i]];
    s.fn(pool, bufs.data(), s.params.data());
  }
}

bool has_nan(const uint32_t* x, int64_t n, Pool* pool) {
  constexpr int64_t kBlock = 65536;
  if (n <= kScanAlone || !pool) return any_nan(x, n);
  std::atomic<bool> found{false};
  const auto mine = pool->exclusive();
  pool->parallel_for((n + kBlock - 1) / kBlock, [&](int64_t block, int) {
    const int64_t at = block * kBlock;
    if (any_nan(x + at, std::min(n - at, kBlock))) found.store(true, std::memory_order_relaxed);
  });
  return found.load(std::memory_order_relaxed);
}

}  // namespace ree
