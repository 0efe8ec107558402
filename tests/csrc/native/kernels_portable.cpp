#include "isa/portable.hpp"
#include "kernels.inl"
