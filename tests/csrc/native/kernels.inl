// Included once per instruction set, after its vector layer: the kernels without contractions, row
// reductions and attention, which take minutes to compile under a sanitizer.
#include "hash/sha256.inl"
#include "ops/movement.inl"
#include "ops/scan.inl"
#include "ops/scatter.inl"
#include "ops/sort.inl"

namespace ree::REE_ISA {

template <class Args, void (*Fn)(Pool&, const Args&)>
void enter(Pool& pool, void* const* bufs, const int64_t* params) {
  Fn(pool, Args(bufs, params));
}

static const KernelEntry kEntries[] = {
#define REE_KERNEL(name, Args) \
  { #name, &enter < abi::Args, &name>, &abi::Args::fits }
    REE_KERNEL(cumsum_f32, CumsumF32Args),
    REE_KERNEL(cumsum_i64, CumsumI64Args),
    REE_KERNEL(sort_f32, SortF32Args),
    REE_KERNEL(sort_i64, SortI64Args),
    REE_KERNEL(strided_copy, StridedCopyArgs),
    REE_KERNEL(gather_rows, GatherRowsArgs),
    REE_KERNEL(scatter, ScatterArgs),
    REE_KERNEL(scatter_add_f32, ScatterAddF32Args),
    REE_KERNEL(scatter_add_i64, ScatterAddI64Args),
    REE_KERNEL(fill, FillArgs),
    REE_KERNEL(iota, IotaArgs),
    REE_KERNEL(canonical_copy, CanonicalCopyArgs),
    REE_KERNEL(tree_hash, TreeHashArgs),
    REE_KERNEL(tree_hash_many, TreeHashManyArgs),
    REE_KERNEL(sha256_many, Sha256ManyArgs),
#undef REE_KERNEL
};
extern const KernelTable table;
const KernelTable table = {kIsaName, kEntries, static_cast<int>(sizeof kEntries / sizeof *kEntries),
                           W, 0};

}  // namespace ree::REE_ISA
