"""The operators, a file a family: meaning, shapes, reference, samples."""
