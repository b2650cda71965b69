"""How near a balance is to people's, and how far apart two mixes sound."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from conftest import RATE, band_noise

import mixrl
from mixrl.balance import FEWEST, balance_error_db, deviations_db, heard, inside_published_range, loudness_by_role
from mixrl.distances import BARK_EDGES_HZ, mix_distances
from mixrl.errors import InputError

HUMAN = np.array([-20.0, -23.0, -26.0, -31.0, -24.0, -50.1, -120.0])


# ---- levels --------------------------------------------------------------------------------------------------------


def test_stems_far_below_the_loudest_say_nothing():
    assert heard(HUMAN).tolist() == [True] * 5 + [False] * 2
    assert heard(HUMAN).sum() == FEWEST


def test_the_error_is_the_mean_absolute_deviation_without_the_median():
    levels = HUMAN + np.array([3.0, 3.0, 3.0, 9.0, 1.0, 40.0, 0.0])
    assert deviations_db(levels, HUMAN) == pytest.approx([0.0, 0.0, 0.0, 6.0, -2.0])
    assert balance_error_db(levels, HUMAN) == pytest.approx(8.0 / 5.0)
    assert balance_error_db(levels - 11.0, HUMAN) == pytest.approx(8.0 / 5.0)  # louder or softer as a whole
    assert balance_error_db(HUMAN, HUMAN) == 0.0


def test_loudness_of_a_role_is_that_of_its_stems_together():
    found = loudness_by_role(("kick", "vocal", None, "kick"), np.array([-20.0, -16.0, -10.0, -20.0]), -12.0)
    assert found == pytest.approx({"vocal": -4.0, "kick": 10 * np.log10(2.0) - 8.0})
    assert inside_published_range("vocal", found["vocal"])
    assert not inside_published_range("kick", found["kick"])


# ---- sound ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mix():
    rng = np.random.default_rng(0)
    middle, side = band_noise(rng, 4 * RATE, RATE, 60.0, 9000.0), band_noise(rng, 4 * RATE, RATE, 300.0, 9000.0)
    return (0.05 * np.stack([middle + 0.3 * side, middle - 0.3 * side])).astype(np.float32)


def test_a_mix_is_no_distance_from_itself_however_loud(mix):
    for gain in (1.0, 0.25):
        assert mix_distances(np.float32(gain) * mix, mix, RATE) == pytest.approx(
            dict.fromkeys(mix_distances(mix, mix, RATE), 0.0), abs=1e-4
        )


def test_what_differs_shows_in_its_own_distance(mix):
    turned = mix_distances(np.stack([0.7 * mix[0], mix[1]]), mix, RATE)
    assert turned["imbalance"] == pytest.approx((1 - 0.49) / (1 + 0.49), abs=0.03)
    narrow = np.stack([mix.mean(axis=0)] * 2)
    flat = mix_distances(narrow, mix, RATE)
    assert flat["width"] == pytest.approx(0.09, abs=0.02)
    assert flat["bark_side_db"] > 20.0
    assert flat["bark_mid_db"] < 1.0
    click = mix.copy()
    click[:, 1000] = 3.0
    assert mix_distances(click, mix, RATE)["crest_db"] > 5.0


def test_a_band_that_is_boosted_shows_in_the_bark_spectrum(mix):
    low, high = BARK_EDGES_HZ[8], BARK_EDGES_HZ[10]
    spectrum, freqs = np.fft.rfft(mix, axis=1), np.fft.rfftfreq(mix.shape[1], 1.0 / RATE)
    spectrum[:, (freqs > low) & (freqs < high)] *= 10.0 ** (6.0 / 20.0)
    found = mix_distances(np.fft.irfft(spectrum, mix.shape[1], axis=1), mix, RATE)
    assert found["bark_mid_db"] == pytest.approx(6.0 * np.sqrt(2.0 / 24.0), rel=0.2)
    assert found["mr_stft"] > 0.02
    assert found["features"] > 0.1


def test_distances_grow_with_what_is_wrong(mix):
    noise = np.random.default_rng(1).standard_normal(mix.shape).astype(np.float32)
    found = [mix_distances(mix + np.float32(level) * noise, mix, RATE) for level in (0.001, 0.01, 0.1)]
    for name in ("mr_stft", "bark_mid_db", "features"):
        values = [one[name] for one in found]
        assert values == sorted(values)
        assert values[0] < values[2]


def test_a_mono_mix_has_no_side_to_compare(mix):
    mono = np.stack([mix[0]] * 2)
    assert mix_distances(mono, mono, RATE)["mr_stft"] == 0.0


@pytest.mark.parametrize("other", [np.zeros((2, RATE)), np.ones((2, 100)), np.ones((1, 4 * RATE))])
def test_mixes_that_cannot_be_compared_are_refused(mix, other):
    with pytest.raises(InputError, match="compared"):
        mix_distances(other, mix[:, : other.shape[1]] if len(other) == 2 else mix, RATE)


# ---- never optimised -----------------------------------------------------------------------------------------------


def imports_of(path: Path) -> set[str]:
    """Modules of mixrl that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("mixrl")}


def test_what_judges_is_never_trained_for():
    """Only the balance benchmark may see the distances: nothing that rewards, searches, mixes or trains can reach
    them."""
    package = Path(mixrl.__file__).parent
    direct = {}
    for path in package.rglob("*.py"):
        module = ".".join(("mixrl", *path.relative_to(package).with_suffix("").parts)).removesuffix(".__init__")
        direct[module] = imports_of(path)
    users = {module for module, its in direct.items() if "mixrl.distances" in its}
    assert users == {"mixrl.recovery"}
    reaching = {"mixrl.distances"}
    while True:
        more = {module for module, its in direct.items() if its & reaching} | reaching
        if more == reaching:
            break
        reaching = more
    assert reaching - {"mixrl.distances"} <= {"mixrl.recovery", "mixrl.commands.balance", "mixrl.commands"}
