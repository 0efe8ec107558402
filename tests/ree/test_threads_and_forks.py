"""Threads, forks and interruptions: others are heard, children end, Ctrl-C ends all."""

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time
import warnings

import torch
from torch import nn

import ree
from ree.compiler.frontend import quiet
from ree.runtime import settings


def _child(p, x, queue):
    queue.put(p(x).tolist())


def test_a_forked_child_runs():
    x = torch.ones(64, 64)
    p = ree.compile(nn.Linear(64, 64), (x,))
    want = p.run(x, threads=2).outputs[0].tolist()
    pid = os.fork()
    if not pid:  # and ends without os._exit's short cut through the pool's destructor
        ok = p.run(x, threads=2).outputs[0].tolist() == want
        settings._pools.clear()
        os._exit(0 if ok else 3)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_child, args=(p, x, queue))
    process.start()
    assert queue.get(timeout=60) == want
    process.join(60)
    assert os.waitpid(pid, 0)[1] == 0


def test_threads_compile_one_after_another_and_others_are_heard(capsys):
    net = nn.Sequential(nn.Linear(6, 5), nn.GELU()).eval()
    found, done, said = [], threading.Event(), [0]

    def work():
        found.append(ree.compile(net, (torch.ones(4, 6),)).program_hash)

    def talk():
        while not done.wait(0.01):
            print("tick")
            said[0] += 1

    talker = threading.Thread(target=talk)
    talker.start()
    workers = [threading.Thread(target=work) for _ in range(3)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    done.set()
    talker.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert capsys.readouterr().out.count("tick") == said[0] > 0


def net():
    return nn.Sequential(nn.Linear(6, 5), nn.GELU()).eval()


def in_a_child(work, seconds=60):
    """What `work` returns in a child of fork, as text; AssertionError if the child hangs."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            text = str(work())
        except BaseException as e:
            text = f"{type(e).__name__}: {e}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    try:
        ready = select.select([reader], [], [], seconds)[0]
        assert ready, "the child hangs"
        return os.read(reader, 4096).decode()
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def holding(lock, forked):
    """A thread that has a lock until the fork is over."""
    has = threading.Event()

    def hold():
        with lock:
            has.set()
            forked.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert has.wait(60)
    return thread


def test_a_fork_while_another_thread_runs():
    x = torch.ones(4, 6)
    p = ree.compile(net(), (x,))
    want = p(x).tolist()
    for lock in (p.lock, settings._pools_lock):
        forked = threading.Event()
        thread = holding(lock, forked)
        try:
            assert in_a_child(lambda: p(x).tolist()) == str(want)
        finally:
            forked.set()
            thread.join()


def test_a_fork_while_another_thread_computes():
    x = torch.ones(64, 64)
    p = ree.compile(nn.Linear(64, 64), (x,))
    want, over = p(x).tolist(), threading.Event()

    def work():
        while not over.is_set():
            p.run(x, threads=2)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            assert in_a_child(lambda: p.run(x, threads=2).outputs[0].tolist() == want) == "True"
    finally:
        over.set()
        thread.join()


def test_a_fork_while_another_thread_captures():
    from torch._dynamo.convert_frame import compile_lock

    for lock in (quiet._lock, compile_lock):
        forked = threading.Event()
        thread = holding(lock, forked)
        try:
            said = in_a_child(lambda: ree.compile(net(), (torch.ones(4, 6),)))
        finally:
            forked.set()
            thread.join()
        assert said.startswith("PlatformError: this process was forked while another thread")
    assert (
        in_a_child(lambda: ree.compile(net(), (torch.ones(4, 6),)).program_hash.hex())[:2] != "En"
    )


def test_a_fork_waits_for_a_call_into_the_compiler():
    from ree.compiler.emit import jit

    forked = threading.Event()
    thread = holding(jit.llvm.ffi.lib._lock, forked)
    threading.Timer(0.3, forked.set).start()
    x = torch.ones(3, 7)
    try:
        assert in_a_child(lambda: ree.compile(nn.Tanh(), (x,))(x).shape) == "torch.Size([3, 7])"
    finally:
        thread.join()


class Warns(nn.Module):
    def __init__(self, entered, go):
        super().__init__()
        self.entered, self.go = entered, go

    def forward(self, x):
        warnings.warn("from the capture", UserWarning, stacklevel=1)
        self.entered.set()
        assert self.go.wait(60)
        return x + 1


def test_warnings_of_other_threads_survive_a_capture():
    entered, go, done = threading.Event(), threading.Event(), []
    thread = threading.Thread(
        target=lambda: done.append(ree.compile(Warns(entered, go), (torch.ones(2),)))
    )
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        thread.start()
        assert entered.wait(60)
        warnings.warn("from elsewhere", UserWarning, stacklevel=1)
        go.set()
        thread.join()
        assert warnings.filters == before
    assert len(done) == 1
    assert [str(w.message) for w in heard if "from" in str(w.message)] == ["from elsewhere"]


def test_torch_compile_from_several_threads():
    model, x = net(), torch.arange(24.0).view(4, 6)
    want = ree.compile(model, (x,))(x)
    torch.compile(model, backend="ree")  # torch looks up a backend by name in one thread at a time
    found, failed = [], []

    def work():
        try:
            with torch.no_grad():
                found.append(torch.compile(model, backend="ree")(x))
        except Exception as e:
            failed.append(e)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert not failed
    assert len(found) == 3
    assert all(torch.equal(y, want) for y in found)


SLOW = """
import os
import torch
class Deep(torch.nn.Module):
    def forward(self, x):
        os.write(1, b"begun\\n")  # what is printed while capturing is dropped
        for _ in range(20_000):
            x = x.sin() + x
        return x
def model():
    return Deep()
def example_inputs():
    return (torch.ones(2, 3),)
"""
LONG = """
import torch
from ree import optim
model = lambda: torch.nn.Linear(8, 8)
loss = lambda m, b: m(b[0]).mean() * 0.5
optimizer = lambda: optim.SGD(0.1)
def batch(step):
    if step == 50:
        print("begun", flush=True)
    return (torch.ones(4, 8),)
"""


def interrupted(command, cwd):
    """Exit code, stderr and seconds after Ctrl-C, which comes once the command has begun."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ree.cli", *command], cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # a job in the background ignores Ctrl-C, and so would what it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    killer = threading.Timer(240, process.kill)
    killer.start()
    try:
        line = process.stdout.readline()
        assert "begun" in line, line + process.stderr.read()
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    finally:
        killer.cancel()
    # CPython ends itself by the signal, which shells call 130 too, if it came while exec ran a text
    code = process.returncode
    return 128 - code if code == -signal.SIGINT else code, err, time.monotonic() - start


def test_control_c_in_a_long_run(tmp_path):
    (tmp_path / "t.py").write_text(LONG)
    code, err, seconds = interrupted(["train", "t.py", "-o", "r", "--steps", "100000000"], tmp_path)
    assert (code, "Traceback" in err, seconds < 20) == (130, False, True), err
    assert "--resume" in err.splitlines()[-1]  # the state after the last step is kept


def test_control_c_in_a_compilation(tmp_path):
    (tmp_path / "m.py").write_text(SLOW)
    code, err, seconds = interrupted(["compile", "m.py", "-o", "m.ree"], tmp_path)
    assert (code, "Traceback" in err, seconds < 30) == (130, False, True), err
    assert err.splitlines()[-1] == "interrupted"
    assert os.listdir(tmp_path) == ["m.py"]
