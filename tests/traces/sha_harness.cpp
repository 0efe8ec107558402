// The hash kernels of one vector layer with the processor's SHA instructions, or their emulation,
// for up to `up_to` messages at a time, whatever dispatch.cpp would choose.
#include REE_LAYER

#include "kernel.hpp"

#define REE_STR(x) "harness"
#include "hash/sha256.inl"

namespace ree {
namespace sha_x86 {
extern const ShaCompress compress;
}
static int g_up_to;
ShaInstructions sha_instructions(std::string_view) { return {sha_x86::compress, g_up_to}; }
}  // namespace ree

extern "C" __attribute__((visibility("default"))) void run(int up_to, int kernel, int threads,
                                                           void* const* bufs,
                                                           const int64_t* params) {
  using namespace ree::REE_ISA;
  ree::g_up_to = up_to;
  ree::Pool pool(threads);
  const ree::Kernel kernels[] = {&tree_hash, &tree_hash_many, &sha256_many};
  kernels[kernel](pool, bufs, params);
}
