"""Terms of a job as a user writes them: a JSON file with amounts, and the windows one after the other."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from ree.errors import InputError
from ree.settlement.node import checksum
from ree.settlement.terms import DEADLINES, Facts, Terms, facts_digest
from ree.traces.strict_json import strict_json

if TYPE_CHECKING:
    from ree.settlement.client import Court

MAX_TERMS = 64 << 10  # bytes
WINDOWS = tuple(d.removesuffix("_until") for d in DEADLINES)  # seconds each
AMOUNTS = ("reward", "payees", "slots", "provider_bond", "challenger_bond", "clock", "grace")


def read_terms(path: str, court: Court, facts: Facts) -> tuple[Terms, str]:
    """Terms from a JSON file: token, amounts, the windows in seconds, and where the data is.
    InputError where it is not of that form."""
    raw = Path(path).read_bytes()[: MAX_TERMS + 1]
    try:
        given = strict_json(raw) if len(raw) <= MAX_TERMS else None
    except ValueError:
        given = None
    wanted = {"token", "data", *AMOUNTS, *WINDOWS}
    if not isinstance(given, dict) or set(given) != wanted:
        raise InputError(f"'{path}': expected an object of {', '.join(sorted(wanted))}")
    for name in (*AMOUNTS, *WINDOWS):
        if type(given[name]) is not int or not 0 <= given[name] < 1 << 128:
            raise InputError(f"'{path}': {name}: expected a whole number below 2^128")
    until, now = {}, court.node.now
    for name in WINDOWS:
        now += given[name]
        until[f"{name}_until"] = now
    terms = Terms(poster=court.node.account, token=checksum(given["token"]), facts=facts_digest(facts),
                  nonce=secrets.randbits(64), **{n: given[n] for n in AMOUNTS}, **until)  # fmt: skip
    return terms, str(given["data"])
