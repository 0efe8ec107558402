"""Optimizers and learning-rate schedules of training steps; arguments are torch.optim's."""

from ree.compiler.training.optimizers import SGD, Adam, AdamW, Constant, Cosine, Linear, Optimizer

__all__ = ["SGD", "Adam", "AdamW", "Constant", "Cosine", "Linear", "Optimizer"]
