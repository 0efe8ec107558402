// The portable build of every kernel.
#include "portable.hpp"

#include "kernels.inl"
