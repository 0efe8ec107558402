// Included once per ISA, after that ISA's vector layer: compiles every kernel for it.
#include "../kernel.hpp"

#define REE_STR2(x) #x
#define REE_STR(x) REE_STR2(x)

// generated at build time from kernels/scalar_functions.py
#include "scalar_generated.inl"

#include "../ops/common.inl"
#include "../ops/gemm.inl"
#include "../ops/conv.inl"
#include "../ops/attention.inl"
#include "../ops/rows.inl"
#include "../ops/movement.inl"
#include "../ops/scan.inl"
#include "../ops/scatter.inl"
#include "../ops/sort.inl"
#include "../ops/derive.inl"
#include "../hash/sha256.inl"

namespace ree::REE_ISA {

static const KernelEntry kEntries[] = {
#define REE_KERNEL(name) {#name, &name},
    REE_GEMM_KERNELS REE_CONV_KERNELS REE_ATTENTION_KERNELS REE_ROWS_KERNELS REE_MOVEMENT_KERNELS
        REE_SCAN_KERNELS REE_SCATTER_KERNELS REE_SORT_KERNELS REE_DERIVE_KERNELS REE_HASH_KERNELS
            REE_SCALAR_KERNELS
#undef REE_KERNEL
};
extern const KernelTable table;
const KernelTable table = {REE_STR(REE_ISA), kEntries, (int)(sizeof kEntries / sizeof kEntries[0]),
                           W, kPanel};

}  // namespace ree::REE_ISA
