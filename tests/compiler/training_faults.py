"""Faults to plant in the capture of a training step; each takes pytest's monkeypatch."""

from torch import Tensor

from ree.compiler.frontend import follow, nodes, watch
from ree.compiler.training import step as training


def no_grad_ignored(patch):
    patch.setattr(watch.CallWatch, "_detached", lambda self, out, given: out)


def detach_ignored(patch):
    kept = dict.fromkeys(("detach", "alias"), lambda m, x: x)
    patch.setattr(nodes, "IMPORTERS", {**nodes.IMPORTERS, **kept})


def hooks_ignored(patch):
    patch.setattr(follow, "refuse_hooks", lambda module: None)
    patch.delitem(watch._GRADIENT, Tensor.register_hook)


def checkpoints_ignored(patch):
    patch.setattr(watch.CallWatch, "_note", lambda self, t: None)


def wrappers_ignored(patch):
    patch.setattr(watch, "_plain", lambda t: t)


def buffers_dropped(patch):
    forward = training._Step._forward

    def without(self, batch):
        before = {k: v for k, v in self.now.items() if k.startswith(training.BUFFER)}
        loss = forward(self, batch)
        self.now.update(before)
        return loss

    patch.setattr(training._Step, "_forward", without)
