// Included once per ISA, after that ISA's vector layer: compiles every kernel for it.
#pragma once
#include "hash/sha256.inl"
#include "isa/layer.hpp"
#include "ops/attention.inl"
#include "ops/conv.inl"
#include "ops/derive.inl"
#include "ops/gemm.inl"
#include "ops/gemm_i8.inl"
#include "ops/movement.inl"
#include "ops/quantise.inl"
#include "ops/rows.inl"
#include "ops/sample.inl"
#include "ops/scan.inl"
#include "ops/scatter.inl"
#include "ops/sort.inl"
#include "scalar_generated.inl"

namespace ree::REE_ISA {

// A kernel as plans call it: its arguments get their names here.
template <class Args, void (*Fn)(Pool&, const Args&)>
void enter(Pool& pool, void* const* bufs, const int64_t* params) {
  Fn(pool, Args(bufs, params));
}

static const KernelEntry kEntries[] = {
#define REE_KERNEL(name, Args) {#name, &enter<abi::Args, &name>, &abi::Args::fits},
    REE_KERNELS REE_SCALAR_KERNELS
#undef REE_KERNEL
};
extern const KernelTable table;
const KernelTable table = {kIsaName, kEntries,
                           static_cast<int>(sizeof kEntries / sizeof kEntries[0]), W, kPanel};

}  // namespace ree::REE_ISA
