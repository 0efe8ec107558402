"""Interfaces of the contracts, and keys."""

import json
import os
import re
from pathlib import Path

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")

from ree.errors import ChainError
from ree.settlement.compile import CONTRACTS
from ree.settlement.interfaces import FILE, interfaces
from ree.settlement.keys import Key, load_key
from ree.settlement.node import _line
from ree.settlement.testing.town import one_line


def test_interfaces_are_those_of_the_contracts() -> None:
    assert json.loads(FILE.read_text()) == json.loads(json.dumps(interfaces()))


def test_every_reason_of_a_contract_is_one_line_of_its_own() -> None:
    texts = {
        t for p in CONTRACTS.rglob("*.vy")
        for t in re.findall(r'"([a-z]+: [^"]+)"$', p.read_text(), re.M)
    }  # fmt: skip
    assert len(texts) > 80
    for text in texts:
        for said in (
            f"execution reverted: {text}",
            f"('execution reverted: {text}', '0x08c379a0')",
        ):
            assert _line(ValueError(said)) == f"the chain refuses: {text}"


# keys


def test_keys_are_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "ab" * 31 + "cd"
    file = tmp_path / "key"
    file.write_text("0x" + secret + "\n")
    one_line(lambda: load_key(str(file)), "can be read by others")
    file.chmod(0o600)
    key = load_key(str(file))
    monkeypatch.setenv("REE_KEY", secret)
    assert load_key(None).address == key.address
    assert secret not in repr(key) + str(key)
    for wrong in (secret[:-2], "zz" + secret[2:], "00" * 32):
        file.write_text(wrong)
        with pytest.raises(ChainError) as e:
            load_key(str(file))
        assert wrong[:8] not in str(e.value)
    monkeypatch.delenv("REE_KEY")
    one_line(lambda: load_key(None), "no key")
    os.chmod(file, 0o600)
    file.write_text("{}")
    one_line(lambda: load_key(str(file)), "is encrypted")
    monkeypatch.setenv("REE_KEY_PASSWORD", "x")
    one_line(lambda: load_key(str(file)), "wrong password, or no keystore")


def test_salts_follow_from_key_and_job() -> None:
    """A restarted party finds its salts again; another's key gives others."""
    a, b = Key(b"\1" * 32), Key(b"\2" * 32)
    assert a.salt(b"x", b"y") == a.salt(b"x", b"y") != b.salt(b"x", b"y")
    assert a.salt(b"x", b"y") != a.salt(b"xy", b"")
    assert len(a.salt(b"x")) == 16
