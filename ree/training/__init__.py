"""Training runs: made, kept on disk, replayed and compared."""
