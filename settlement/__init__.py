"""Settlement: the contracts that decide a dispute and, later, their client."""
