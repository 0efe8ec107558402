// The hash kernels of one vector layer with the processor's SHA instructions, or their emulation,
// for up to `up_to` messages at a time, whatever dispatch.cpp would choose.
#include REE_LAYER

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
  if (kernel == 0) tree_hash(pool, ree::abi::TreeHashArgs(bufs, params));
  if (kernel == 1) tree_hash_many(pool, ree::abi::TreeHashManyArgs(bufs, params));
  if (kernel == 2) sha256_many(pool, ree::abi::Sha256ManyArgs(bufs, params));
}
