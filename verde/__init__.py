"""Verde, the dispute game: the descent from a run to one float operation. Not part of this release."""
