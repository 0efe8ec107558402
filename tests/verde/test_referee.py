"""The off-chain referee: clocks, garbage, restarts; transcripts and verdicts that were altered."""

import copy
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ree.errors import DisputeError
from ree.program import Program
from ree.verde import moves as m
from ree.verde.messages import Signed, encode_move, encode_signed
from ree.verde.referee import (
    MAX_GARBAGE,
    InvalidResponse,
    NoResponse,
    NothingToDispute,
    Referee,
    check_terms,
)
from ree.verde.service import Local, make_service
from ree.verde.transcript import Header, Transcript, timeline
from ree.verde.verdict import (
    Rules,
    Verdict,
    check_verdict,
    decode_verdict,
    encode_verdict,
)

NAMES = ["linear", "gelu", "softmax", "greater", "argmax"]
MINUTE = 60_000_000  # microseconds


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Way:
    """A transport to a service on which every answer takes a while, and may be replaced."""

    def __init__(self, service, clock, seconds=0.0, answer=None):
        self.service, self.clock, self.seconds = service, clock, seconds
        self.answer = answer or (lambda n, ask: ask())
        self.asked = 0

    def ask(self, dispute, moves, seconds):
        self.clock.now += self.seconds
        self.asked += 1
        return self.answer(self.asked, lambda: Local(self.service).ask(dispute, moves, seconds))


def slow(referee_of, defender, challenger, limit=60.0, defends=None, challenges=None):
    clock = Clock()
    ways = {"defender": Way(defender, clock, **(defends or {})),
            "challenger": Way(challenger, clock, **(challenges or {}))}  # fmt: skip
    return referee_of(defender, challenger, limit, ways, clock=clock, sleep=clock.sleep)


@pytest.mark.parametrize("name", NAMES)
def test_lies_are_refuted_and_the_truth_stands(program, honest, liars, referee_of, name):
    refuted = referee_of(liars[name], honest).run()
    assert (refuted.winner, refuted.reason[:8]) == ("challenger", "executed")
    stands = referee_of(honest, liars[name]).run()
    assert (stands.winner, stands.reason[:8]) == ("defender", "executed")
    for v in (refuted, stands):
        assert check_verdict(v, program).follows
        assert decode_verdict(encode_verdict(v)) == (v, True)


def test_what_is_refused_before_it_begins(program, honest, liars):
    with pytest.raises(NothingToDispute):
        check_terms(honest.terms, honest.terms)
    check_terms(honest.terms, liars["gelu"].terms)
    other = make_service(program, {"x": program.examples["x"] * 2}, threads=1)
    with pytest.raises(DisputeError, match="parties' inputs differ"):
        check_terms(honest.terms, other.terms)
    twice = Program(program.graph, program.names, [program.weights[0] * 2], program.examples)
    with pytest.raises(DisputeError, match="parties' weights differ"):
        check_terms(honest.terms, make_service(twice, program.examples, threads=1).terms)
    with pytest.raises(DisputeError, match="weights are not the dispute's"):
        Rules(twice, honest.terms)


# clocks


def test_who_is_late_loses(honest, liars, referee_of):
    r = slow(referee_of, honest, liars["linear"], limit=5.0, defends={"seconds": 1.0})
    v = r.run()
    assert (v.winner, v.reason, len(r.state.trail) > 0) == ("challenger", "timeout", True)
    assert r.transcript.used("defender") == 5_000_000  # the fifth answer came at the limit: late
    assert sum(x.player == "defender" and x.move is not None for x in r.transcript.records) == 4
    r = slow(referee_of, liars["linear"], honest, limit=10.0, challenges={"seconds": 11.0})
    assert (r.run().winner, r.state.reason) == ("defender", "timeout")


def test_a_clock_stands_while_the_other_moves(honest, liars, referee_of):
    probe = referee_of(honest, liars["linear"])
    probe.run()
    turns = sum(x.player == "defender" for x in probe.transcript.records)
    slowly = {"seconds": 100.0 / turns - 0.01}
    r = slow(referee_of, honest, liars["linear"], 100.0, slowly, slowly)  # nearly 200 s in all
    assert (r.run().winner, r.state.reason[:8]) == ("defender", "executed")


def test_one_move_has_a_limit_too(program, honest, liars):
    clock = Clock()
    ways = {"defender": Way(honest, clock, 3.0), "challenger": Way(liars["gelu"], clock)}
    t = Transcript(Header(honest.terms, liars["gelu"].terms, 10 * MINUTE, 2_000_000))
    v = Referee(Rules(program, honest.terms), t, ways, clock, clock.sleep).run()
    assert (v.winner, v.reason, v.moves) == ("challenger", "timeout", ())


def test_a_party_that_never_answers_loses_in_time(honest, liars, referee_of):
    def silent(n, ask):
        raise NoResponse("nobody there")

    r = slow(referee_of, honest, liars["linear"], 30.0, challenges={"answer": silent})
    assert (r.run().winner, r.state.reason) == ("defender", "timeout")
    assert 30.0 <= r.clock.now < 31.0
    assert "nobody there" in r.transcript.records[-1].text


def test_a_party_that_is_gone_for_a_while_goes_on(honest, liars, referee_of):
    def gone(n, ask):
        if n % 3:
            raise NoResponse("restarting")
        return ask()

    r = slow(referee_of, liars["softmax"], honest, 60.0, {"answer": gone}, {"answer": gone})
    assert (r.run().winner, r.state.reason[:8]) == ("challenger", "executed")


# garbage


def garbage():
    return st.one_of(
        st.binary(max_size=80),
        st.sampled_from([b"", b"{}", b"null", b"[" * 5000, b"\x00" * 600_000]),
        st.builds(lambda i: encode_move(m.Point(i)), st.integers(0, 2**32 - 1)),
        st.builds(
            lambda i: encode_signed(Signed(m.Point(i), bytes(64))), st.integers(0, 2**32 - 1)
        ),
        st.just(encode_move(m.Reveal((bytes(32),) * 16))),
        st.just(encode_move(m.Prove(()))),
        st.just(encode_move(m.Open(bytes(32)))),
        st.none(),
    )


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_garbage_never_crashes_the_referee(honest, liars, referee_of, data):
    """Whoever answers garbage loses, or wins by what it also said; the honest never lose."""
    truth = data.draw(st.booleans())
    liar = data.draw(st.sampled_from(NAMES))

    def spoil(n, ask):
        if data.draw(st.integers(0, 3)):
            return ask()
        x = data.draw(garbage())
        if x is None:
            raise InvalidResponse("too long")
        return x

    if truth:
        r = slow(referee_of, honest, liars[liar], challenges={"answer": spoil})
        assert r.run().winner == "defender"
    else:
        r = slow(referee_of, liars[liar], honest, defends={"answer": spoil})
        assert r.run().winner == "challenger"
    assert len(r.transcript.records) < 200


def test_garbage_counts_per_turn(honest, liars, referee_of):
    def twice(n, ask):
        return b"garbage" if n % MAX_GARBAGE else ask()

    r = slow(referee_of, liars["gelu"], honest, challenges={"answer": twice})
    assert (r.run().winner, r.state.reason[:8]) == ("challenger", "executed")
    r = slow(referee_of, liars["gelu"], honest, challenges={"answer": lambda n, ask: b"garbage"})
    v = r.run()
    assert (v.winner, v.reason) == ("defender", "timeout")
    assert len(r.transcript.records) == 1 + MAX_GARBAGE
    assert v.moves == (r.transcript.records[0].move,)  # garbage leaves no trace in the state


def test_other_values_than_those_of_the_trace(honest, liars, referee_of):
    def other(n, ask):
        return encode_signed(honest.signer.move("defender", r.history, m.Open(bytes(32))))

    r = slow(referee_of, honest, liars["gelu"], defends={"answer": other})
    assert r.run().reason == "timeout"
    assert "not those of the trace" in r.transcript.records[0].text


# restarts


@pytest.mark.parametrize("truth", [True, False])
def test_a_restart_of_anyone_at_any_step(program, honest, liars, tmp_path, verdict_of, truth):
    defender, challenger = (honest, liars["softmax"]) if truth else (liars["softmax"], honest)
    want = verdict_of(defender, challenger)
    header = Header(defender.terms, challenger.terms, MINUTE, MINUTE)
    for torn in (b"", b'{"move":{"kind":"poi', b"\x00" * 100):
        path = tmp_path / f"{len(torn)}.transcript"
        while True:
            t = Transcript.open(path, header)
            # parties come back with nothing but their run
            ways = {
                "defender": Local(copy.copy(defender)),
                "challenger": Local(copy.copy(challenger)),
            }
            for w in ways.values():
                w.service.party._rows.cache_clear()
                w.service.party._kept.clear()
            r = Referee(Rules(program, defender.terms), t, ways)
            over = r.state.phase is m.Phase.OVER
            if not over:
                r.turn()
            t.close()
            if over:
                break
            with open(path, "ab") as f:  # killed while writing the next line
                f.write(torn)
        got = Verdict(header.defender, tuple(t.moves), r.state.winner, r.state.reason, header.challenger,
                      tuple(x.signature for x in t.signed))  # fmt: skip
        assert got == want


def test_lateness_and_garbage_outlive_a_restart(program, honest, liars, tmp_path):
    header = Header(honest.terms, liars["gelu"].terms, 10_000_000, 10_000_000)
    path, clock = tmp_path / "t", Clock()

    def start(answer):
        t = Transcript.open(path, header)
        ways = {
            "defender": Way(honest, clock, 4.0, answer),
            "challenger": Way(liars["gelu"], clock),
        }
        return t, Referee(Rules(program, honest.terms), t, ways, clock, clock.sleep)

    for _ in range(2):
        t, r = start(lambda n, ask: b"garbage")
        r.turn()
        t.close()
        assert r.state.phase is m.Phase.OPEN
    t, r = start(None)  # 2 of 10 seconds are left, and an answer takes 4
    assert (r.turn().winner, r.state.reason) == ("challenger", "timeout")
    t.close()
    t, r = start(None)
    assert (r.state.winner, r.state.reason) == ("challenger", "timeout")
    t.close()


def test_one_referee_at_a_time(honest, liars, tmp_path):
    header = Header(honest.terms, liars["gelu"].terms, MINUTE, MINUTE)
    first = Transcript.open(tmp_path / "t", header)
    with pytest.raises(DisputeError, match="in use"):
        Transcript.open(tmp_path / "t", header)
    first.close()
    Transcript.open(tmp_path / "t", header).close()
    with pytest.raises(DisputeError, match="another dispute"):
        Transcript.open(
            tmp_path / "t", Header(honest.terms, liars["softmax"].terms, MINUTE, MINUTE)
        )


def test_damaged_transcripts(program, honest, liars, tmp_path, referee_of):
    r = referee_of(liars["gelu"], honest)
    header = r.transcript.header
    path = tmp_path / "t"
    t = Transcript.open(path, header)
    Referee(r.rules, t, r.transports).run()
    t.close()
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for bad in (b"", b"\n", b"x" + whole, whole + b"\n", lines[1], lines[0] + lines[0],
                whole.replace(b'"time":', b'"time":-'), whole + b"{}\n"):  # fmt: skip
        path.write_bytes(bad)
        with pytest.raises(DisputeError):
            Transcript.open(path, header)
    path.write_bytes(lines[0] + b"".join(lines[2:]))  # the first move is missing
    t = Transcript.open(path, header)
    with pytest.raises(DisputeError, match="illegal move"):
        Referee(r.rules, t, r.transports)
    t.close()
    with pytest.raises(DisputeError, match="cannot read"):
        Transcript.read(tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_says_so(honest, liars, referee_of):
    r = referee_of(liars["gelu"], honest)
    r.transcript._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(DisputeError, match="cannot write transcript"):
        r.run()
    r.transcript.close()


# verdict and timeline


def test_a_timeout_is_the_referees_word(program, honest, liars, referee_of):
    v = slow(referee_of, honest, liars["gelu"], 5.0, challenges={"seconds": 6.0}).run()
    found = check_verdict(v, program)
    assert not found.follows
    assert "referee's word" in found.text


def test_the_timeline(honest, liars, referee_of):
    r = referee_of(liars["linear"], honest)
    r.run()
    lines = timeline(r.transcript, r.rules.start(), r.rules.apply)
    assert len(lines) == len(r.transcript.moves)
    text = "\n".join(map(str, lines))
    assert "multiply-add k=129" in text
    assert "linear %0 : f32[40,9]" in text
    assert "the challenger wins: executed" in str(lines[-1])
    assert max(x.bytes for x in lines) <= 64 << 10
