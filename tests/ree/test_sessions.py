"""Programs with states: what a session keeps, what it overwrites, what it refuses; caches stay bounded."""

import gc
import threading

import numpy as np
import pytest
import torch

import ree
from ree.compiler.ir import Builder, Kind, Ref
from ree.compiler.plan.planner import plan
from ree.errors import CaptureError, InputError
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.runtime.backend import SHAPES
from ree.runtime.cache import LeastRecent
from ree.runtime.session import Session


class Cache(torch.nn.Module):
    """Keys written at positions; attention of a query over all of them; a counter."""

    def __init__(self, size=12, width=8):
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, width))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.project = torch.nn.Linear(width, width)

    def forward(self, x, positions):
        self.keys.index_copy_(0, positions, self.project(x))
        self.count.add_(positions.shape[0])
        scores = torch.softmax(x @ self.keys.T, -1)
        return {"out": scores @ self.keys, "seen": self.count.clone()}


def some(k, n=2):
    g = torch.Generator().manual_seed(k)
    return torch.randn(n, 8, generator=g), torch.randperm(12, generator=g)[:n]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Cache().eval()


def close(ours, theirs):
    assert ours.keys() == theirs.keys()
    for k in ours:
        torch.testing.assert_close(ours[k], theirs[k], rtol=1e-5, atol=1e-5)


def test_a_session_does_as_the_module(model):
    program = ree.compile(model, some(0), states=True)
    assert program.names.states == ("count", "keys")
    session = ree.Session(program)
    for k in range(5):
        want = model(*some(k))
        close(session(*some(k)), want)
    torch.testing.assert_close(torch.from_numpy(session.states["keys"]), model.keys)
    assert int(session.states["count"]) == int(model.count) == 10
    assert not program.initial[1].any(), "the program keeps what it was compiled with"


def test_a_cache_is_written_in_place(model):
    program = ree.compile(model, some(0), states=True)
    session = ree.Session(program)
    address = session.states["keys"].ctypes.data
    session(*some(0))
    assert session.in_place == {1}, "the counter is an output too"
    assert session.states["keys"].ctypes.data == address
    recipe = session._frame({}).executable.recipe
    (put,) = [c for c in recipe.calls if c.kernel == "scatter"]
    assert put.slots[0] == put.slots[3], "read and written where it lies"


def test_every_instruction_set_thread_count_and_capacity_gives_the_same_states(model):
    from ree import _core

    dims = {
        "x": {0: torch.export.Dim("n", min=2, max=12)},
        "positions": {0: torch.export.Dim("n", min=2, max=12)},
    }
    program = ree.compile(model, some(0, 3), dims, states=True)
    (symbol,) = program.graph.symbols

    def after(**how):
        session = ree.Session(program, **how)
        outputs = [session.run(*some(k, n)).outputs for k, n in enumerate((2, 9, 3, 12, 2))]
        return b"".join(x.numpy().tobytes() for o in outputs for x in o) + b"".join(
            x.tobytes() for x in session.state
        )

    want = after()
    for isa in _core.isa_names():
        for threads in (1, 2):
            assert after(isa=isa, threads=threads) == want
    assert after(fuse=False) == want
    assert after(capacity={symbol.name: 12}) == want


def test_capacity_takes_memory_once(model):
    n = torch.export.Dim("n", min=2, max=12)
    program = ree.compile(model, some(0, 3), {"x": {0: n}, "positions": {0: n}}, states=True)
    (symbol,) = program.graph.symbols
    session = ree.Session(program, capacity={symbol.name: 12})
    arena = session._arena
    for k in (2, 12, 5):
        session(*some(k, k))
    assert session._arena is arena
    grown = ree.Session(program)
    grown(*some(0, 2))
    first = len(grown._arena)
    grown(*some(0, 12))
    assert len(grown._arena) > first
    for wrong in ({}, {"m": 3}, {symbol.name: 13}, {symbol.name: True}):
        with pytest.raises(InputError, match="capacity"):
            ree.Session(program, capacity=wrong)


def test_sessions_do_not_see_each_other(model):
    program = ree.compile(model, some(0), states=True)
    alone = []
    for k in range(4):
        session = ree.Session(program)
        for j in range(20):
            session(*some(10 * k + j))
        alone.append(session.state[1].tobytes())
    together = [ree.Session(program, threads=1) for _ in range(4)]

    def work(k):
        for j in range(20):
            together[k](*some(10 * k + j))

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert [s.state[1].tobytes() for s in together] == alone


def test_a_run_waits_for_no_lock_of_the_program(model):
    """Another session runs while somebody holds every lock that the program has."""
    program = ree.compile(model, some(0), states=True)
    session = ree.Session(program, threads=1)
    session(*some(0))
    done = threading.Event()

    def work():
        session(*some(1))  # a pool of one thread is the caller's own
        done.set()

    with program.lock, program.cpu.executables._making, program._bound._making:
        threading.Thread(target=work, daemon=True).start()
        assert done.wait(20)


def test_states_come_back_by_name_or_in_order(model):
    program = ree.compile(model, some(0), states=True)
    session = ree.Session(program)
    session(*some(0))
    kept = {k: v.copy() for k, v in session.states.items()}
    first = session.run(*some(1)).outputs
    for given in (kept, list(kept.values()), {k: torch.from_numpy(v) for k, v in kept.items()}):
        again = ree.Session(program, given).run(*some(1)).outputs
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    keys = kept["keys"]
    for wrong in ({"keys": keys}, {**kept, "more": keys}, [kept["count"]], {**kept, "keys": keys[:3]},
                  {**kept, "keys": keys.astype(np.float64)}):  # fmt: skip
        with pytest.raises(InputError, match="state"):
            session.load(wrong)
    assert session.states["keys"].tobytes() != kept["keys"].tobytes()


def test_a_run_that_fails_half_way_says_so(model):
    session = ree.Session(ree.compile(model, some(0), states=True))
    kept = [x.copy() for x in session.state]
    with pytest.raises(InputError, match="index 99"):
        session(some(0)[0], torch.tensor([0, 99]))
    with pytest.raises(InputError, match="failed while it changed the state"):
        session(*some(0))
    session.load(kept)
    session(*some(0))


def test_inputs_that_do_not_fit_change_nothing(model):
    session = ree.Session(ree.compile(model, some(0), states=True))
    session(*some(0))
    kept = [x.tobytes() for x in session.state]
    for wrong in ((torch.zeros(3, 8), some(0)[1]), (some(0)[0],), (some(0)[0], torch.zeros(2))):
        with pytest.raises(InputError):
            session(*wrong)
    assert [x.tobytes() for x in session.state] == kept
    session(*some(1))


def test_a_trace_from_the_states_does_not_change_them(model):
    program = ree.compile(model, some(0), states=True)
    session = ree.Session(program)
    session(*some(0))
    kept = [x.tobytes() for x in session.state]
    trace = session.trace(*some(1))
    assert [x.tobytes() for x in session.state] == kept
    again = ree.Session(program, [x.copy() for x in session.state]).trace(*some(1))
    assert trace.root == again.root
    session(*some(1))
    assert session.trace(*some(1)).root != trace.root


def test_states_are_asked_for(model):
    with pytest.raises(CaptureError, match=r"changes buffer .* at .*test_sessions\.py"):
        ree.compile(model, some(0))
    program = ree.compile(model, some(0), states=True)
    with pytest.raises(InputError, match="has states"):
        program(*some(0))
    bare = Program(program.graph, program.names, program.weights)
    with pytest.raises(InputError, match="there is no state yet"):
        Session(bare)(*some(0))


def test_an_input_is_never_a_state():
    class Writes(torch.nn.Module):
        def forward(self, x):
            x.add_(1)
            return x * 2

    with pytest.raises(CaptureError, match="changes input"):
        ree.compile(Writes().eval(), (torch.ones(3),), states=True)


def test_a_state_with_two_names_is_refused():
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("a", torch.zeros(4))
            self.register_buffer("b", self.a[:2])

        def forward(self, x):
            self.a.add_(x)
            return self.b + x[:2]

    with pytest.raises(CaptureError) as caught:
        ree.compile(Two().eval(), (torch.ones(4),), states=True)
    assert "'a' and 'b' are the same memory" in caught.value.hint


def test_an_artifact_keeps_the_first_states(model, tmp_path):
    with torch.no_grad():
        model.keys.fill_(0.5)
    program = ree.compile(model, some(0), states=True)
    program.save(tmp_path / "cache.ree")
    loaded = ree.load(tmp_path / "cache.ree")
    a, b = ree.Session(program), ree.Session(loaded)
    assert torch.equal(a(*some(0))["out"], b(*some(0))["out"])
    assert a.state[1].tobytes() == b.state[1].tobytes()
    (tmp_path / "cache.ree" / "states.safetensors").unlink()
    with pytest.raises(ree.ReeError, match=r"states\.safetensors"):
        ree.load(tmp_path / "cache.ree")


F32 = TensorType(DType.F32, (6, 4))
ROWS = TensorType(DType.F32, (2, 4))


def written(make):
    """Which states of a program are overwritten; make(builder, state, index, rows) gives its outputs, the new
    state first. It must run as with buffers that change places."""
    b = Builder()
    index, rows = b.input(TensorType(DType.I64, (2,))), b.input(ROWS)
    b.state(F32)
    g = b.finish(make(b, Ref(Kind.STATE, 0), index, rows))
    p = Program(g, Names(("i", "x"), tuple(f"o{i}" for i in range(len(g.outputs))), (), ("s",)), [])
    rng = np.random.default_rng(0)
    first = rng.standard_normal((6, 4)).astype(np.float32)
    session, copies = Session(p, [first]), Session(p, [first])
    copies._frames[()] = unshared(copies)
    for i in ((1, 4), (4, 4), (-1, 0)):
        x = rng.standard_normal((2, 4)).astype(np.float32)
        for s in (session, copies):
            s.last = s.run(np.array(i), x).outputs
        assert [a.tobytes() for a in session.last] == [a.tobytes() for a in copies.last]
        assert session.state[0].tobytes() == copies.state[0].tobytes()
    assert plan(g, panel=32).in_place == session.in_place
    return session.in_place


def unshared(session):
    from ree import _core
    from ree.runtime.executable import Executable, Frame

    g = session.program.graph
    recipe = plan(g, panel=_core.panel("portable"), keep_values=True)
    assert not recipe.in_place
    return Frame(Executable(g, recipe, "portable", [], {}))


def put(b, x, index, rows, op="index_put"):
    return b.add(op, x, index, rows, dim=0)


def test_a_chain_of_writes_is_one_place():
    def chain(b, s, i, x):
        one = put(b, s, i, x)
        two = put(b, one, i, b.add("tanh", x), op="index_add")
        return two, b.add("sin", two)

    assert written(chain) == {0}


def test_what_is_read_before_the_write_may_be_in_place():
    def before(b, s, i, x):
        y = b.add("sum", s, dim=0, keepdim=False)
        return put(b, s, i, b.add("add", x, y)), y

    assert written(before) == {0}


def read_late(b, s, i, x):
    new = put(b, s, i, x)
    return new, b.add("sum", s, dim=0, keepdim=False)


def test_a_wrong_choice_is_noticed(monkeypatch):
    assert written(read_late) == set()
    monkeypatch.setattr("ree.compiler.plan.in_place._Finder._may_follow", lambda *_: True)
    with pytest.raises(AssertionError):
        written(read_late)


@pytest.mark.parametrize("how", ["after", "seen", "updates", "middle", "view"])
def test_what_is_read_after_the_write_has_a_copy(how):
    def make(b, s, i, x):
        if how == "updates":  # the rows that are written are rows of the state
            rows = b.add("slice", s, dim=0, start=1, stop=3, step=1)
            return put(b, s, i, rows), b.add("sin", x)
        new = put(b, s, i, x)
        if how == "seen":
            return new, b.add("view", s, shape=(24,))
        if how == "view":  # through a view, after the write
            rest = b.add("matmul", b.add("permute", s, dims=(1, 0)), new)
            return new, rest
        if how == "middle":
            return put(b, new, i, b.add("tanh", x)), b.add("view", new, shape=(24,))
        return new, b.add(
            "add", b.add("sum", new, dim=0, keepdim=False), b.add("sum", s, dim=0, keepdim=False)
        )

    assert written(make) == set()


def test_a_cache_drops_what_was_not_used_for_longest():
    cache = LeastRecent(3)
    for k in "abc":
        cache.get_or_make(k, k.upper)
    cache.get_or_make("a", lambda: pytest.fail("made twice"))
    cache.get_or_make("d", "D".lower)
    assert list(cache) == ["c", "a", "d"]


def test_many_shapes_keep_few_things():
    n = torch.export.Dim("n", min=1, max=400)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(16, 16)

        def forward(self, x):
            return torch.tanh(self.inner(x)) @ x.T

    program = ree.compile(Net().eval(), (torch.randn(3, 16),), {"x": {0: n}})
    for k in range(1, 60):
        program(torch.randn(k, 16))
        program.run(torch.randn(k, 16), trace="io")
    for cache in (program._bound, program._instances, program.cpu.executables):
        assert len(cache) == SHAPES
    gc.collect()
    assert len(program.cpu.packed) == 1


def test_a_run_without_a_trace_makes_no_instance(monkeypatch):
    program = ree.compile(torch.nn.Linear(4, 4).eval(), (torch.randn(2, 4),))
    monkeypatch.setattr("ree.program.commit", lambda *_: pytest.fail("an instance was made"))
    program(torch.randn(2, 4))
    with pytest.raises(pytest.fail.Exception):
        program.run(torch.randn(2, 4), trace="io")


def test_memory_that_is_not_there_is_a_memory_error():
    from ree.runtime.executable import aligned

    for nbytes in (1 << 46, 1 << 70):
        with pytest.raises(MemoryError):
            aligned(nbytes)


def test_a_session_says_that_it_runs_on_the_cpu(model, monkeypatch):
    session = ree.Session(ree.compile(model, some(0), states=True))
    monkeypatch.setattr("ree.runtime.session.tensors_among", lambda _: (True, "cuda:0"))
    with pytest.raises(InputError, match="on cuda:0: a session runs on the CPU"):
        session(*some(0))


@pytest.mark.parametrize("value", [torch.Size([3]), torch.float32, torch.Generator(), "abc", None])
def test_what_is_no_tensor_is_refused_with_its_name(value):
    program = ree.compile(torch.nn.ReLU(), (torch.randn(3),))
    with pytest.raises(InputError, match="input 'input'"):
        program(value)


def test_a_tensor_of_a_class_of_ones_own_is_a_tensor():
    class Mine(torch.Tensor):
        pass

    program = ree.compile(torch.nn.ReLU(), (torch.randn(3),))
    assert isinstance(program(torch.randn(3).as_subclass(Mine)), torch.Tensor)
