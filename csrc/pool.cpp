#include "pool.hpp"

#include <unistd.h>

#include <cstdlib>
#include <new>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ree {
namespace {

#if defined(__x86_64__)
// MXCSR: rounding bits 13-14 zero (nearest), FTZ bit 15 and DAZ bit 6 clear, exceptions masked.
constexpr uint64_t kClean = 0x1f80;
constexpr uint64_t kRelevant = 0xe040;
uint64_t read_mode() { return _mm_getcsr(); }
void write_mode(uint64_t m) { _mm_setcsr(static_cast<unsigned>(m)); }
void pause() { _mm_pause(); }
#elif defined(__aarch64__)
// FPCR: RMode bits 22-23, FZ bit 24, FZ16 bit 19, DN bit 25 all clear.
constexpr uint64_t kClean = 0;
constexpr uint64_t kRelevant = 0x3c80000;
uint64_t read_mode() {
  uint64_t m;
  asm volatile("mrs %0, fpcr" : "=r"(m));
  return m;
}
void write_mode(uint64_t m) { asm volatile("msr fpcr, %0" ::"r"(m)); }
void pause() { asm volatile("yield"); }
#else
#error "unknown architecture: state its floating-point control register"
#endif

// Fields of Pool::gate_.
constexpr uint64_t kCall = uint64_t(1) << 32;
constexpr uint64_t kOpen = uint64_t(1) << 31;
constexpr uint64_t kInside = kOpen - 1;

}  // namespace

FloatMode::FloatMode() : saved_(read_mode()) {
  if ((saved_ ^ kClean) & kRelevant) write_mode(kClean);
}
FloatMode::~FloatMode() {
  if ((saved_ ^ kClean) & kRelevant) write_mode(saved_);
}
bool FloatMode::is_clean() { return ((read_mode() ^ kClean) & kRelevant) == 0; }

Pool::Pool(int threads) : process_(getpid()) {
  int extra = threads > 1 ? threads - 1 : 0;
  scratch_.resize(static_cast<size_t>(extra) + 1);
  workers_.reserve(static_cast<size_t>(extra));
  try {
    for (int t = 1; t <= extra; ++t) workers_.emplace_back([this, t] { worker(t); });
  } catch (...) {
    stop();
    throw;
  }
}

Pool::~Pool() {
  stop();
  for (auto& s : scratch_) std::free(s.data);
  std::free(shared_.data);
}

void Pool::stop() {
  if (getpid() !=
      process_) {  // a child of fork: there is nothing to wait for, and waiting would not end
    new std::vector<std::thread>(std::move(workers_));
    (void)wake_.release();
    return;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    gate_.fetch_add(kCall);
  }
  wake_->notify_all();
  for (auto& w : workers_) w.join();
}

void* Pool::grow(Scratch& s, size_t bytes) {
  if (s.size < bytes) {
    std::free(s.data);
    size_t size = (bytes + 4095) / 4096 * 4096;
    s.data = std::aligned_alloc(64, size);
    s.size = s.data ? size : 0;
    if (!s.data) throw std::bad_alloc();
  }
  return s.data;
}

void Pool::drain(int thread) noexcept {
  try {
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < total_;)
      call_(fn_, i, thread);
  } catch (...) {
    next_.store(total_, std::memory_order_relaxed);  // the rest is not worth computing
    std::lock_guard<std::mutex> lock(mutex_);
    if (!error_) error_ = std::current_exception();
  }
}

void Pool::run(int64_t n, Call call, void* fn) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    call_ = call;
    fn_ = fn;
    total_ = n;
    next_.store(0, std::memory_order_relaxed);
    uint64_t number = gate_.load(std::memory_order_relaxed) / kCall + 1;
    gate_.store(number * kCall | kOpen, std::memory_order_release);
  }
  wake_->notify_all();
  drain(0);
  gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (int spins = 0; gate_.load(std::memory_order_acquire) & kInside; ++spins) {
    if (spins < 4000)
      pause();
    else
      std::this_thread::yield();
  }
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Pool::worker(int thread) {
  FloatMode mode;
  uint64_t seen = 0;
  for (;;) {
    uint64_t gate = 0;
    // Kernels follow each other within microseconds: spin a little before sleeping.
    for (int spins = 0; spins < 5000; ++spins) {
      gate = gate_.load(std::memory_order_acquire);
      if (gate / kCall != seen) break;
      pause();
    }
    if (gate / kCall == seen) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_->wait(lock,
                  [&] { return (gate = gate_.load(std::memory_order_acquire)) / kCall != seen; });
    }
    if (stop_) return;
    seen = gate / kCall;
    while (gate / kCall == seen && (gate & kOpen)) {
      if (!gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) continue;
      drain(thread);
      gate_.fetch_sub(1, std::memory_order_release);
      break;
    }
  }
}

}  // namespace ree
