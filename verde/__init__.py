"""Verde, the dispute game: the descent from a run to one float operation."""
