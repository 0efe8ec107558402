#define REE_GEMM_KERNELS
namespace ree::REE_ISA {
inline constexpr int kPanel = 2 * W;
}
