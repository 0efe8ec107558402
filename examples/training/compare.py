"""Trains the examples with PyTorch and with REE on the same batches, and plots both loss curves.

python examples/training/compare.py [digits chargpt minilm_lora] [--only torch|ree] [--threads 1]

Writes training_curves.json (every fifth loss, figures of evaluate()) and training_curves.png to --out; the
file keeps what an earlier call wrote of other examples. Dropout draws other numbers in REE than in torch.
"""

import argparse
import importlib
import json
import math
import sys
from pathlib import Path

import torch

from ree import optim

HERE = Path(__file__).parent
EXAMPLES = ("digits", "chargpt", "minilm_lora")
EVERY = 5


def example(name):
    """The module of an example."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    return importlib.import_module(name)


def rate_factor(schedule, t):
    """What a schedule of ree.optim multiplies the learning rate by at step t, counted from 0."""
    rise = min((t + 1) / schedule.warmup, 1.0) if schedule.warmup else 1.0
    if not isinstance(schedule, optim.Linear):
        return rise
    done = min(max((t - schedule.warmup) / (schedule.steps - schedule.warmup), 0.0), 1.0)
    left = (1 + math.cos(math.pi * done)) / 2 if isinstance(schedule, optim.Cosine) else 1 - done
    return rise * (schedule.final + (1 - schedule.final) * left)


def torch_optimizer(adamw, model, **setting):
    """torch's AdamW and learning-rate schedule for those of ree.optim; setting: foreach, fused."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, adamw.lr, adamw.betas, adamw.eps, adamw.weight_decay, **setting
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: rate_factor(adamw.schedule, t)
    )
    return optimizer, schedule


class TorchTrainer:
    """The plain loop."""

    def __init__(self, module, **setting):
        self.model = module.model()
        self.loss, self.clip_norm = module.loss, module.optimizer().clip_norm
        self.optimizer, self.schedule = torch_optimizer(module.optimizer(), self.model, **setting)

    def run(self, batch):
        """One step; the loss before it."""
        self.optimizer.zero_grad()
        loss = self.loss(self.model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    def trained(self):
        return self.model


class ReeTrainer:
    """The same steps by REE."""

    def __init__(self, module, threads):
        from ree.training.step import compile_step

        self.module = module
        self.step = compile_step(
            module.model(), module.loss, module.optimizer(), module.batch(0), seed=0
        )
        self.runner = self.step.runner(threads=threads)

    def run(self, batch):
        """One step; the loss before it."""
        return float(self.runner.run([x.numpy() for x in batch]))

    def trained(self):
        """The example's model with the parameters and buffers of the state."""
        model = self.module.model()
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        with torch.no_grad():
            for name, value in zip(self.step.names.states, self.runner.state, strict=True):
                kind, _, name = name.partition(".")
                if kind in ("parameter", "buffer"):
                    tensors[name].copy_(torch.from_numpy(value.copy()))
        return model


def train(trainer, module, name, steps):
    """All losses, and what the results keep."""
    losses = []
    for step in range(steps):
        losses.append(trainer.run(module.batch(step)))
        if step % 20 == 0:
            print(f"  {name} step {step}: {losses[-1]:.4f}", file=sys.stderr)
    kept = {str(i): round(losses[i], 8) for i in range(0, steps, EVERY)}
    figures = {k: round(v, 5) for k, v in module.evaluate(trainer.trained()).items()}
    return {"loss": kept, **figures}


def plot(results, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(results), 3.6), layout="constrained")
    for place, (name, result) in enumerate(results.items(), start=1):
        axes = figure.add_subplot(1, len(results), place)
        for side, style in (("torch", {"lw": 3, "alpha": 0.35}), ("ree", {"lw": 1})):
            if side in result:
                loss = result[side]["loss"]
                axes.plot([int(i) for i in loss], list(loss.values()), label=side, **style)
        axes.set(title=name, xlabel="step", ylabel="loss", ylim=(0, None))
        axes.legend()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="example", help=f"of {', '.join(EXAMPLES)}")
    parser.add_argument("--only", choices=("torch", "ree"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, help="fewer than the example's own")
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "benchmarks" / "results")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    file = args.out / "training_curves.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in args.names or EXAMPLES:
        module = example(name)
        steps = args.steps or module.STEPS
        result = results.setdefault(name, {})
        start = {k: round(v, 5) for k, v in module.evaluate(module.model()).items()}
        result.update(steps=steps, threads=args.threads, before=start)
        for side in ("torch", "ree"):
            if args.only in (None, side):
                trainer = (
                    TorchTrainer(module) if side == "torch" else ReeTrainer(module, args.threads)
                )
                result[side] = train(trainer, module, f"{name} {side}", steps)
    args.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n")
    plot(results, args.out / "training_curves.png")
    print(f"wrote {file} and its plot", file=sys.stderr)


if __name__ == "__main__":
    main()
