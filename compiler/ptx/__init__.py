"""PTX run on a CPU: text to blocks of instructions, to LLVM, to native code, a warp's lanes side by side."""
