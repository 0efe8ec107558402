"""Running programs: compiled code, the memory of a run, sessions that own states."""
