// The vector layer that kernels are compiled for: what the including file has chosen before, or the
// portable one.
#pragma once
#if !defined(REE_ISA)
#include "portable.hpp"
#endif
