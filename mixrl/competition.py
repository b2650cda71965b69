"""Which of several mixes is taken: the one whose balance is likely to be nearest to people's; of those that are about
as near, the one that scores best."""

from __future__ import annotations

import numpy as np

from mixrl.measures import Array, Facts
from mixrl.people import balance_risk_db

TIE_DB = 0.1  # so much further from people's balance is as near


def winner(facts: Facts, balances: Array, scores: Array) -> int:
    """The number of the mix that wins, the first of equals. balances (B, N): the stems' loudness in each, LUFS; scores
    (B,). Where nobody knows what people would do, the score alone decides."""
    if facts.expected is None:
        return int(np.argmax(scores))
    expected, counted = facts.expected, facts.audible
    return winner_of(np.array([balance_risk_db(expected, balance, counted) for balance in balances]), scores)


def winner_of(risks_db: Array, scores: Array) -> int:
    """As ``winner``, from how far each balance is likely to be from people's (B,), dB."""
    return int(np.argmax(np.where(risks_db <= risks_db.min() + TIE_DB, scores, -np.inf)))
