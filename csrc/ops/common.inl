// What kernels share: the pool, the vector layer, arguments by name, small arithmetic.
#pragma once
#include <string_view>

#include "abi.hpp"
#include "core/math.hpp"
#include "isa/layer.hpp"
#include "kernel.hpp"

#define REE_STR2(x) #x
#define REE_STR(x) REE_STR2(x)

namespace ree::REE_ISA {

inline constexpr std::string_view kIsaName = REE_STR(REE_ISA);

using ree::canonical;
// Every stored float32 result has the canonical NaN.
inline F canonical(F x) { return select(ne(x, x), from_bits(set1i(kCanonicalNan)), x); }

}  // namespace ree::REE_ISA
