"""The score: each term answers to its own fault, and mixes that are plainly bad score below doing nothing."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import random_settings, span

from mixrl import score as score_module
from mixrl.excerpt import excerpt
from mixrl.knobs import GAIN, INVERT, joined, neutral_knobs
from mixrl.measures import CENTRES_HZ, Expected, Facts, Measures
from mixrl.people import informed
from mixrl.rendered import Rendered
from mixrl.roles import LEVELS
from mixrl.scene import Scene
from mixrl.score import TERMS, WEIGHTS, level_corridor, pull, reference, score, terms, yardstick
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
        loudness_range_lu=np.array(6.0),
        peak_dbfs=np.array(-8.0),
        crest_db=np.array(14.0),
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


def expecting(mix):
    """Facts in which people would have this mix of the stems as they came."""
    off = mix.stem_lufs - mix.integrated_lufs
    known = Expected(
        level_lufs=mix.stem_lufs, relative_lu=off, tolerance_db=np.ones(5), mix=mix, centre_lufs=mix.stem_lufs,
        cases=np.ones(1), chances=np.ones((1, 5, 1)), held=False,
    )  # fmt: skip
    return replace(FACTS, expected=known)


KNOWN = expecting(
    good(
        spectrum_db=good().spectrum_db + np.linspace(6.0, -6.0, 31), side_mid_db=good().side_mid_db - 12.0,
        imbalance_db=np.array(1.4), audibility_db=np.array([-20.0, -5.0, -5.0, -5.0, -22.0]),
        position=np.array([0.3, 0.0, 0.0, -0.9, 0.5]),
    )
)  # fmt: skip


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


# ---- where it is known what people would do --------------------------------------------------------------------------


def test_the_sound_that_stems_came_with_is_hardly_a_fault():
    """At the levels that people would give them; where nobody knows these, it is one."""
    found, usual = terms(KNOWN.expected.mix, KNOWN), terms(KNOWN.expected.mix, FACTS)
    for name in ("spectrum", "stereo", "placement"):
        assert usual[name] > 0.1
        assert found[name] < 0.2 * usual[name]
    assert found["balance"] == 0.0
    assert 0.5 * usual["audibility"] < found["audibility"] < usual["audibility"]  # people seldom bury what sounds


def test_a_sound_that_is_out_of_all_bounds_stays_a_fault():
    boom = good(spectrum_db=good().spectrum_db + np.where(np.abs(CENTRES_HZ - 100.0) < 30.0, 22.0, 0.0))
    assert terms(boom, expecting(boom))["spectrum"] > 0.2
    assert terms(boom, expecting(boom))["spectrum"] < terms(boom, FACTS)["spectrum"]


def test_the_further_from_the_sound_it_came_with_the_worse():
    came = KNOWN.expected.mix
    scores = [
        float(score(replace(came, spectrum_db=came.spectrum_db + np.linspace(-step, step, 31)), KNOWN))
        for step in (0.0, 6.0, 12.0, 24.0)
    ]
    assert scores == sorted(scores, reverse=True)
    assert scores[3] < scores[0] - 0.5


def test_processing_costs_more_on_sound_that_people_left():
    eq = good(eq_change_db=np.ones(5))
    plain = [float(score(eq, facts) - score(good(), facts)) for facts in (FACTS, expecting(good()))]
    assert plain[1] < 2.0 * plain[0] < 0.0


def test_places_are_kept_unless_nobody_has_chosen_any():
    """A session that is all mono says nothing of where people would have its stems."""
    there = good().position + np.array([0.0, 0.0, 0.0, 0.2, 0.0])
    narrow = good(side_mid_db=np.full(31, -90.0), position=np.zeros(5))
    placed, unplaced = expecting(good()), expecting(narrow)
    assert score(good(position=there), placed) < score(good(), placed)
    assert score(good(position=there), unplaced) == score(good(), unplaced)
    assert terms(narrow, unplaced)["stereo"] == terms(narrow, FACTS)["stereo"] > 0.0
    moved = yardstick(placed)
    assert moved.home == pytest.approx(good().position)
    assert moved.side == pytest.approx(yardstick(FACTS).side)


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
    _, batch = small_scene.deltas(small_scene.knobs(random_settings(small_scene, 0)))
    together = terms(batch, small_scene.facts)
    whole = score(batch, small_scene.facts)
    for row in range(0, len(whole), 11):
        alone = terms(batch.at(row), small_scene.facts)
        for name in TERMS:
            assert alone[name] == pytest.approx(together[name][row], abs=1e-9)
        assert score(batch.at(row), small_scene.facts) == pytest.approx(whole[row], abs=1e-9)


def test_no_term_is_ever_negative(small_scene):
    for seed in range(5):
        _, batch = small_scene.deltas(small_scene.knobs(random_settings(small_scene, seed)))
        for name, value in terms(batch, small_scene.facts).items():
            assert np.isfinite(value).all(), name
            assert (value >= 0.0).all(), name


def test_a_batch_may_have_any_shape(small_scene):
    """Two leading axes score as one."""
    _, batch = small_scene.deltas(small_scene.knobs(small_scene.neutral()))
    some = {f.name: getattr(batch, f.name)[:6] for f in fields(Measures)}
    square = Measures(**{name: value.reshape(2, 3, *value.shape[1:]) for name, value in some.items()})
    found = score(square, small_scene.facts)
    assert found.shape == (2, 3)
    np.testing.assert_array_equal(found.ravel(), score(Measures(**some), small_scene.facts))
    assert terms(square, small_scene.facts)["balance"].shape == (2, 3)


def test_nothing_that_proves_the_mixes_is_optimised():
    """Crest factor, spectral distances and the like are for evaluation: no term may look at them. Loudness range is
    predicted too, and belongs to no term."""
    source = inspect.getsource(score_module)
    names = " ".join([*TERMS, source]).lower()
    for kept_apart in ("crest", "stft", "bark", "loudness_range"):
        assert kept_apart not in names
    changed = good(crest_db=np.array(3.0), loudness_range_lu=np.array(25.0))
    assert score(changed, FACTS) == score(good(), FACTS) == 0.0


# ---- mixes that must lose against doing nothing -----------------------------------------------------------------


def bad_mixes(scene: Scene):
    settings = scene.neutral()

    def every(change):
        return replace(settings, stems={name: change(strip) for name, strip in settings.stems.items()})

    heard = zip(scene.facts.names, scene.facts.roles, scene.facts.audible, strict=True)
    for name in [name for name, role, audible in heard if audible and role == "vocal"]:
        yield f"{name} muted", settings.with_strip(name, replace(settings.stems[name], gain_db=-60.0))
    for name, audible in zip(scene.facts.names, scene.facts.audible, strict=True):
        if audible:
            strips = {n: s if n == name else replace(s, gain_db=-60.0) for n, s in settings.stems.items()}
            yield f"{name} alone", replace(settings, stems=strips)
    yield "everything left", every(lambda s: replace(s, pan=-1.0))
    yield "+12 dB at 3 kHz", every(lambda s: s.with_band(3, frequency_hz=3000.0, gain_db=12.0))
    yield "pumping", every(lambda s: replace(s, compressor="firm"))


def split_in_antiphase(scene: Scene):
    """The scene with its loudest stem as two equal halves, and the mixes without and with one of them inverted."""
    loudest = int(scene.measures(scene.neutral()).stem_lufs.argmax())
    rows = [*range(len(scene.facts.names)), loudest]
    strips = neutral_knobs(scene.facts).strips[rows]
    strips[[loudest, -1], GAIN] = 20.0 * np.log10(0.5)
    halves = scene.subset(rows, strips)
    plain = neutral_knobs(halves.facts)
    inverted = plain.copy()
    inverted.strips[-1, INVERT] = 1.0
    return halves, joined([plain, inverted])


def assert_bad_mixes_lose(scene: Scene):
    neutral = float(score(scene.measures(scene.neutral()), scene.facts))
    won = {name: float(score(scene.measures(s), scene.facts)) - neutral for name, s in bad_mixes(scene)}
    halves, mixes = split_in_antiphase(scene)
    if scene.facts.expected is not None:
        halves = informed(halves)
    plain, inverted = halves.scores(mixes)
    if scene.facts.expected is None:
        assert plain == pytest.approx(neutral, abs=0.5)  # half a stem twice is the stem, but for how it is counted
    won["antiphase"] = float(inverted - plain)
    assert {name: round(gain, 3) for name, gain in won.items() if gain >= 0.0} == {}


def test_bad_mixes_of_the_samples_lose(sample):
    assert_bad_mixes_lose(sample[1])
    assert_bad_mixes_lose(informed(sample[1]))


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
    inverted = settings.with_strip("keys_2", replace(settings.stems["keys_2"], invert=True))
    rendered = Rendered(session, scene)
    assert score(rendered.measures(inverted), scene.facts) < score(rendered.measures(settings), scene.facts)


@pytest.mark.parametrize("name", REAL)
def test_bad_mixes_of_real_sessions_lose(name):
    if not (DATA / name).is_dir():
        pytest.skip(f"needs {name} of the project's data folder beside the checkout")
    scene = Scene.of(span(excerpt(load_session(DATA / name)), 0, 8))
    assert_bad_mixes_lose(scene)
    assert_bad_mixes_lose(informed(scene))


@pytest.mark.parametrize("facts", [FACTS, KNOWN], ids=["rules", "people"])
@pytest.mark.parametrize("seed", range(6))
def test_pull_is_the_derivative_of_the_score(seed, facts):
    """Against central differences, for measures all over the place."""
    rng = np.random.default_rng(seed)
    count = len(FACTS.names)
    measures = good(
        spectrum_db=good().spectrum_db + rng.normal(0.0, 6.0, 31),
        side_mid_db=good().side_mid_db + rng.normal(0.0, 12.0, 31),
        imbalance_db=np.float64(rng.choice([-1.0, 1.0]) * rng.uniform(1.5, 6.0)),
        stem_lufs=good().stem_lufs + rng.normal(0.0, 15.0, count),
        audibility_db=rng.uniform(-30.0, 0.0, count),
        position=rng.uniform(-1.0, 1.0, count),
    )
    found = pull(measures, yardstick(facts))
    step = 1e-5
    for name, slopes in (
        ("spectrum_db", found.spectrum), ("side_mid_db", found.side_mid), ("imbalance_db", found.imbalance),
        ("stem_lufs", found.level), ("audibility_db", found.audibility), ("position", found.position),
    ):  # fmt: skip
        assert np.abs(slopes).max() > 0.0
        for index in np.ndindex(np.shape(getattr(measures, name))):
            shift = np.zeros(np.shape(getattr(measures, name)))
            shift[index] = step
            up, down = (
                float(score(replace(measures, **{name: getattr(measures, name) + sign * shift}), facts))
                for sign in (1.0, -1.0)
            )
            expected = (up - down) / (2.0 * step)
            assert slopes[index if index else 0] == pytest.approx(expected, abs=1e-6), (name, index)
