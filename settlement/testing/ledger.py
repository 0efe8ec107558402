"""Who must have what at the end of a job, reckoned without the contracts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ree.settlement.bonds import OPENING_ROUNDS
from ree.settlement.client import CHALLENGER_WON, DEFENDER_WON, Court
from ree.settlement.terms import Terms


def owed(
    seen: Court, terms: Terms, job: bytes, providers: Sequence[str], accounts: Mapping[str, str]
) -> Counter[str]:
    """What each account of a job that is final has gained, by the table in docs/settlement.md and the events.
    providers: in the order of acceptance; accounts: addresses by name."""
    due, names, events = Counter[str](), {a: n for n, a in accounts.items()}, seen.events
    won: dict[str, list[tuple[str, int]]] = {}
    revealed = {names[e["provider"]] for e in events("Revealed", job=job)}
    disputes = seen.disputes(job)
    for d in disputes:
        defender, challenger = names[d.defender], names[d.challenger]
        winner, loser = (defender, challenger) if d.turn == DEFENDER_WON else (challenger, defender)
        weight = OPENING_ROUNDS + len(events("Moved", dispute=d.id))
        if d.confrontation or d.turn == CHALLENGER_WON:
            won.setdefault(loser, []).append((winner, weight))
        else:
            bond = terms.challenger_bond * (1 + d.more)
            due[winner] += bond // 2
            due[loser] -= bond
    poster = names[terms.poster]
    left = terms.payees
    for name in providers:
        if name in won:
            total = sum(w for _, w in won[name])
            due[name] -= terms.provider_bond
            for winner, weight in won[name]:
                due[winner] += terms.provider_bond // 2 * weight // total
        elif name not in revealed:
            due[name] -= terms.provider_bond
            due[poster] += terms.provider_bond // 2
        elif left:
            left -= 1
            due[name] += terms.reward - terms.reward // 200
    due[poster] -= terms.reward * (terms.payees - left)
    opened = Counter(names[d.challenger] for d in disputes if not d.confrontation)
    made = Counter(names[e["challenger"]] for e in events("Challenged", job=job))
    for name, many in (made - opened).items():  # not shown
        due[name] -= many * terms.challenger_bond
        due[poster] += many * (terms.challenger_bond // 2)
    return due
