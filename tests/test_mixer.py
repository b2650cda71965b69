"""The mixer: what wins, what is logged, locks, strengths, tempo, and sessions at the edge."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import test_tempo
from stems import RATE, band, beat, libebur128, write
from test_tempo import BREAK, kit, pattern, struck

import mixrl
from mixrl import InputError, Mixer, MixSettings, Session
from mixrl.audio import FileSource
from mixrl.competition import TIE_DB
from mixrl.knobs import neutral_knobs, to_settings
from mixrl.mixer import DQN, NO_CHANGE, RULE_MIX, write_candidates, write_stems
from mixrl.moves import KINDS, MIX_MOVES, STEM_MOVES, Layout, apply, legal
from mixrl.people import informed
from mixrl.rendered import Rendered
from mixrl.scene import Scene
from mixrl.score import score
from mixrl.state import layout_of
from mixrl.tempo import estimate, session_tempo

SAMPLES = Path(__file__).parent.parent / "audio_samples"


class Greedy:
    """A policy that takes the best one-step gain, so that tests do not hang on the trained one's taste."""

    use_gains = True

    def act(self, state):
        gains = np.where(state.mask, state.gains, -np.inf)
        gains[layout_of(state).mix_start] = 0.0
        return int(gains.argmax())


def mixed(session, **options):
    return Mixer(**{"policy": Greedy(), "steps": 12, **options}).mix(session)


@pytest.fixture(scope="module")
def session():
    return Session.from_arrays(band(), RATE)


@pytest.fixture(scope="module")
def made(session):
    return mixed(session)


# ----------------------------------------------------------------------------------------------- what wins


def test_three_mixes_compete_and_the_best_of_those_nearest_to_people_wins(session, made):
    assert [candidate.name for candidate in made.candidates] == [NO_CHANGE, RULE_MIX, DQN]
    near = [c for c in made.candidates if c.balance_db <= min(o.balance_db for o in made.candidates) + TIE_DB]
    assert made.winner == max(near, key=lambda c: c.score).name == DQN
    assert made.score_after > made.score_before
    rendered = Rendered(session, scene := informed(Scene.of(session)))
    for candidate in made.candidates:  # the scores are those of audio that was rendered
        assert candidate.score == pytest.approx(float(score(rendered.measures(candidate.settings), scene.facts)))
    assert made.candidate(NO_CHANGE).settings == scene.neutral()
    with pytest.raises(InputError, match="there are"):
        made.candidate("best")


def test_nothing_is_moved_when_nothing_is_better(session):
    class Worst:
        use_gains = True

        def act(self, state):
            return int(np.where(state.mask, state.gains, np.inf).argmin())

    found = mixed(session, policy=Worst(), strength={"gain": 0.0}, polish=0)
    scores = {c.name: c.score for c in found.candidates}
    assert scores[DQN] == scores[NO_CHANGE]  # the best mix on the way is the one before the first move


# ----------------------------------------------------------------------------------------------- what is logged


def applied(settings: MixSettings, move: mixrl.LoggedMove, side: str) -> MixSettings:
    """Settings with the value of a logged move written into them: its ``before`` or its ``after``, as text."""
    text = getattr(move, side)
    if move.target == "group":
        return settings.with_group(move.name, decibels(text))
    if move.target == "mix":
        usual, *others = text.split(", ")
        ratios = dict.fromkeys(settings.stems, usual) | dict(other.rsplit(" ", 1) for other in others)
        for name, ratio in ratios.items():
            settings = settings.with_strip(name, changed(settings.strip(name), tempo_ratio=float(ratio)))
        return settings
    strip = settings.strip(move.name)
    bands = {f"EQ {b.kind.replace('_', ' ')} {b.frequency_hz:g} Hz": i for i, b in enumerate(strip.eq)}
    if move.setting in bands:
        strip = strip.with_band(bands[move.setting], gain_db=decibels(text))
    elif move.setting == "gain":
        strip = changed(strip, gain_db=decibels(text))
    elif move.setting == "pan":
        size, _, way = text.partition("% ")
        strip = changed(strip, pan=0.0 if text == "centre" else float(size) / 100 * {"left": -1, "right": 1}[way])
    elif move.setting == "high-pass":
        strip = changed(strip, highpass_hz=None if text == "off" else float(text.removesuffix(" Hz")))
    elif move.setting == "compressor":
        strip = changed(strip, compressor=text)
    else:
        assert move.setting == "polarity"
        strip = changed(strip, invert={"normal": False, "inverted": True}[text])
    return settings.with_strip(move.name, strip)


def decibels(text):
    assert text.endswith(" dB")
    return float(text.removesuffix(" dB"))


changed = dataclasses.replace


def test_the_log_leads_from_neutral_to_the_winning_settings(session, made):
    settings = made.candidate(NO_CHANGE).settings
    assert len(made.moves) >= 5
    for number, move in enumerate(made.moves, 1):
        assert move.step == number
        assert applied(settings, move, "before") == settings
        assert applied(settings, move, "after") != settings
        assert move.reason
        settings = applied(settings, move, "after")
    assert settings == made.settings
    total = made.candidate(DQN).predicted - made.candidate(NO_CHANGE).predicted
    assert sum(move.score_change for move in made.moves) == pytest.approx(total, abs=1e-3 * len(made.moves))


@pytest.mark.parametrize("strength", [{}, {"polarity": 0.4, "compressor": 0.4, "pan": 0.5}])
def test_every_kind_of_move_can_be_read_back(session, strength):
    """Also of kinds that no policy might choose here, hence not by way of a whole mix."""
    scene = Scene.of(session, tempo_ratios={"kick": 1.25, "bass": 1.25}, tempo_weights={"kick": 1.0, "bass": 1.0})
    layout = Layout(len(scene.facts.names), len(scene.facts.groups))
    kinds = dict.fromkeys(move.kind for move in (*STEM_MOVES, *MIX_MOVES[1:]))
    path, knobs = [], neutral_knobs(scene.facts)
    for kind in kinds:
        legal_now = np.flatnonzero(legal(knobs, scene.facts))
        action = next(int(a) for a in legal_now if layout.decode(int(a))[2].kind == kind)
        knobs = apply(knobs, scene.facts, action)
        path.append((action, to_settings(knobs, scene.facts)))
    settings = path[-1][1]
    reached, log = Mixer(strength=strength)._log(scene, path)
    if not strength:
        assert reached == settings
        assert len(log) == len(kinds)
        assert log[-1].after in ("1.118, keys 1.000, vocal 1.000", "1.000, bass 1.118, kick 1.118")
    else:  # too weak for a polarity or a compressor: then they are not in the log either
        assert {move.setting for move in log}.isdisjoint({"polarity", "compressor"})
    again = scene.neutral()
    for move in log:
        assert close(applied(again, move, "before"), again)
        again = applied(again, move, "after")
    assert close(again, reached)


def close(a: MixSettings, b: MixSettings) -> bool:
    """Equal but for the three digits that a tempo ratio is shown with."""

    def rounded(settings):
        return {n: changed(s, tempo_ratio=round(s.tempo_ratio, 3)) for n, s in settings.stems.items()}

    return rounded(a) == rounded(b) and a.groups == b.groups


def test_moves_read_well(made):
    text = str(made.moves[0])
    assert made.moves[0].name in text
    assert f"{made.moves[0].before} -> {made.moves[0].after}" in text


# ----------------------------------------------------------------------------------------------- determinism


def test_mixing_twice_gives_the_same_and_changes_nothing(made):
    arrays = band()
    kept = {name: array.copy() for name, array in arrays.items()}
    session = Session.from_arrays(arrays, RATE)
    again = mixed(session)
    assert again.settings == made.settings
    assert again.moves == made.moves
    assert [c.score for c in again.candidates] == [c.score for c in made.candidates]
    for name, array in kept.items():
        assert np.array_equal(arrays[name], array)
        assert np.array_equal(session.read(name), np.atleast_2d(array))
    assert session.names == tuple(sorted(kept))
    assert Mixer(policy=Greedy(), steps=12).plan(session) == made.settings


def test_rendering_in_memory_is_what_is_written(made, tmp_path):
    import soundfile

    delivery = made.write(tmp_path / "mix.wav", encoding="wav32f")
    written = soundfile.read(tmp_path / "mix.wav", dtype="float32")[0].T
    in_memory = made.render()
    assert in_memory.dtype == np.float32
    assert np.array_equal(in_memory, written)
    assert delivery.target_reached
    loudness, peak = libebur128(tmp_path / "mix.wav")
    assert loudness == pytest.approx(-14.0, abs=0.1)
    assert peak <= -1.0


# ----------------------------------------------------------------------------------------------- locks, strengths


def test_locked_stems_stay_as_they_are(session):
    found = mixed(session, locked=["vocal", "k*"])
    for candidate in found.candidates:
        for name in ("vocal", "kick", "keys"):
            assert candidate.settings.strip(name) == mixrl.StripSettings()
        assert all(candidate.settings.groups[candidate.settings.members[n]] == 0 for n in ("vocal", "kick", "keys"))
    assert {move.name for move in found.moves} <= {"bass"}
    assert found.candidate(DQN).settings.stems["bass"] != mixrl.StripSettings()
    with pytest.raises(InputError, match=r"'piano'.*bass, keys, kick, vocal"):
        mixed(session, locked=["piano"])


def test_half_strength_is_half_way_and_the_log_says_so(session, made):
    half = mixed(session, strength={"gain": 0.5, "eq": 0.5})
    full, settings = made.candidate(DQN).settings, half.candidate(DQN).settings
    for name in session.names:
        assert settings.strip(name).gain_db == pytest.approx(full.strip(name).gain_db / 2)
        for a, b in zip(settings.strip(name).eq, full.strip(name).eq, strict=True):
            assert a.gain_db == pytest.approx(b.gain_db / 2)
        assert settings.strip(name).pan == full.strip(name).pan
    _, log = Mixer(policy=Greedy(), steps=12, strength={"gain": 0.5, "eq": 0.5})._act(
        informed(Scene.of(session)), (), lambda what, share: None
    )
    last = {(move.name, move.setting): move.after for move in log}
    gains = {name: decibels(after) for (name, setting), after in last.items() if setting == "gain"}
    assert gains
    assert gains == {name: pytest.approx(settings.strip(name).gain_db, abs=0.051) for name in gains}


def test_no_strength_leaves_everything(session):
    none = mixed(session, strength=dict.fromkeys(KINDS, 0.0))
    assert {c.score for c in none.candidates} == {none.score_before}
    assert none.winner == NO_CHANGE
    assert not none.moves
    assert none.settings.stems == MixSettings.neutral(session.names).stems
    without = mixed(session, strength={"gain": 0.0})
    for candidate in without.candidates:
        assert all(strip.gain_db == 0.0 for strip in candidate.settings.stems.values())
        assert not any(candidate.settings.groups.values())


def test_steps_are_a_limit(session):
    assert mixed(session, steps=0).candidate(DQN).settings == mixed(session, steps=0).candidate(NO_CHANGE).settings
    assert len(mixed(session, steps=2).moves) <= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 5.0}, r"target 5 is out of range: give -60 to 0 LUFS"),
        ({"target": float("nan")}, "target nan"),
        ({"ceiling": 0.5}, "ceiling 0.5 is out of range: give -20 to 0 dBTP"),
        ({"bpm": 3.0}, "bpm 3 is out of range: give 20 to 400"),
        ({"bpm": 120.0, "strength": {"tempo": 0.0}}, "bpm 120 .*tempo=0"),
        ({"strength": {"reverb": 1.0}}, "'reverb': there are gain, pan, eq"),
        ({"strength": {"gain": 1.5}}, "gain=1.5 is out of range: give 0 to 1"),
        ({"strength": {"gain": float("nan")}}, "gain=nan"),
        ({"steps": -1}, "steps -1"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Mixer(**options)


# ----------------------------------------------------------------------------------------------- tempo


@pytest.fixture(scope="module")
def loop():
    return Session.from_arrays({"kick": beat(6, 120), "hat": beat(6, 120, hat=True)}, RATE)


def test_a_session_is_brought_to_the_tempo_that_is_asked_for(loop, tmp_path):
    found = mixed(loop, bpm=100.0, steps=3)
    assert found.winner == DQN
    for strip in found.settings.stems.values():
        assert strip.tempo_ratio == pytest.approx(100 / 120, rel=2e-3)
    move = next(move for move in found.moves if move.setting == "tempo ratio")
    assert (move.before, float(move.after)) == ("1.000", pytest.approx(100 / 120, rel=2e-3))
    delivery = found.write(tmp_path / "slow.wav")
    assert delivery.measurement.duration_s == pytest.approx(6 * 120 / 100, rel=2e-3)
    # the mix itself has the new tempo
    assert estimate(FileSource(tmp_path / "slow.wav")).bpm == pytest.approx(100.0, rel=0.01)
    assert not [warning for warning in found.warnings if "BPM" in warning]


def test_a_tempo_that_cannot_be_had_is_said(loop, session):
    locked = mixed(loop, bpm=100.0, steps=2, locked=["kick"])
    assert all(strip.tempo_ratio == 1.0 for strip in locked.settings.stems.values())
    assert any("100 BPM" in warning and "kick is locked" in warning for warning in locked.warnings)
    pad = Session.from_arrays({"keys": band(5)["keys"]}, RATE)
    assert any("no tempo was found" in warning for warning in mixed(pad, bpm=100.0, steps=0).warnings)


def test_a_loop_at_another_tempo_is_brought_to_the_sessions_unasked():
    strays = struck(pattern(BREAK, 120 * 0.93), seed=7)
    found = mixed(Session.from_arrays({**kit(), "loop": strays}, test_tempo.RATE), steps=4)
    assert found.winner == DQN
    ratios = {name: strip.tempo_ratio for name, strip in found.settings.stems.items()}
    assert ratios == {"kick": 1.0, "snare": 1.0, "hat": 1.0, "loop": pytest.approx(1 / 0.93, rel=3e-3)}
    assert any(move.setting == "tempo ratio" and "loop" in move.after for move in found.moves)


def test_nothing_is_stretched_unasked(session, made):
    """The chord has no onsets; its partials beat, which is no rhythm."""
    plan = session_tempo(session)
    assert plan.tempo.bpm == pytest.approx(120.0, rel=0.01)
    assert plan.stems["keys"].bpm is None
    assert not plan.loops
    assert all(strip.tempo_ratio == 1.0 for strip in made.settings.stems.values())


# ----------------------------------------------------------------------------------------------- the edge


def test_a_silent_session_is_written_as_silence(tmp_path):
    import soundfile

    silent = Session.from_arrays({name: 0 * audio for name, audio in band(2).items()}, RATE)
    found = mixed(silent)
    assert found.winner == NO_CHANGE
    delivery = found.write(tmp_path / "mix.wav")
    assert delivery.measurement.integrated_lufs is None
    assert not soundfile.read(tmp_path / "mix.wav")[0].any()
    assert any("silent" in warning for warning in delivery.warnings)
    assert mixrl.Recipe.from_json(found.recipe.to_json()) == found.recipe


@pytest.mark.parametrize("name", ["kick", "vocal"])
def test_one_stem_is_a_session(name, tmp_path):
    found = mixed(Session.from_arrays({name: band(3)[name]}, RATE), target=-18.0)
    found.write(tmp_path / "mix.wav")
    assert libebur128(tmp_path / "mix.wav")[0] == pytest.approx(-18.0, abs=0.1)


def test_a_target_out_of_reach_is_reported(tmp_path):
    clicks = np.zeros(4 * RATE, np.float32)
    clicks[:: RATE // 2] = 1.0
    found = mixed(Session.from_arrays({"clave": clicks}, RATE), target=-8.0, steps=2)
    delivery = found.write(tmp_path / "mix.wav")
    assert not delivery.target_reached
    assert any("not -8.0 LUFS" in warning for warning in delivery.warnings)
    assert libebur128(tmp_path / "mix.wav")[1] <= -1.0


def test_no_target_keeps_the_level(tmp_path):
    import soundfile

    stems = {name: 0.3 * audio for name, audio in band(2).items()}
    found = mixed(Session.from_arrays(stems, RATE), target=None, steps=0, strength=dict.fromkeys(KINDS, 0.0))
    found.write(tmp_path / "mix.wav", encoding="wav32f")
    total = sum(np.broadcast_to(audio, (2, 2 * RATE)) for audio in stems.values())
    assert np.abs(soundfile.read(tmp_path / "mix.wav")[0].T - total).max() < 1e-6


def test_candidates_are_written_equally_loud(made, tmp_path):
    paths = write_candidates(made, tmp_path / "ab")
    assert sorted(path.name for path in paths.values()) == ["dqn.wav", "no-change.wav", "rule-mix.wav"]
    loudness = [libebur128(path)[0] for path in paths.values()]
    assert max(loudness) - min(loudness) <= 0.1
    with pytest.raises(InputError, match="exists already"):
        write_candidates(made, tmp_path / "ab")


def test_stems_add_up_to_the_mix(made, tmp_path):
    import soundfile

    quiet = changed(made, settings=changed(made.settings, master=mixrl.MasterSettings(target_lufs=-30.0)))
    delivery = quiet.write(tmp_path / "mix.wav", encoding="wav32f")
    assert delivery.limiting_db == 0.0
    paths = write_stems(made.session, quiet.settings, tmp_path / "stems", delivery.gain_db)
    total = sum(soundfile.read(path)[0] for path in paths)
    assert np.abs(total - soundfile.read(tmp_path / "mix.wav")[0]).max() < 1e-6


def test_stems_whose_names_would_meet_get_a_file_each(tmp_path):
    clash = Session.from_arrays({"drums/kick": beat(1), "drums_kick": beat(1, 60)}, RATE)
    paths = write_stems(clash, MixSettings.neutral(clash.names), tmp_path / "stems", 0.0)
    assert sorted(path.name for path in paths) == ["drums_kick (2).wav", "drums_kick.wav"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        write_stems(clash, MixSettings.neutral(clash.names), tmp_path / "file", 0.0)
    with pytest.raises(InputError, match="there is no folder"):
        write_stems(clash, MixSettings.neutral(clash.names), tmp_path / "no" / "stems", 0.0)


def test_a_mix_of_a_sample_session_from_python(tmp_path):
    found = mixrl.mix(SAMPLES / "hydrogen", target=-16.0, ceiling=-2.0, steps=6)
    assert len(found.session.stems) == 9
    assert found.score_after >= found.score_before
    found.write(tmp_path / "mix.wav")
    loudness, peak = libebur128(tmp_path / "mix.wav")
    assert loudness == pytest.approx(-16.0, abs=0.1)
    assert peak <= -2.0


def test_mix_takes_a_folder_and_what_to_include(tmp_path):
    write(tmp_path / "song", {**band(2), "click": beat(2)})
    assert "click" not in mixrl.mix(tmp_path / "song", steps=0).session.names
    found = mixrl.mix(str(tmp_path / "song"), steps=0, include=["click"])
    assert "click" in found.session.names
    assert found.recipe.include == ("click",)
