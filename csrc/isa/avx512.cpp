// The AVX-512 build of every kernel.
#include "avx512.hpp"

#include "kernels.inl"
