// Sorts, scans, scatters and moves against plain loops, on buffers of exactly the size they need.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "calling.hpp"
#include "check.hpp"

namespace {
using namespace ree;
using namespace ree::test;
using Ints = std::vector<int64_t>;
using Floats = std::vector<float>;

struct Shape {
  int64_t outer, n, inner;
  size_t size() const { return static_cast<size_t>(outer * n * inner); }
  size_t at(int64_t o, int64_t k, int64_t i) const {
    return static_cast<size_t>((o * n + k) * inner + i);
  }
};
const Shape kShapes[] = {{1, 1, 1}, {3, 5, 7}, {1, 1000, 1}, {2, 300, 3}, {4, 47, 1}, {1, 129, 65}};

template <class T>
std::vector<T> numbers(size_t n, uint64_t seed) {
  Random random{seed};
  std::vector<T> x(n);
  for (T& v : x) v = static_cast<T>(random.below(200) - 100) / 4;  // many are equal
  return x;
}

template <class T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
void check_sort(const char* kernel) {
  for (const Shape& s : kShapes)
    for (int64_t descending : {0, 1}) {
      std::vector<T> x = numbers<T>(s.size(), s.size()), want(s.size());
      if constexpr (std::is_same_v<T, float>) {
        x[0] = std::numeric_limits<float>::quiet_NaN();
        x[s.size() / 2] = -0.0f;
        x[s.size() - 1] = std::numeric_limits<float>::infinity();
      }
      const auto before = [&](T a, T b) { return a < b || (b != b && a == a); };  // NaN is greatest
      Ints where(s.size());
      for (int64_t o = 0; o < s.outer; ++o)
        for (int64_t i = 0; i < s.inner; ++i) {
          Ints order(static_cast<size_t>(s.n));
          std::iota(order.begin(), order.end(), 0);
          std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
            const T u = x[s.at(o, a, i)], v = x[s.at(o, b, i)];
            return descending ? before(v, u) : before(u, v);
          });
          for (int64_t k = 0; k < s.n; ++k) {
            where[s.at(o, k, i)] = order[static_cast<size_t>(k)];
            want[s.at(o, k, i)] = x[s.at(o, order[static_cast<size_t>(k)], i)];
          }
        }
      for (const std::string& isa : instruction_sets()) {
        Pool pool(3);
        std::vector<T> y(s.size());
        Ints indices(s.size(), -1);
        call(pool, isa, kernel, {s.outer, s.n, s.inner, descending},
             {x.data(), y.data(), indices.data()});
        CHECK(same_bytes(y, want));
        CHECK(indices == where);
      }
    }
}

template <class T>
void check_scatter_add(const char* kernel, bool shared, bool in_place) {
  for (const Shape& s : kShapes) {
    const Shape u{s.outer, s.n + 3, s.inner};
    std::vector<T> x = numbers<T>(s.size(), 1), src = numbers<T>(u.size(), 2);
    const bool wraps = std::is_same_v<T, int64_t>;
    if (wraps) x[0] = src[0] = src[1 % u.size()] = static_cast<T>(INT64_MAX);
    Random random{s.size()};
    Ints index(shared ? static_cast<size_t>(u.n) : u.size());
    for (int64_t& v : index) v = random.below(shared ? 2 * s.n : s.n) - (shared ? s.n : 0);
    std::vector<T> want = x;
    for (int64_t o = 0; o < s.outer; ++o)
      for (int64_t j = 0; j < u.n; ++j)
        for (int64_t i = 0; i < s.inner; ++i) {
          int64_t to = index[shared ? static_cast<size_t>(j) : u.at(o, j, i)];
          if (to < 0) to += s.n;
          T& sum = want[s.at(o, to, i)];
          const T term = src[u.at(o, j, i)];
          sum = wraps ? static_cast<T>(static_cast<uint64_t>(sum) + static_cast<uint64_t>(term))
                      : sum + term;
        }
    for (const std::string& isa : instruction_sets()) {
      Pool pool(3);
      std::vector<T> y = in_place ? x : std::vector<T>(s.size());
      const void* from = in_place ? y.data() : x.data();
      call(pool, isa, kernel, {s.outer, s.n, s.inner, u.n, shared, sizeof(T)},
           {from, index.data(), src.data(), y.data()});
      CHECK(same_bytes(y, want));
    }
  }
}
}  // namespace

TEST(sort_of_floats) { check_sort<float>("sort_f32"); }
TEST(sort_of_integers) { check_sort<int64_t>("sort_i64"); }

TEST(scan_of_integers_wraps) {
  for (const Shape& s : kShapes) {
    Ints x = numbers<int64_t>(s.size(), 3), want(s.size());
    x[0] = std::numeric_limits<int64_t>::max();
    for (int64_t o = 0; o < s.outer; ++o)
      for (int64_t i = 0; i < s.inner; ++i) {
        uint64_t total = 0;
        for (int64_t k = 0; k < s.n; ++k) {
          total += static_cast<uint64_t>(x[s.at(o, k, i)]);
          want[s.at(o, k, i)] = static_cast<int64_t>(total);
        }
      }
    for (const std::string& isa : instruction_sets()) {
      Pool pool(3);
      Ints y(s.size());
      call(pool, isa, "cumsum_i64", {s.outer, s.n, s.inner}, {x.data(), y.data()});
      CHECK(y == want);
    }
  }
}

TEST(scan_of_floats_is_exact_on_quarters) {
  for (const Shape& s : kShapes) {
    const Floats x = numbers<float>(s.size(), 4);
    Floats want(s.size());
    for (int64_t o = 0; o < s.outer; ++o)
      for (int64_t i = 0; i < s.inner; ++i) {
        float total = 0;
        for (int64_t k = 0; k < s.n; ++k) want[s.at(o, k, i)] = total += x[s.at(o, k, i)];
      }
    for (const std::string& isa : instruction_sets()) {
      Pool pool(3);
      Floats y(s.size());
      call(pool, isa, "cumsum_f32", {s.outer, s.n, s.inner}, {x.data(), y.data()});
      CHECK(y == want);
    }
  }
}

TEST(scatter_adds) {
  for (bool shared : {false, true})
    for (bool in_place : {false, true}) {
      check_scatter_add<float>("scatter_add_f32", shared, in_place);
      check_scatter_add<int64_t>("scatter_add_i64", shared, in_place);
    }
}

TEST(scatter_the_last_update_stands_at_every_width) {
  for (int64_t width : {1, 2, 4, 8}) {
    const int64_t n = 70, updates = 300;
    Random random{9};
    std::vector<uint8_t> x(static_cast<size_t>(n * width)),
        src(static_cast<size_t>(updates * width));
    for (uint8_t& b : x) b = static_cast<uint8_t>(random.next());
    for (uint8_t& b : src) b = static_cast<uint8_t>(random.next());
    Ints index(static_cast<size_t>(updates));
    for (int64_t& i : index) i = random.below(n);
    std::vector<uint8_t> want = x;
    for (int64_t j = 0; j < updates; ++j)
      std::copy_n(src.data() + j * width, width,
                  want.data() + index[static_cast<size_t>(j)] * width);
    for (const std::string& isa : instruction_sets()) {
      Pool pool(2);
      std::vector<uint8_t> y(x.size());
      call(pool, isa, "scatter", {1, n, 1, updates, 0, width},
           {x.data(), index.data(), src.data(), y.data()});
      CHECK(y == want);
    }
  }
}

// Refused before anything is written there, from a worker as from the caller.
TEST(scatter_and_gather_refuse_an_index_outside) {
  for (const std::string& isa : instruction_sets())
    for (int64_t bad : {int64_t(-9), int64_t(8), std::numeric_limits<int64_t>::min()}) {
      Pool pool(3);
      const Floats x(8 * 20000), src(20000);
      Floats y(8 * 20000);
      Ints index(20000);
      index.back() = bad;
      CHECK(throws<std::out_of_range>([&] {
        call(pool, isa, "scatter_add_f32", {1, 8, 20000, 1, 0, 4},
             {x.data(), index.data(), src.data(), y.data()});
      }));
      const Ints rows{0, bad};
      CHECK(throws<std::out_of_range>([&] {
        call(pool, isa, "gather_rows", {2, 20000, 8, 4, 1}, {x.data(), rows.data(), y.data()});
      }));
    }
}

TEST(move_transposes) {
  for (int64_t rows : {1, 31, 33, 200})
    for (int64_t columns : {1, 32, 65}) {
      const Floats x = numbers<float>(static_cast<size_t>(rows * columns), 5);
      Floats want(x.size());
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c)
          want[static_cast<size_t>(c * rows + r)] = x[static_cast<size_t>(r * columns + c)];
      for (const std::string& isa : instruction_sets()) {
        Pool pool(3);
        Floats y(x.size());
        call(pool, isa, "strided_copy", {4, 2, columns, rows, 1, columns, rows, 1},
             {x.data(), y.data()});
        CHECK(y == want);
      }
    }
}

TEST(move_makes_bits_canonical) {
  for (int64_t n : {1, 15, 16, 17, 100, 40001}) {
    std::vector<uint32_t> x(static_cast<size_t>(n), 0xff812345u), y(x.size());
    x[0] = 0x80000000u;
    std::vector<uint32_t> want(x.size(), 0x7fc00000u);
    want[0] = 0x80000000u;
    for (const std::string& isa : instruction_sets()) {
      Pool pool(3);
      call(pool, isa, "canonical_copy", {n}, {x.data(), y.data()});
      CHECK(y == want);
    }
  }
}
