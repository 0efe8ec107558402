// Plans: what is refused, an arena whose slots are used in turn, polls, several plans in one pool.
#include <cmath>
#include <limits>
#include <stdexcept>
#include <thread>

#include "calling.hpp"
#include "check.hpp"
#include "plan.hpp"

namespace {
using namespace ree;
using namespace ree::test;
using Ints = std::vector<int64_t>;

// 0 .. n-1 times step from start, summed, in descending order; three slots of n numbers.
Plan chain(const std::string& isa, int64_t n, int64_t start) {
  Plan plan(isa);
  plan.add("iota", {0}, {n, start, 3});
  plan.add("cumsum_i64", {0, 1}, {1, n, 1});
  plan.add("sort_i64", {1, 0, 2}, {1, n, 1, 1});  // the first slot's numbers are dead by now
  return plan;
}

bool right(const int64_t* sorted, const int64_t* where, int64_t n, int64_t start) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t from = n - 1 - i;  // sums ascend, as all terms are positive
    if (where[i] != from || sorted[i] != (from + 1) * start + 3 * (from * (from + 1) / 2))
      return false;
  }
  return true;
}
}  // namespace

TEST(plan_refuses_what_it_does_not_know) {
  CHECK(throws<std::invalid_argument>([] { Plan plan("z80"); }));
  for (const std::string& isa : instruction_sets()) {
    Plan plan(isa);
    CHECK(throws<std::invalid_argument>([&] { plan.add("no_such_kernel", {0}, {1}); }));
    CHECK(throws<std::invalid_argument>([&] { plan.add("iota", {0}, {4, 0}); }));
    CHECK(throws<std::invalid_argument>([&] { plan.add("iota", {0, 1}, {4, 0, 1}); }));
    CHECK(throws<std::invalid_argument>([&] { plan.add("tree_hash_many", {0, 1}, {2, 8, 8}); }));
    CHECK(throws<std::invalid_argument>([&] { plan.add("strided_copy", {0, 1}, {4, 2, 1}); }));
    CHECK(throws<std::invalid_argument>([&] { plan.add("iota", {0}, {}); }));
    CHECK(plan.size() == 0);
    plan.add("iota", {5}, {4, 0, 1});
    CHECK(plan.size() == 1);
    Pool pool(1);
    void* table[5] = {};
    CHECK(throws<std::invalid_argument>([&] { plan.run(pool, table, 5); }));
  }
}

TEST(plan_runs_in_an_arena) {
  for (const std::string& isa : instruction_sets())
    for (int threads : {1, 3}) {
      Pool pool(threads);
      for (int64_t n : {1, 2, 255, 4097}) {
        Ints arena(static_cast<size_t>(3 * n));  // exactly: what is written beside it is found
        void* table[3] = {arena.data(), arena.data() + n, arena.data() + 2 * n};
        const Plan plan = chain(isa, n, 5);
        for (int round = 0; round < 3; ++round) plan.run(pool, table, 3);
        CHECK(right(arena.data(), arena.data() + 2 * n, n, 5));
      }
    }
}

TEST(plan_several_in_one_pool) {
  Pool pool(2);
  const std::string isa(best_isa());
  auto work = [&](int64_t start, bool* good) {
    const int64_t n = 3000;
    const Plan plan = chain(isa, n, start);
    Ints arena(static_cast<size_t>(3 * n));
    void* table[3] = {arena.data(), arena.data() + n, arena.data() + 2 * n};
    *good = true;
    for (int round = 0; round < 60; ++round) {
      plan.run(pool, table, 3);
      *good = *good && right(arena.data(), arena.data() + 2 * n, n, start);
    }
  };
  bool good[3];
  std::thread first(work, 1, &good[0]), second(work, 1000, &good[1]);
  work(1000000, &good[2]);
  first.join(), second.join();
  CHECK(good[0] && good[1] && good[2]);
}

// One plan may run in several threads, each with memory of its own.
TEST(plan_is_read_only_when_it_runs) {
  Pool pools[] = {Pool(1), Pool(1)};
  const int64_t n = 1000;
  const Plan plan = chain(std::string(best_isa()), n, 7);
  bool good[2];
  auto work = [&](int which) {
    Ints arena(static_cast<size_t>(3 * n));
    void* table[3] = {arena.data(), arena.data() + n, arena.data() + 2 * n};
    for (int round = 0; round < 60; ++round) plan.run(pools[which], table, 3);
    good[which] = right(arena.data(), arena.data() + 2 * n, n, 7);
  };
  std::thread other(work, 1);
  work(0);
  other.join();
  CHECK(good[0] && good[1]);
}

TEST(plan_what_a_poll_throws_ends_the_run) {
  Pool pool(2);
  Plan plan{std::string(best_isa())};
  const int64_t n = 50000;
  for (int i = 0; i < 1000; ++i) plan.add("iota", {i % 2}, {n, i, 1});  // some 30 ms or more
  for (int i = 0; i < 200; ++i) plan.add("sort_i64", {0, 1, 2}, {1, n, 1, 0});
  plan.add("iota", {3}, {1, 77, 0});
  Ints arena(static_cast<size_t>(3 * n)), last(1);
  void* table[4] = {arena.data(), arena.data() + n, arena.data() + 2 * n, last.data()};
  int polls = 0;
  CHECK(throws<std::runtime_error>([&] {
    plan.run(pool, table, 4, [&] {
      ++polls;
      throw std::runtime_error("interrupted");
    });
  }));
  CHECK(polls == 1);
  CHECK(last[0] == 0);
  Plan one{std::string(best_isa())};  // the pool is free again
  one.add("iota", {3}, {1, 78, 0});
  one.run(pool, table, 4);
  CHECK(last[0] == 78);
}

TEST(plan_has_nan_sees_the_last_element) {
  Pool pool(3);
  for (int64_t n : {0, 1, 4095, 4097, 8 * 65536, 8 * 65536 + 1, 12 * 65536 + 17}) {
    std::vector<uint32_t> x(static_cast<size_t>(n), 0x7f800000u);  // infinities are none
    CHECK(!has_nan(x.data(), n, &pool));
    for (int64_t at : {int64_t(0), n / 2, n - 1}) {
      if (n == 0) continue;
      x[static_cast<size_t>(at)] = 0xff800001u;
      CHECK(has_nan(x.data(), n, &pool));
      CHECK(has_nan(x.data(), n, nullptr));
      x[static_cast<size_t>(at)] = 0;
    }
  }
}
