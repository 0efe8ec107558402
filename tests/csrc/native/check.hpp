// A test is a TEST block; CHECK counts what does not hold, says where, and goes on.
#pragma once
#include <cstdio>
#include <string>
#include <vector>

namespace ree::test {

struct Case {
  const char* name;
  void (*run)();
};
inline std::vector<Case> cases;
inline int failures = 0;

struct Register {
  Register(const char* name, void (*run)()) { cases.push_back({name, run}); }
};
inline bool check(bool holds, const char* what, const char* file, int line) {
  if (!holds) std::printf("%s:%d: does not hold: %s\n", file, line, what);
  failures += !holds;
  return holds;
}
// Whether fn throws an E.
template <class E, class Fn>
bool throws(Fn&& fn) {
  try {
    fn();
  } catch (const E&) { return true; }
  return false;
}

}  // namespace ree::test

#define TEST(name)                                               \
  static void name();                                            \
  static const ree::test::Register register_##name(#name, name); \
  static void name()
#define CHECK(...) ree::test::check((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
