"""Training steps: optimizers, states and the update as one graph."""
