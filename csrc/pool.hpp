// One thread pool for everything. Work items are claimed by index; which thread computes an item
// can never change its bits, so scheduling is free.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace ree {

// Round to nearest even, subnormals kept (FTZ and DAZ off), for the lifetime of the object; the
// caller's mode is restored afterwards.
class FloatMode {
 public:
  FloatMode();
  ~FloatMode();
  static bool is_clean();  // the calling thread's mode now
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

 private:
  uint64_t saved_;
};

// One caller at a time: hold exclusive() around a series of calls that share the pool.
class Pool {
 public:
  // The calling thread counts as one. std::system_error when a thread cannot be started.
  explicit Pool(int threads);
  ~Pool();
  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  std::unique_lock<std::mutex> exclusive() { return std::unique_lock<std::mutex>(caller_); }

  // Calls fn(i, thread) for every i in [0, n); thread in [0, threads()). Blocks until all are done;
  // rethrows the first exception. Items must not call parallel_for.
  template <class Fn>
  void parallel_for(int64_t n, Fn&& fn) {
    if (n <= 0) return;
    if (n == 1 || workers_.empty()) {
      for (int64_t i = 0; i < n; ++i) fn(i, 0);
      return;
    }
    using T = std::remove_reference_t<Fn>;
    run(
        n, [](void* f, int64_t i, int t) { (*static_cast<T*>(f))(i, t); }, &fn);
  }

  // Scratch memory of one thread, 64-byte aligned, at least `bytes` long; valid until the next call
  // for the same thread.
  void* scratch(int thread, size_t bytes) {
    return grow(scratch_[static_cast<size_t>(thread)], bytes);
  }
  // Scratch memory that all items of the calls to come may use; only the calling thread may ask.
  void* shared(size_t bytes) { return grow(shared_, bytes); }

  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

 private:
  using Call = void (*)(void*, int64_t, int);
  struct Scratch {
    void* data = nullptr;
    size_t size = 0;
  };
  static void* grow(Scratch& s, size_t bytes);
  void run(int64_t n, Call call, void* fn);
  void drain(int thread) noexcept;
  void worker(int thread);
  void stop();

  const int process_;  // threads do not survive a fork
  std::vector<std::thread> workers_;
  std::vector<Scratch> scratch_;
  Scratch shared_;
  std::mutex caller_;
  std::mutex mutex_;
  std::unique_ptr<std::condition_variable> wake_ = std::make_unique<std::condition_variable>();
  // The call in progress: its number in the upper half, whether workers may still join it, and how
  // many are inside. The caller never waits for a worker that has not joined.
  alignas(64) std::atomic<uint64_t> gate_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) int64_t total_ = 0;
  Call call_ = nullptr;
  void* fn_ = nullptr;
  std::atomic<bool> stop_{false};
  std::exception_ptr error_;  // the first exception an item threw; rethrown by parallel_for
};

}  // namespace ree
