"""Settlement, the contracts and their client. Not part of this release."""
