#include "isa/avx512.hpp"
#include "kernels.inl"
