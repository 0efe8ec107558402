#include "isa/avx2.hpp"
#include "kernels.inl"
