"""Commitments to a run: Merkle trees, tensor hashes, traces and their files."""
