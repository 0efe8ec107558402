// What kernels share.
#include "../kernel.hpp"

namespace ree::REE_ISA {

// Every stored float32 result has the canonical NaN.
inline F canonical(F x) { return select(ne(x, x), from_bits(set1i(0x7fc00000u)), x); }

}  // namespace ree::REE_ISA
