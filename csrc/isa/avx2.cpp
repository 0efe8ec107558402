// The AVX2 build of every kernel.
#include "avx2.hpp"

#include "kernels.inl"
