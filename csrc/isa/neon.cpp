// The NEON build of every kernel.
#include "neon.hpp"

#include "kernels.inl"
