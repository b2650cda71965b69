"""How near a mix's balance is to the one that people left: the levels of its stems against theirs.

The level of a stem is its gated integrated loudness as it enters the mix, in LUFS. A mix as a whole may be louder or
softer than people left it, so the median difference does not count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixrl.measures import Array
from mixrl.roles import LEVELS, ROLES

HEARD_LU = 30.0  # a stem this far below the loudest says nothing of the balance
FEWEST = 5  # heard stems of a session whose balance is judged

# De Man et al. (ISMIR 2014) measured these alone; the others' levels are filled in from them
MEASURED_ROLES = ("vocal", "bass", "kick", "snare")


def heard(human_lufs: Array) -> NDArray[np.bool_]:
    """(N,) bool: the stems whose levels count, from the levels (N,) that people left, LUFS."""
    return np.asarray(human_lufs > human_lufs.max(initial=-np.inf) - HEARD_LU)


def deviations_db(levels_lufs: Array, human_lufs: Array) -> Array:
    """(K,) how far the heard stems are from where people left them, their median taken off. Levels are (N,)."""
    counted = heard(human_lufs)
    apart = (levels_lufs - human_lufs)[counted]
    return np.asarray(apart - np.median(apart)) if len(apart) else apart


def balance_error_db(levels_lufs: Array, human_lufs: Array) -> float:
    """Mean absolute deviation from people's levels, dB."""
    return float(np.abs(deviations_db(levels_lufs, human_lufs)).mean())


def level_change_db(levels_lufs: Array, before_lufs: Array, counted: NDArray[np.bool_]) -> float:
    """How far a mix moved the counted stems' levels (N,): mean absolute change, its median taken off, dB."""
    change = (levels_lufs - before_lufs)[counted]
    return float(np.abs(change - np.median(change)).mean()) if len(change) else 0.0


def loudness_by_role(
    roles: tuple[str | None, ...], levels_lufs: Array, mix_lufs: float
) -> dict[str, float]:
    """Loudness of each role that is there against the whole mix, LU: the power sum of its stems."""
    found = {}
    for role in ROLES:
        powers = 10.0 ** (levels_lufs[[own == role for own in roles]] / 10.0)
        if powers.sum() > 0.0:
            found[role] = float(10.0 * np.log10(powers.sum()) - mix_lufs)
    return found


def inside_published_range(role: str, loudness_lu: float) -> bool:
    """Whether the loudness of a role against the mix lies in the range of De Man et al., ``roles.LEVELS``."""
    _, low, high = LEVELS[role]
    return low <= loudness_lu <= high
