"""Code generation: pointwise groups to LLVM."""
