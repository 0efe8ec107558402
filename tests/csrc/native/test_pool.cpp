// The thread pool: every item once, results visible, exceptions, scratch memory, float modes,
// forks.
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <set>
#include <stdexcept>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.hpp"
#include "pool.hpp"

namespace {
using ree::FloatMode;
using ree::Pool;
using ree::test::throws;

constexpr int kThreads[] = {1, 2, 3, 7};

void set_flushing() {
#if defined(__x86_64__)
  _mm_setcsr(0x9fc0);
#else
  asm volatile("msr fpcr, %0" ::"r"(uint64_t(1) << 24));
#endif
}
}  // namespace

// The counts are plain numbers: an item computed twice, or seen too early, is also a data race.
TEST(pool_every_item_once) {
  for (int threads : kThreads) {
    Pool pool(threads);
    CHECK(pool.threads() == threads);
    for (int64_t n : {0, 1, 2, 3, 16, 1000, 20001}) {
      std::vector<int> count(static_cast<size_t>(n));
      bool in_range = true;  // written by an item only if it is false
      pool.parallel_for(n, [&](int64_t i, int thread) {
        if (thread < 0 || thread >= threads) in_range = false;
        ++count[static_cast<size_t>(i)];
      });
      CHECK(in_range);
      CHECK(count == std::vector<int>(static_cast<size_t>(n), 1));
    }
  }
}

// Short calls in a row: workers join late, leave late, or miss a call altogether.
TEST(pool_calls_in_a_row) {
  for (int threads : {2, 3, 7}) {
    Pool pool(threads);
    std::vector<int64_t> sums(8);
    for (int64_t round = 0; round < 1500; ++round)
      pool.parallel_for(2 + round % 7,
                        [&](int64_t i, int) { sums[static_cast<size_t>(i)] += round; });
    int64_t total = 0, want = 0;
    for (int64_t s : sums) total += s;
    for (int64_t round = 0; round < 1500; ++round) want += round * (2 + round % 7);
    CHECK(total == want);
  }
}

TEST(pool_threads_of_one_call_are_different) {
  Pool pool(3);
  std::vector<int> inside(3);  // of each thread; two with one number would race here
  pool.parallel_for(5000, [&](int64_t, int thread) {
    int& mine = inside[static_cast<size_t>(thread)];
    ++mine;
    if (mine != 1) throw std::logic_error("two threads have one number");
    --mine;
  });
  CHECK(inside == std::vector<int>(3));
}

TEST(pool_an_exception_reaches_the_caller_and_the_pool_goes_on) {
  for (int threads : kThreads) {
    Pool pool(threads);
    for (int round = 0; round < 50; ++round) {
      CHECK(throws<std::out_of_range>([&] {
        pool.parallel_for(100, [&](int64_t i, int) {
          if (i % 10 == round % 10) throw std::out_of_range("planted");
        });
      }));
      std::vector<int> count(100);
      pool.parallel_for(100, [&](int64_t i, int) { ++count[static_cast<size_t>(i)]; });
      CHECK(count == std::vector<int>(100, 1));
    }
  }
}

TEST(pool_scratch_is_aligned_and_of_one_thread) {
  Pool pool(3);
  for (size_t bytes : {size_t(1), size_t(4096), size_t(4097), size_t(100000), size_t(100)}) {
    char* shared = static_cast<char*>(pool.shared(bytes));
    std::memset(shared, 9, bytes);
    std::vector<int> good(200);
    pool.parallel_for(200, [&](int64_t i, int thread) {
      char* mine = static_cast<char*>(pool.scratch(thread, bytes));
      const bool aligned = reinterpret_cast<uintptr_t>(mine) % 64 == 0;
      std::memset(mine, static_cast<int>(i), bytes);
      good[static_cast<size_t>(i)] =
          aligned && mine[bytes - 1] == static_cast<char>(i) && shared[bytes - 1] == 9;
    });
    CHECK(good == std::vector<int>(200, 1));
  }
}

TEST(pool_workers_are_clean_whatever_the_caller_is) {
  set_flushing();
  CHECK(!FloatMode::is_clean());
  {
    FloatMode mode;
    CHECK(FloatMode::is_clean());
    { FloatMode again; }
    CHECK(FloatMode::is_clean());
    Pool pool(3);  // its threads are born of a thread that was flushing
    std::vector<int> clean(2000);
    pool.parallel_for(2000, [&](int64_t i, int) {
      volatile float tiny = 1e-40f;
      clean[static_cast<size_t>(i)] = FloatMode::is_clean() && tiny * 1.0f != 0.0f;
    });
    CHECK(clean == std::vector<int>(2000, 1));
  }
  CHECK(!FloatMode::is_clean());  // as it was
#if defined(__x86_64__)
  _mm_setcsr(0x1f80);
#else
  asm volatile("msr fpcr, %0" ::"r"(uint64_t(0)));
#endif
}

TEST(pool_has_one_caller_at_a_time) {
  Pool pool(2);
  std::vector<int64_t> shared(64);
  auto add = [&](int64_t amount) {
    for (int round = 0; round < 300; ++round) {
      const auto mine = pool.exclusive();
      pool.parallel_for(64, [&](int64_t i, int) { shared[static_cast<size_t>(i)] += amount; });
    }
  };
  std::thread other(add, 1), third(add, 100);
  add(10000);
  other.join(), third.join();
  CHECK(shared == std::vector<int64_t>(64, 300 * 10101));
}

TEST(pool_ends_while_workers_spin_or_sleep) {
  for (int round = 0; round < 40; ++round) {
    Pool pool(4);
    int64_t sum = 0;
    if (round % 2) pool.parallel_for(1, [&](int64_t, int) { ++sum; });
    if (round % 4 == 3) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    CHECK(sum == round % 2);
  }
}

TEST(pool_is_left_alone_by_a_child_of_fork) {
  Pool* pool = new Pool(3);
  pool->parallel_for(10, [](int64_t, int) {});
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a child that waits for threads it does not have would wait for ever
    delete pool;
    _exit(7);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
  delete pool;
}
