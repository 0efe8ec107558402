"""Which terms this party puts money on: time enough for whoever is honest, and an end."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ree.errors import ChainError
from ree.settlement.bonds import MOST_BONDS, Prices, least_bonds, most_winners
from ree.settlement.terms import DEADLINES, Terms

MOVES = 16  # of one side in a dispute, at most; measured: 25 of both
HOUR, DAY = 3600, 86_400
LEAST_GRACE = 300  # seconds of a move that a party insists on


@dataclass(frozen=True)
class Policy:
    """What terms must give, in seconds. block: between two blocks. censorship: for how long a transaction may
    be kept out of the chain, an outage of the sequencer included. work: to compute the run again. move: that
    any move has at least, and in a crowd each dispute more. longest: until the last window ends, and of a
    clock. prices: what this party pays, for which bonds must be large enough; without them bonds are not looked
    at. ready: bonds that there must be for each challenge until it is opened, as others may crowd before it.
    docs/decisions/0037 says why."""

    block: int = 12
    censorship: int = HOUR
    work: float = 0.0
    move: int = LEAST_GRACE
    longest: int = 90 * DAY
    prices: Prices | None = None
    ready: int = MOST_BONDS

    def refusals(self, terms: Terms, now: int) -> list[str]:
        """What is wrong with terms for who bonds at a time, a timestamp. Windows that have begun count not."""
        out = []
        for before, name in pairwise(DEADLINES):
            begin, end = getattr(terms, before), getattr(terms, name)
            if begin >= now and end - begin < self.censorship:
                out.append(
                    _less(name.removesuffix("_until") + " window", end - begin, self.censorship)
                )
        clock = self.censorship + MOVES * self.block + round(self.work)
        if terms.clock < clock:
            out.append(_less("clock", terms.clock, clock))
        if terms.grace < self.move:
            out.append(_less("grace", terms.grace, self.move))
        for what, seconds in (
            ("the last window ends", terms.open_until - now),
            ("clock", terms.clock),
        ):
            if seconds > self.longest:
                has, most = seconds / DAY, self.longest / DAY
                out.append(
                    f"{what}: {has:,.0f} days, expected {most:,.0f} at most: bonds would be locked"
                )
        if self.prices is not None:
            least = least_bonds(max(terms.reward, 1), self.prices)
            for whose, has, wanted in (("provider", terms.provider_bond, least.provider),
                                       ("challenger", terms.challenger_bond, least.challenger)):  # fmt: skip
                if has < wanted:
                    out.append(f"{whose}'s bond of {has:,}, expected {wanted:,} at least at these prices: "
                               "the honest would pay for others' lies")  # fmt: skip
        return out

    def assumed(self, terms: Terms) -> list[str]:
        """What `refusals` takes for granted where it looks at prices."""
        if self.prices is None:
            return []
        winners = most_winners(terms.provider_bond, max(terms.reward, 1), self.prices)
        crowd = terms.challenger_bond * MOST_BONDS
        return [f"honest challengers of one claim whom the provider's bond pays at these prices: {winners:,}, "
                "more would share the same; a challenge in a crowd takes up to "
                f"{MOST_BONDS} bonds: {crowd:,}"]  # fmt: skip

    def check(self, terms: Terms, now: int) -> None:
        """ChainError for terms that are refused."""
        if found := self.refusals(terms, now):
            more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
            raise ChainError(f"the job's terms are refused: {found[0]}{more}",
                             "on a chain for development, --allow-short-windows")  # fmt: skip


# blocks come when they are asked for and nobody censors; what nobody can ever meet is refused still
DEVELOPMENT = Policy(block=1, censorship=60, move=60, ready=1)


def _less(what: str, has: int, least: int) -> str:
    return f"{what} of {has:,} s, expected {least:,} s at least"
