"""Who moved: moves made up, replayed, in another order, by another key or left out are shown to be so."""

import re
from dataclasses import replace

import pytest

from ree.cli import main
from ree.errors import DisputeError
from ree.verde import moves as m
from ree.verde.messages import Parties, Signed, encode_move, encode_signed
from ree.verde.moves import Phase
from ree.verde.party import Party
from ree.verde.service import RefusedQuestion
from ree.verde.signing import (
    Signer,
    Unsigned,
    after,
    begin,
    default_path,
    history_of,
    load_signer,
)
from ree.verde.transcript import Header, Transcript
from ree.verde.verdict import Rules, Verdict, check_verdict, write_verdict

STRANGER = Signer(b"a stranger's key is 32 bytes too")


@pytest.fixture(scope="module")
def played(honest, liars, verdict_of):
    return verdict_of(liars["linear"], honest)


def follows(program, v, **change):
    return check_verdict(replace(v, **change), program).follows


def test_a_verdict_shows_who_moved(program, honest, liars, played):
    assert follows(program, played)
    assert played.terms.key == liars["linear"].signer.key
    assert played.challenger.key == honest.signer.key
    v, good = played, played.signatures
    for i in range(len(good)):
        one = good[i]
        for bad in (b"", bytes(64), bytes([one[0] ^ 1]) + one[1:], good[i - 1]):
            assert not follows(program, v, signatures=(*good[:i], bad, *good[i + 1 :])), i
        cut = (*good[:i], *good[i + 1 :])
        assert not follows(program, v, signatures=cut)
    assert not follows(program, v, signatures=(*good, bytes(64)))
    for change in ({"challenger": None}, {"challenger": v.terms}, {"signatures": ()},
                   {"challenger": replace(v.challenger, key=STRANGER.key)},
                   {"challenger": replace(v.challenger, signature=b"")},
                   {"challenger": STRANGER.terms(v.challenger)},
                   {"terms": replace(v.terms, key=b"", signature=b"")},
                   {"terms": STRANGER.terms(v.terms)}):  # fmt: skip
        assert not follows(program, v, **change), change


def test_moves_lead_to_the_same_state_signed_or_not(program, played):
    rules = Rules(program, played.terms)
    signed = [Signed(m, s) for m, s in zip(played.moves, played.signatures, strict=True)]
    assert rules.replay([]) == rules.start()
    for n in range(len(signed) + 1):
        assert rules.replay(signed[:n]) == rules.replay(played.moves[:n])
    assert rules.replay(signed).winner == played.winner


def test_signatures_are_of_one_dispute_and_one_place(program, honest, liars, verdict_of, played):
    """The same parties, and moves that are equal: the signatures are not."""
    other = verdict_of(liars["gelu"], honest)
    same = [i for i, (a, b) in enumerate(zip(played.moves, other.moves, strict=False)) if a == b]
    assert same
    for i in same:
        assert played.signatures[i] != other.signatures[i]
        spoilt = (*played.signatures[:i], other.signatures[i], *played.signatures[i + 1 :])
        assert not follows(program, played, signatures=spoilt)
    points = [i for i, x in enumerate(played.moves) if isinstance(x, m.Point)]
    a, b = points[:2]
    turned = list(played.signatures)
    turned[a], turned[b] = turned[b], turned[a]
    assert not follows(program, played, signatures=tuple(turned))
    # a history is all that came before, not the last move
    dispute, same = Parties(played.terms, played.challenger), m.Point(0)
    ends = set()
    for first in (m.Point(1), m.Point(2)):
        moves, history = [], begin(dispute)
        for x in (first, same):
            moves.append(honest.signer.move("challenger", history, x))
            history = after(dispute, history, "challenger", moves[-1])
        ends.add(history)
    assert len(ends) == 2
    signer, start = honest.signer, bytes(32)
    assert signer.move("defender", start, m.Point(1)) != signer.move(
        "challenger", start, m.Point(1)
    )


class Framer(Party):
    """An honest run, with one entry of a derivation altered when it derives."""

    def derived(self, s, d, sources):
        entries = list(super().derived(s, d, sources))
        entries[5] ^= 1
        return entries


def test_a_stranger_who_makes_up_moves_for_the_honest(program, honest, tmp_path, capsys):
    """A false move between true ones: the party signs nothing after it, and no verdict holds without."""
    mine = STRANGER.terms(replace(honest.terms, commitment=bytes(32)))
    dispute, rules = Parties(honest.terms, mine), Rules(program, honest.terms)
    framer = Framer(honest.party.run, honest.party.statement.instance)
    where = {Phase.CHOOSE: 0, Phase.PICK: 0, Phase.ELEMENT: 7, Phase.ENTRY: 5}
    s, moves, players, forged, refused = rules.start(), [], [], False, 0
    while s.phase is not Phase.OVER:
        forged = forged or s.phase is Phase.DERIVE
        if s.player == "challenger":
            move = STRANGER.move(
                "challenger", history_of_any(dispute, moves), m.Point(where[s.phase])
            )
        elif forged:
            move = STRANGER.move("defender", history_of_any(dispute, moves), framer.move(s))
            if s.phase is not Phase.DERIVE:  # asked to go on from what it never said
                with pytest.raises(RefusedQuestion, match="is not signed by the defender"):
                    honest.respond(dispute, moves)
                refused += 1
        else:
            move = honest.respond(dispute, moves)  # as it answers anyone
        players.append(s.player)
        moves.append(move)
        s = rules.apply(s, move.move)
    assert (s.winner, s.reason[:8]) == ("challenger", "executed")
    assert refused >= 2
    with pytest.raises(Unsigned, match="not signed by the defender"):
        history_of(dispute, players, moves)
    bare = tuple(x.move for x in moves)
    program.save(tmp_path / "a.ree")
    signatures = tuple(x.signature for x in moves)
    for v in (Verdict(honest.terms, bare, s.winner, s.reason),
              Verdict(honest.terms, bare, s.winner, s.reason, mine, signatures)):  # fmt: skip
        write_verdict(tmp_path / "v", v)
        assert main(["verdict", str(tmp_path / "v"), "--artifact", str(tmp_path / "a.ree")]) == 1
        assert "does not show who moved" in capsys.readouterr().out


def history_of_any(dispute, moves):
    """As `history_of` counts, whoever signed."""
    history = begin(dispute)
    for x in moves:
        own = STRANGER.move("challenger", history, x.move)
        history = after(Parties(dispute.challenger, dispute.challenger), history, "challenger", own)
    return history


def test_the_commitment_copied_under_another_key(
    program, honest, liars, tmp_path, capsys, verdict_of
):
    """Whose key it is only the owner can say: the reader compares."""
    v = verdict_of(liars["gelu"], honest)
    write_verdict(tmp_path / "v", v)
    program.save(tmp_path / "a.ree")
    command = ["verdict", str(tmp_path / "v"), "--artifact", str(tmp_path / "a.ree")]
    assert main(command) == 0
    assert f"defender's key {v.terms.key.hex()}" in capsys.readouterr().out
    assert main([*command, "--defender-key", v.terms.key.hex()]) == 0
    assert main([*command, "--challenger-key", honest.signer.key.hex().upper()]) == 0
    assert main([*command, "--defender-key", honest.signer.key.hex()]) == 1
    assert main([*command, "--challenger-key", "00"]) == 1
    assert "the challenger's key is not 00" in capsys.readouterr().out


def test_a_party_signs_for_itself_alone(honest, liars):
    liar = liars["gelu"]
    other = replace(liar.terms, signature=b"")
    for dispute, text in ((Parties(liar.terms, liar.terms), "stand"),
                          (Parties(honest.terms, other), "challenger has not"),
                          (Parties(liar.terms, honest.terms), "that statement"),
                          (Parties(STRANGER.terms(honest.terms), liar.terms), "stand")):  # fmt: skip
        with pytest.raises(RefusedQuestion, match=text):
            honest.respond(dispute, [])
    dispute = Parties(honest.terms, liar.terms)
    first = honest.respond(dispute, [])
    with pytest.raises(RefusedQuestion, match="not the challenger"):
        honest.respond(dispute, [first])
    point = liar.respond(dispute, [first])
    assert honest.respond(dispute, [first, point]) == honest.respond(dispute, [first, point])
    for bad in (Signed(m.Point(1 - point.move.index), point.signature), Signed(point.move),
                STRANGER.move("challenger", begin(dispute), point.move)):  # fmt: skip
        with pytest.raises(RefusedQuestion, match="move 1 is not signed by the challenger"):
            honest.respond(dispute, [first, bad])
    with pytest.raises(RefusedQuestion, match="move 0 is not signed by the defender"):
        honest.respond(dispute, [Signed(first.move), point])


def test_the_referee_takes_no_move_that_its_player_has_not_signed(
    honest, liars, referee_of, tmp_path
):
    liar = liars["linear"]

    class As:
        """Answers in the name of the honest."""

        def __init__(self, forge):
            self.forge, self.asked = forge, 0

        def ask(self, dispute, moves, seconds):
            self.asked += 1
            return encode_signed(self.forge(honest.respond(dispute, moves)))

    for forge in (lambda x: Signed(x.move), lambda x: Signed(x.move, bytes(64)),
                  lambda x: STRANGER.move("challenger", bytes(32), x.move)):  # fmt: skip
        r = referee_of(liar, honest, transports={"challenger": As(forge)})
        assert r.run().reason == "timeout"
        assert "not signed by the challenger" in r.transcript.records[-1].text
        assert len(r.transcript.moves) == 1  # the liar's own
    way = As(lambda x: x)
    way.ask = lambda d, n, s: encode_move(honest.respond(d, n).move)  # a move alone is no answer
    assert referee_of(liar, honest, transports={"challenger": way}).run().reason == "timeout"
    # nor from a transcript
    header = Header(liar.terms, honest.terms, 10**9, 10**9)
    t = Transcript.open(tmp_path / "t", header)
    r = referee_of(liar, honest)
    r.turn()
    t.append(replace(r.transcript.records[0], signature=bytes(64)))
    t.close()
    with pytest.raises(DisputeError, match="move 0 is not signed by the defender"):
        type(r)(r.rules, Transcript.read(tmp_path / "t"), r.transports)


# keys


def test_a_key_is_made_once_and_kept_from_others(tmp_path, monkeypatch, capsys):
    path = tmp_path / "deep" / "k"
    assert main(["party", "key", "--key", str(path)]) == 0
    shown = capsys.readouterr().out.strip()
    assert (path.stat().st_mode & 0o777, shown) == (0o600, load_signer(path).key.hex())
    assert [x.name for x in path.parent.iterdir()] == ["k"]
    assert path.read_text().strip() not in shown + repr(load_signer(path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["party", "key"]) == 0
    assert capsys.readouterr().out.strip() == load_signer(default_path()).key.hex() != shown
    for more in (
        "--port=0",
        "--threads=0",
        "--fault=1,2,3",
        "--fault-step=0",
        "--host=::1",
        "--token=x",
    ):
        assert main(["party", "key", more]) == 2, more
        assert "goes with 'ree party serve'" in capsys.readouterr().err
    path.chmod(0o640)
    assert main(["party", "key", "--key", str(path)]) == 2
    assert "can be read by others" in capsys.readouterr().err
    path.chmod(0o600)
    for bad in ("", "12", "zz" * 32, "00" * 33, "0" * 9999):
        path.write_text(bad)
        assert main(["party", "key", "--key", str(path)]) == 2
        err = capsys.readouterr().err
        assert "is no key" in err
        assert "zz" not in err
    assert main(["party", "key", "x.ree"]) == 2
    assert main(["party", "serve"]) == 2
    (tmp_path / "f").write_text("")
    for nowhere in (tmp_path / "f" / "k", "/proc/none/k"):
        assert main(["party", "key", "--key", str(nowhere)]) == 2
        assert re.search("^error: cannot (make|read)", capsys.readouterr().err, re.MULTILINE)


# RFC 8032, 7.1: secret, public, message, signature
VECTORS = [
    ("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
     "d25bf5f0595bbe24655141438e7a100b"),
    ("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
     "387b2eaeb4302aeeb00d291612bb0c00"),
]  # fmt: skip


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_it_is_ed25519(secret, public, message, signature):
    signer = Signer(bytes.fromhex(secret))
    assert signer.key.hex() == public
    assert signer.sign(bytes.fromhex(message)).hex() == signature


SMALL = ["00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f",
         "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"]  # fmt: skip


@pytest.mark.parametrize("key", [bytes.fromhex(x) for x in SMALL])
def test_a_key_of_small_order_is_none(honest, key):
    """For such a key anyone can make signatures: R of small order and S = 0 pass a plain check."""
    for signature in (bytes(64), b"\x01" + bytes(63), key + bytes(32)):
        terms = replace(honest.terms, key=key, signature=signature)
        with pytest.raises(Unsigned, match="the challenger has not signed its terms"):
            begin(Parties(honest.terms, terms))
