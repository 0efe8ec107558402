"""Programs of one process run at the same time from several threads, on the pool they share."""

import sys
import threading
from dataclasses import dataclass

import pytest
import torch

import ree


@pytest.fixture
def eager_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switches")
def test_programs_at_the_same_time_keep_their_bits():
    torch.manual_seed(0)
    models = [
        torch.nn.Conv2d(3, 20, 3, padding=1),
        torch.nn.Sequential(torch.nn.Linear(40, 70), torch.nn.GELU(), torch.nn.LayerNorm(70)),
        torch.nn.MultiheadAttention(32, 4, batch_first=True),
    ]
    x = torch.randn(2, 21, 32)
    inputs = [(torch.randn(2, 3, 14, 15),), (torch.randn(9, 40),), (x, x, x)]
    programs = [ree.compile(m.eval(), i) for m, i in zip(models, inputs, strict=True)]
    want = [p.run(*i, threads=2).outputs[0] for p, i in zip(programs, inputs, strict=True)]
    wrong = []

    def repeat(p, x, y):
        for _ in range(150):
            if not torch.equal(p.run(*x, threads=2).outputs[0], y):
                wrong.append(p)
                return

    threads = [
        threading.Thread(target=repeat, args=a) for a in zip(programs, inputs, want, strict=True)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_code_that_is_dropped_while_others_compile(monkeypatch):
    """Tile functions are found, made and dropped by several threads at once; each gets its own."""
    from ree.compiler.emit import tile

    monkeypatch.setattr(tile, "MOST", 2)
    monkeypatch.setattr(tile, "_compiled", type(tile._compiled)())
    monkeypatch.setattr(tile, "module_text", lambda specs, *_: specs)
    monkeypatch.setattr(tile, "compile_module", lambda specs, *_: list(specs))
    monkeypatch.setattr(tile, "TARGETS", {"portable": None})
    failed, interval = [], sys.getswitchinterval()

    @dataclass(frozen=True)
    class Spec:  # hashed in Python, as a TileSpec is: threads change there
        n: int

    def work(i):
        try:
            for n in range(4000):
                wanted = [Spec((n + i) % 5), Spec((n * 3 + i) % 5)]
                assert tile.compiled(wanted, "portable") == wanted
        except Exception as e:
            failed.append(e)

    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for w in workers:
            w.start()
        for w in workers:
            w.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failed
    assert len(tile._compiled) <= 2
