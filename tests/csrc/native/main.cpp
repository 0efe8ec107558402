// Runs the tests whose names contain one of the arguments, or all; exit status 1 if one fails.
#include <cstring>

#include "check.hpp"

int main(int argc, char** argv) {
  using namespace ree::test;
  int run = 0, failed = 0;
  for (const Case& c : cases) {
    bool wanted = argc == 1;
    for (int i = 1; i < argc; ++i) wanted |= std::strstr(c.name, argv[i]) != nullptr;
    if (!wanted) continue;
    const int before = failures;
    c.run();
    const bool bad = failures != before;
    if (bad) std::printf("FAIL %s\n", c.name);
    ++run, failed += bad;
  }
  std::printf("%d tests, %d failed\n", run, failed);
  return run == 0 || failed != 0;
}
