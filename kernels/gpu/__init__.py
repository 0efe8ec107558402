"""Triton kernels, and how a kernel call of a plan becomes their launches."""
