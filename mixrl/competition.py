"""Which of several mixes is taken: the one whose balance is likely to be nearest to people's; of those that are about
as near, the one that scores best."""

from __future__ import annotations

from collections.abc import Sequence

TIE_DB = 0.25  # so much further from people's balance is as near


def winner_of(risks_db: Sequence[float | None], scores: Sequence[float]) -> int:
    """The number of the mix that wins, the first of equals. risks_db: how far the balance of each is likely to be from
    people's, dB (``people.balance_risk``); scores: of each. Where nobody knows what people would do, the score alone
    decides."""
    known = [risk for risk in risks_db if risk is not None]
    near = [not known or (risk is not None and risk <= min(known) + TIE_DB) for risk in risks_db]
    return max((n for n, is_near in enumerate(near) if is_near), key=lambda n: (scores[n], -n))
