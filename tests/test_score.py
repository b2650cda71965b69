"""The score: each term answers to its own fault, and mixes that are plainly bad score below doing nothing."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import random_settings

from mixrl import score as score_module
from mixrl.excerpt import excerpt
from mixrl.measures import CENTRES_HZ, Facts, Measures
from mixrl.rendered import Rendered
from mixrl.roles import LEVELS
from mixrl.scene import Scene
from mixrl.score import TERMS, WEIGHTS, level_corridor, reference, score, terms
from mixrl.session import Session, load_session

DATA = Path(__file__).parents[2] / "shared" / "data"
REAL = ("everything-is-free/7.Francium", "mdn-multitrack", "lmms-demos/Oglsdl-Dr8v2")
ROLES = ("vocal", "kick", "bass", "guitar", None)
FACTS = Facts(
    names=("vox", "kick", "bass", "gtr", "thing"),
    roles=ROLES,
    members=("vocals", "drums", "bass", "music", "music"),
    activity=np.array([0.6, 1.0, 0.9, 0.8, 0.5]),
    bandwidth_hz=np.full(5, 16_000.0),
    counted=np.ones(31, dtype=bool),
    target_lufs=-14.0,
    ceiling_dbtp=-1.0,
    tempo_target=np.ones(5),
    tempo_weight=np.zeros(5),
)


def good(**changes) -> Measures:
    """A mix in the middle of every corridor, but for the changes."""
    ref = reference()
    corridor = level_corridor(ROLES, (True,) * 5)
    measures = Measures(
        integrated_lufs=np.array(-20.0),
        short_term_lufs=np.array(-18.0),
        peak_dbfs=np.array(-8.0),
        limiting_db=np.array(0.5),
        psr_db=np.array(10.0),
        spectrum_db=ref.level_db - 23.0,
        side_mid_db=ref.side_mid_db,
        cancellation_db=np.zeros(31),
        imbalance_db=np.array(0.0),
        stem_lufs=-20.0 + corridor[:, 0],
        audibility_db=np.full(5, -5.0),
        position=np.array([0.0, 0.0, 0.0, 0.4, -0.5]),
        eq_change_db=np.zeros(5),
        gain_reduction_db=np.zeros(5),
        tempo_ratio=np.ones(5),
    )
    return replace(measures, **changes)


def at(value, index, length):
    found = np.zeros(length)
    found[index] = value
    return found


def faults():
    base = good()
    hump = 20.0 * np.exp(-0.5 * ((np.log2(CENTRES_HZ) - np.log2(400.0)) / 1.0) ** 2)
    return {
        "too much at 400 Hz": ("spectrum", {"spectrum_db": base.spectrum_db + hump}),
        "vocal far too quiet": ("balance", {"stem_lufs": base.stem_lufs - at(15.0, 0, 5)}),
        "bass far too loud": ("balance", {"stem_lufs": base.stem_lufs + at(12.0, 2, 5)}),
        "a buried guitar": ("audibility", {"audibility_db": base.audibility_db - at(20.0, 3, 5)}),
        "stems cancel": ("cancellation", {"cancellation_db": np.where(CENTRES_HZ < 500.0, -9.0, 0.0)}),
        "too wide": ("stereo", {"side_mid_db": base.side_mid_db + 15.0}),
        "mono": ("stereo", {"side_mid_db": np.full(31, -60.0)}),
        "leans left": ("stereo", {"imbalance_db": np.array(-6.0)}),
        "vocal on one side": ("placement", {"position": base.position + at(0.6, 0, 5)}),
        "all the way right": ("placement", {"position": base.position + at(0.6, 3, 5)}),
        "crushed": ("headroom", {"limiting_db": np.array(9.0)}),
        "no dynamics": ("headroom", {"psr_db": np.array(3.0)}),
        "much EQ": ("restraint", {"eq_change_db": at(8.0, 1, 5)}),
        "much compression": ("restraint", {"gain_reduction_db": at(8.0, 1, 5)}),
    }


def test_a_good_mix_has_no_penalty():
    found = terms(good(), FACTS)
    assert tuple(found) == TERMS == tuple(WEIGHTS)
    assert all(value == 0.0 for value in found.values())
    assert score(good(), FACTS) == 0.0


@pytest.mark.parametrize("fault", faults())
def test_a_fault_shows_in_its_own_term_and_no_other(fault):
    term, changes = faults()[fault]
    found = terms(good(**changes), FACTS)
    assert found.pop(term) > 0.05
    assert all(value == 0.0 for value in found.values())
    assert score(good(**changes), FACTS) == -WEIGHTS[term] * terms(good(**changes), FACTS)[term]


@pytest.mark.parametrize("fault", faults())
def test_more_of_a_fault_is_worse(fault):
    _, changes = faults()[fault]
    base = good()
    scores = []
    for share in (0.3, 0.5, 0.7) if fault == "mono" else (0.7, 1.0, 1.3):  # narrower than mono there is not
        part = {n: getattr(base, n) + share * (value - getattr(base, n)) for n, value in changes.items()}
        scores.append(float(score(good(**part), FACTS)))
    assert scores[0] > scores[1] > scores[2]


def test_tempo_counts_where_there_is_a_target():
    measures = good(tempo_ratio=np.array([1.0, 1.0, 1.0, 1.0, 1.25]))
    assert terms(measures, FACTS)["tempo"] == 0.0
    wanted = replace(FACTS, tempo_target=np.array([1.0, 1.0, 1.0, 1.0, 1.25]), tempo_weight=at(0.8, 4, 5))
    assert terms(measures, wanted)["tempo"] == 0.0
    off = terms(good(), wanted)["tempo"]
    assert off > 0.5
    assert terms(good(), replace(wanted, tempo_weight=at(0.4, 4, 5)))["tempo"] == pytest.approx(off / 2)


def test_the_overall_level_does_not_count():
    """Loudness is solved for at delivery: louder is neither better nor worse."""
    _, changes = faults()["vocal far too quiet"]
    quiet = good(**changes)
    louder = replace(
        quiet, integrated_lufs=quiet.integrated_lufs + 9.0, short_term_lufs=quiet.short_term_lufs + 9.0,
        peak_dbfs=quiet.peak_dbfs + 9.0, spectrum_db=quiet.spectrum_db + 9.0, stem_lufs=quiet.stem_lufs + 9.0,
    )  # fmt: skip
    assert score(louder, FACTS) == pytest.approx(score(quiet, FACTS), abs=1e-9)


def test_bands_without_content_and_silent_stems_are_not_judged():
    counted = CENTRES_HZ < 9000.0
    facts = replace(FACTS, counted=counted, activity=FACTS.activity * [1, 1, 1, 1, 0])
    measures = good(
        spectrum_db=np.where(counted, good().spectrum_db, -120.0),
        stem_lufs=good().stem_lufs - at(100.0, 4, 5),
        audibility_db=good().audibility_db - at(100.0, 4, 5),
    )
    assert score(measures, facts) == 0.0
    assert score(measures, FACTS) < -0.5


def test_one_hopeless_stem_does_not_hide_the_others():
    """A penalty flattens out, so mending the other stem still pays."""
    hopeless = good().stem_lufs - at(100.0, 3, 5)
    both = score(good(stem_lufs=hopeless - at(12.0, 0, 5)), FACTS)
    one = score(good(stem_lufs=hopeless), FACTS)
    assert one - both > 0.03


def test_stems_of_a_role_share_its_level():
    one, two = level_corridor(("guitar",), (True,)), level_corridor(("guitar", "guitar"), (True, True))
    np.testing.assert_allclose(one[0], LEVELS["guitar"])
    np.testing.assert_allclose(two, np.broadcast_to(one - 10 * np.log10(2), (2, 3)))
    np.testing.assert_allclose(level_corridor(("guitar", "guitar"), (True, False))[0], one[0])


def test_a_batch_scores_as_its_mixes_do(small_scene):
    settings = random_settings(small_scene, 0)
    _, batch = small_scene.deltas(settings)
    together = terms(batch, small_scene.facts)
    whole = score(batch, small_scene.facts)
    for row in range(0, len(whole), 11):
        alone = terms(batch.at(row), small_scene.facts)
        for name in TERMS:
            assert alone[name] == pytest.approx(together[name][row], abs=1e-9)
        assert score(batch.at(row), small_scene.facts) == pytest.approx(whole[row], abs=1e-9)


def test_no_term_is_ever_negative(small_scene):
    for seed in range(5):
        _, batch = small_scene.deltas(random_settings(small_scene, seed))
        for name, value in terms(batch, small_scene.facts).items():
            assert np.isfinite(value).all(), name
            assert (value >= 0.0).all(), name


def test_nothing_that_proves_the_mixes_is_optimised():
    names = " ".join([*TERMS, *(f.name for f in fields(Measures)), inspect.getsource(score_module)]).lower()
    for kept_apart in ("crest", "stft", "bark"):
        assert kept_apart not in names


# ---- mixes that must lose against doing nothing -----------------------------------------------------------------


def bad_mixes(scene: Scene):
    settings = scene.neutral()

    def every(change):
        return replace(settings, stems={name: change(strip) for name, strip in settings.stems.items()})

    vocals = [n for n, role in zip(scene.facts.names, scene.facts.roles, strict=True) if role == "vocal"]
    for name in vocals:
        yield f"{name} muted", settings.with_strip(name, replace(settings.strip(name), gain_db=-60.0))
    for name, audible in zip(scene.facts.names, scene.facts.audible, strict=True):
        if audible:
            strips = {n: s if n == name else replace(s, gain_db=-60.0) for n, s in settings.stems.items()}
            yield f"{name} alone", replace(settings, stems=strips)
    yield "everything left", every(lambda s: replace(s, pan=-1.0))
    yield "+12 dB at 3 kHz", every(lambda s: s.with_band(3, frequency_hz=3000.0, gain_db=12.0))
    yield "pumping", every(lambda s: replace(s, compressor="firm"))


def split_in_antiphase(scene: Scene):
    """The scene with its loudest stem as two equal halves, and the settings that invert one of them."""
    loudest = int(scene.measures(scene.neutral()).stem_lufs.argmax())
    count = len(scene.facts.names)
    half = 20.0 * np.log10(0.5)
    gains = [half if i == loudest else 0.0 for i in range(count)] + [half]
    halves = scene.subset([*range(count), loudest], gains)
    names = (*halves.facts.names[:-1], "the other half")
    halves = Scene(replace(halves.facts, names=names), halves.analysis)
    settings = halves.neutral()
    return halves, settings.with_strip(names[-1], replace(settings.strip(names[-1]), invert=True))


def assert_bad_mixes_lose(scene: Scene):
    neutral = float(score(scene.measures(scene.neutral()), scene.facts))
    won = {name: float(score(scene.measures(s), scene.facts)) - neutral for name, s in bad_mixes(scene)}
    halves, inverted = split_in_antiphase(scene)
    whole = float(score(halves.measures(halves.neutral()), halves.facts))
    won["antiphase"] = float(score(halves.measures(inverted), halves.facts)) - whole
    assert {name: round(gain, 3) for name, gain in won.items() if gain >= 0.0} == {}


def test_bad_mixes_of_the_samples_lose(sample):
    assert_bad_mixes_lose(sample[1])


def test_a_bad_mix_loses_when_rendered(sample):
    session, scene = sample
    if session.name != "hydrogen":
        pytest.skip("one rendered session will do")
    rendered = Rendered(session, scene)
    bad = dict(bad_mixes(scene))["vox_lead muted"]
    assert score(rendered.measures(bad), scene.facts) < score(rendered.measures(scene.neutral()), scene.facts)


def test_two_halves_in_antiphase_lose_when_rendered(small, small_scene):
    """The real thing, with audio: keys recorded twice at half their level."""
    keys = small.read("keys") * np.float32(1.5)
    stems = {n: small.read(n) for n in ("kick", "vocal", "guitar_close")} | {"keys": keys, "keys_2": keys}
    session = Session.from_arrays(stems, small.sample_rate)
    scene = Scene.of(session)
    settings = scene.neutral()
    inverted = settings.with_strip("keys_2", replace(settings.strip("keys_2"), invert=True))
    rendered = Rendered(session, scene)
    assert score(rendered.measures(inverted), scene.facts) < score(rendered.measures(settings), scene.facts)


@pytest.mark.parametrize("name", REAL)
def test_bad_mixes_of_real_sessions_lose(name):
    if not (DATA / name).is_dir():
        pytest.skip(f"needs {name} of the project's data folder beside the checkout")
    session = excerpt(load_session(DATA / name))
    ten = range(0, 10 * session.sample_rate)
    arrays = {stem: session.read(stem, ten.start, ten.stop) for stem in session.names}
    assert_bad_mixes_lose(Scene.of(Session.from_arrays(arrays, session.sample_rate)))
