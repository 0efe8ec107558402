"""ree.sampling: the same token in a module and out of it, compiled or not."""

import numpy as np
import pytest
import torch

import ree
from ree.errors import InputError, ReeError
from ree.kernels.testing import draws
from ree.sampling import sample


class Model(torch.nn.Module):
    """Scores of 50 tokens, and one that is drawn from them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.scores = torch.nn.Linear(8, 50)

    def forward(self, x, temperature, seed, position):
        x = self.scores(x)
        return sample(x, temperature=temperature, top_p=0.9, top_k=20, seed=seed, position=position)


def given(rows):
    g = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 8, generator=g) * 5
    return x, torch.full((rows,), 0.8), torch.arange(rows) - 2, torch.arange(rows)


def rule(model, x, temperature, seed, position):
    with torch.no_grad():
        logits = ree.compile(model.scores, (x,))(x).numpy()
    rows = len(logits)
    column = lambda v, t: np.full(rows, v, t)  # noqa: E731
    return draws(
        logits, temperature.numpy(), column(0.9, np.float32), column(0, np.float32), column(20, np.int64),
        seed.numpy(), position.numpy(), column(0, np.int64),
    )  # fmt: skip


@pytest.mark.parametrize("opened", [False, True])
def test_a_module_that_draws(opened):
    model, rows = Model().eval(), 5
    shapes = [{0: torch.export.Dim("rows", min=1, max=64)}] * 4 if opened else None
    program = ree.compile(model, given(rows), tuple(shapes) if shapes else None)
    assert [n.op for n in program.graph.nodes].count("sample") == 1
    for n in (rows, 1, 17) if opened else (rows,):
        args = given(n)
        want = rule(model, *args)
        assert len(set(want.tolist())) > 1 or n == 1
        for y in (program(*args), model(*args), program.run(*args, trace="ops").outputs[0]):
            assert y.dtype is torch.int64
            assert y.tolist() == want.tolist()


def test_in_torch_compile():
    model, args = Model().eval(), given(5)
    assert torch.compile(model, backend="ree")(*args).tolist() == model(*args).tolist()


def test_a_saved_program_draws_without_the_call(tmp_path):
    model, args = Model().eval(), given(5)
    ree.compile(model, args).save(tmp_path / "m.ree")
    program = ree.load(tmp_path / "m.ree")
    assert program(*args).tolist() == model(*args).tolist()
    trace = program.run(*args, trace="ops").trace
    assert ree.verify(program, trace, args).same


def test_numbers_are_columns():
    x, _, seed, _ = given(6)
    y = sample(x, seed=3, position=7)
    ones = {
        "temperature": 1.0,
        "top_p": 1.0,
        "min_p": 0.0,
        "top_k": 0,
        "seed": 3,
        "position": 7,
        "choice": 0,
    }
    columns = {k: torch.full((6,), v) for k, v in ones.items()}
    assert y.tolist() == sample(x, **columns).tolist()
    assert y.tolist() != sample(x, seed=4, position=7).tolist()
    assert (
        sample(x.bfloat16(), seed=3, position=7).tolist()
        == sample(x.bfloat16().float(), **columns).tolist()
    )
    assert sample(x, temperature=0, seed=seed.int(), position=0).tolist() == x.argmax(1).tolist()


def test_the_operator_is_one_of_torch():
    x, _, seed, _ = given(3)
    column = torch.ones(3)
    args = (x, column, column, column * 0, seed, seed, seed, seed)
    assert set(torch.library.opcheck(torch.ops.ree.sample, args).values()) == {"SUCCESS"}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"seed": 1.5}, "seed: expected a whole number of 64 bits or a tensor [rows], got 1.5"),
        ({"seed": True}, "seed: expected a whole number"),
        ({"seed": 2**63}, "got 9223372036854775808"),
        ({"seed": torch.zeros(3)}, "seed: expected torch.int64 [rows], got torch.float32 [3]"),
        ({"seed": torch.zeros(1, 3, dtype=torch.int64)}, "got torch.int64 [1, 3]"),
        ({"position": torch.zeros(2, dtype=torch.int64)}, "position"),
        ({"temperature": "hot"}, "temperature: expected a number or a tensor [rows], got 'hot'"),
        ({"logits": torch.zeros(3)}, "logits: expected a tensor [rows, vocabulary], got torch.float32 [3]"),
        ({"logits": [1.0]}, "logits: expected a tensor"),
        ({"logits": torch.zeros(3, 0)}, "expected 1 to"),
    ],
)  # fmt: skip
def test_what_is_refused(wrong, why):
    args = {"logits": torch.zeros(3, 5), "seed": 1, "position": 0} | wrong
    with pytest.raises(InputError) as e:
        sample(args.pop("logits"), **args)
    assert why in str(e.value)


def test_columns_that_do_not_fit_are_refused_with_the_line():
    class Wrong(torch.nn.Module):
        def forward(self, x, seed):
            return sample(x, seed=seed, position=0)

    with pytest.raises(ReeError, match=r"expected seed i64\[3\], got i64\[2\]"):
        ree.compile(Wrong(), (torch.zeros(3, 5), torch.zeros(2, dtype=torch.int64)))
