"""Running the contracts in tests and measurements; needs the extra `settlement-test`."""
