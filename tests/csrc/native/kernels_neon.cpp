#include "isa/neon.hpp"
#include "kernels.inl"
