"""What is practised: damage baked in, sessions found and remembered, and the command that trains on them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import small_stems
from typer.testing import CliRunner

import mixrl.agent.material as material_module
from mixrl.agent.config import Practice, TrainConfig
from mixrl.agent.material import Material, load_material, session_folders
from mixrl.agent.policy import load_policy
from mixrl.agent.tabular import load_table
from mixrl.agent.tasks import Practised, damaged, environments_of, fingerprint, sampler
from mixrl.agent.train import CHECKPOINT, LOG
from mixrl.closeness import Goal, Reference
from mixrl.commands import app
from mixrl.env import MixEnv
from mixrl.errors import InputError
from mixrl.knobs import COLUMNS, PAN, TEMPO, joined, neutral_knobs
from mixrl.scene import Scene
from mixrl.session import Session
from mixrl.stem_features import peaks_dbfs

RATE = 22_050


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [Scene.of(Session.from_arrays(small_stems(RATE, 5.0, seed), RATE)) for seed in (1, 2)]


PLAIN = Practice(eq_share=0.0, pan_share=0.0, flip_share=0.0, level_share=0.0, spreads_db=(12.0,))


def some(scene, stems=(0, 1, 2)):
    return scene.subset(list(stems))


def neutral(scene):
    return scene.measures(scene.neutral())


def test_damage_is_part_of_the_recording(scenes):
    """Other levels than in the session, and settings that show nothing."""
    whole = some(scenes[0])
    for seed in range(5):
        part = damaged(whole, PLAIN, np.random.default_rng(seed))
        off = neutral(part).stem_lufs - neutral(whole).stem_lufs
        assert np.abs(off).max() < 12.1
        assert np.ptp(off) > 0.1
        assert all(strip.gain_db == 0.0 for strip in part.neutral().stems.values())


@pytest.mark.parametrize(
    ("practice", "measure", "least", "most"),
    [
        (replace(PLAIN, eq_share=1.0), "spectrum_db", 1.0, 20.0),
        (replace(PLAIN, pan_share=1.0), "position", 0.1, 1.0),
        (replace(PLAIN, spreads_db=(3.0,)), "stem_lufs", 0.5, 3.1),
    ],
)
def test_each_kind_of_damage_is_done_where_it_is_asked_for(scenes, practice, measure, least, most):
    whole, still = some(scenes[0]), replace(PLAIN, spreads_db=(0.0,))
    practice = replace(practice, spreads_db=practice.spreads_db if measure == "stem_lufs" else (0.0,))
    change = 0.0
    for seed in range(6):
        copies = [damaged(whole, its, np.random.default_rng(seed)) for its in (still, practice)]
        before, after = (getattr(neutral(copy), measure) for copy in copies)
        part = slice(5, 26) if measure == "spectrum_db" else slice(None)
        change = max(change, float(np.abs(after - before)[part].max()))
    assert least < change < most


def test_stems_arrive_at_one_loudness_or_one_peak(scenes):
    whole, practice = some(scenes[0]), replace(PLAIN, level_share=0.5)
    ranges = []
    for seed in range(12):
        copy = damaged(whole, practice, np.random.default_rng(seed))
        ranges.append((np.ptp(neutral(copy).stem_lufs), np.ptp(peaks_dbfs(copy))))
    by_loudness = [loudness < 0.3 for loudness, _ in ranges]
    by_peak = [peak < 0.3 for _, peak in ranges]
    assert all(a or b for a, b in zip(by_loudness, by_peak, strict=True))
    assert any(by_loudness)
    assert any(by_peak)


def test_pans_are_collapsed_or_swapped_or_anywhere(scenes):
    whole, practice = some(scenes[0]), replace(PLAIN, spreads_db=(0.0,), pan_share=1.0)
    aside = np.zeros((len(whole.facts.names), COLUMNS))
    aside[:, PAN], aside[:, TEMPO] = np.linspace(-0.6, 0.8, len(aside)), 1.0
    whole = whole.subset(range(len(aside)), aside)
    before, found = neutral(whole).position, []
    for seed in range(20):
        after = neutral(damaged(whole, practice, np.random.default_rng(seed))).position
        if np.abs(after).max() < 0.05:
            found.append("collapsed")
        elif np.abs(after + before).max() < 0.05:
            found.append("swapped")
        else:
            found.append("anywhere")
    assert set(found) == {"collapsed", "swapped", "anywhere"}


def test_a_turned_polarity_takes_as_much_away_as_it_gave(scenes):
    whole = some(scenes[0])
    same = whole.subset([0, 0])
    twice = neutral(same).integrated_lufs
    flipped = damaged(same, replace(PLAIN, spreads_db=(0.0,), flip_share=1.0), np.random.default_rng(0))
    assert neutral(flipped).integrated_lufs < twice - 40.0


def test_real_sessions_and_whole_ones_come_up_as_often_as_they_should(scenes):
    sessions = [Practised(scenes[0], True, True, None), *(Practised(scenes[1], False, True, None) for _ in range(4))]
    sample = sampler(sessions, Practice(real_share=0.5, whole_share=0.25, fewest=2, most=3, nameless_share=0.4), True)
    rng = np.random.default_rng(0)
    tasks = [sample(rng) for _ in range(300)]
    whole = [task.scene for task in tasks if len(task.scene.facts.names) > 3]
    assert len(whole) == pytest.approx(75, abs=25)
    counts = {len(task.scene.facts.names) for task in tasks} - {len(scenes[0].facts.names)}
    assert counts == {2, 3}
    nameless = [task for task in tasks if task.scene.facts.names[0] == "track01"]
    assert len(nameless) == pytest.approx(120, abs=35)
    first = [float(neutral(scene).integrated_lufs) for scene in (*scenes, *whole)]
    assert first[2:].count(first[0]) == pytest.approx(len(whole) / 2, abs=20)
    assert set(first[2:]) == set(first[:2])
    few = sampler(sessions, Practice(whole_share=1.0, most_stems=2, fewest=2, most=2), True)
    assert {len(few(rng).scene.facts.names) for _ in range(20)} == {2}


def test_starts_are_at_the_rule_mix_as_often_as_they_should(scenes):
    sample = sampler([Practised(scenes[0], True, True, None)], Practice(rule_share=0.7, fewest=2, most=3), True)
    rng = np.random.default_rng(0)
    tasks = [sample(rng) for _ in range(100)]
    begun = [task for task in tasks if task.start is not None]
    assert len(begun) == pytest.approx(70, abs=15)
    moved = 0
    for task in begun:
        before, after = task.scene.scores(joined([neutral_knobs(task.scene.facts), task.start]))
        assert after >= before
        moved += after > before
    assert moved > 10


def test_what_people_left_is_rewarded_and_never_seen(scenes):
    """The reward is the rise of score and closeness; the state is the same whatever people's mix was."""
    whole = some(scenes[0])
    copy = damaged(whole, PLAIN, np.random.default_rng(0))
    other = Reference.of(damaged(whole, PLAIN, np.random.default_rng(1)))
    envs = [
        MixEnv(copy, goal=Goal(reference, 1.0, shown=False)) for reference in (Reference.of(whole), other)
    ] + [MixEnv(copy)]
    states = [env.reset()[0] for env in envs]
    for name, values in states[0].items():
        assert all((values == state[name]).all() for state in states), name
    action = int(np.flatnonzero(states[0]["mask"])[0])
    steps = [env.step(action) for env in envs]
    assert len({reward for _, reward, *_ in steps}) == 3
    gained = steps[0][1] - steps[2][1]
    knobs = [envs[0].start, envs[0].knobs]
    worth = []
    for its in knobs:
        measures = copy.current(its)
        worth.append(Reference.of(whole).closeness(measures, Reference.of(whole).off_shape(copy.own_power(its))))
    assert gained == pytest.approx(float(worth[1] - worth[0]), abs=1e-6)


def test_closeness_of_every_successor_is_what_the_move_brings(scenes):
    whole = some(scenes[0])
    copy = damaged(whole, replace(PLAIN, eq_share=1.0), np.random.default_rng(2))
    env = MixEnv(copy, goal=Goal(Reference.of(whole), 1.0, shown=True))
    state = env.reset()[0]
    for action in np.flatnonzero(state["mask"])[:-1:7]:
        env.reset()
        _, reward, *_ = env.step(int(action))
        assert state["gains"][action] == pytest.approx(reward, abs=2e-4), int(action)


def test_people_s_own_mix_is_the_closest(scenes):
    whole = some(scenes[0])
    reference = Reference.of(whole)
    same = neutral_knobs(whole.facts)
    assert reference.closeness(whole.current(same), reference.off_shape(whole.own_power(same))) == pytest.approx(0.0)
    for seed in range(5):
        copy = damaged(whole, replace(PLAIN, eq_share=1.0, pan_share=1.0), np.random.default_rng(seed))
        found = reference.closeness(copy.current(same), reference.off_shape(copy.own_power(same)))
        assert found < -0.2


def test_validation_starts_are_the_same_for_every_seed(scenes):
    material = [Material("a", scenes[0], True, "1")]
    held = [Material("b", scenes[1], False, "2")]
    made = [environments_of(TrainConfig(seed=seed, envs=2, validation_starts=3), material, held) for seed in (0, 1)]
    scores = []
    for environments, starts in made:
        assert list(starts) == ["b"]
        assert starts["b"][0]().scene.facts.names == scenes[1].facts.names
        scores.append([start().reset()[1]["score"] for start in starts["b"]])
        assert starts["b"][1]().reset()[1]["closeness"] < 0.0
        state, _ = environments.reset(seed=0)
        assert state["gains"].any()
    assert scores[0] == scores[1]
    assert len(set(scores[0])) > 1
    assert fingerprint(material) != fingerprint(held)


# ---- folders -----------------------------------------------------------------------------------------------------


def session(folder: Path, seed: int, kind: str = "midi") -> Path:
    folder.mkdir(parents=True)
    for name, audio in small_stems(RATE, 4.0, seed).items():
        soundfile.write(folder / f"{name}.wav", audio.T, RATE, subtype="PCM_16")
    (folder / "source.json").write_text(json.dumps({"kind": kind}))
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    session(root / "train" / "one", 1)
    session(root / "train" / "two", 2, "real")
    session(root / "validation" / "three", 3)
    (root / "test" / "four").mkdir(parents=True)
    (root / "test" / "four" / "broken.wav").write_bytes(b"never to be read")
    return root


def test_a_data_set_gives_its_parts_and_never_its_test_sessions(dataset, tmp_path):
    assert [p.name for p in session_folders([dataset], "train")] == ["one", "two"]
    assert [p.name for p in session_folders([dataset], "validation")] == ["three"]
    own = dataset / "train" / "one"
    assert session_folders([own], "train") == [own]
    assert session_folders([own], "validation") == []
    with pytest.raises(InputError, match="is no folder"):
        session_folders([tmp_path / "nowhere"], "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="no sessions in it"):
        session_folders([tmp_path], "train")


def test_sessions_are_listened_to_once(dataset, tmp_path, monkeypatch):
    folders = session_folders([dataset], "train")
    heard: list[str] = []
    listen = material_module._listen

    def counted(folder: Path, path: Path) -> None:
        heard.append(folder.name)
        listen(folder, path)

    monkeypatch.setattr(material_module, "_listen", counted)
    seen: list[str] = []
    first = load_material(folders, tmp_path / "cache", 1, seen.append)
    assert heard == seen == ["one", "two"]
    assert [m.real for m in first] == [False, True]
    again = load_material(folders[::-1], tmp_path / "cache", 1, seen.append)
    assert heard == ["one", "two"]
    assert seen[2:] == ["two", "one"]
    assert [m.key for m in again] == [m.key for m in first][::-1]
    one, two = first[0].scene, again[1].scene
    assert float(one.scores(one.knobs(one.neutral())[None])[0]) == float(two.scores(two.knobs(two.neutral())[None])[0])
    broken = tmp_path / "cache" / f"{first[0].key[:24]}.npz"
    broken.write_bytes(broken.read_bytes()[:1000])
    load_material(folders, tmp_path / "cache")
    assert heard == ["one", "two", "one"]


# ---- the command -------------------------------------------------------------------------------------------------


def command(*arguments: object):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_the_command_trains_validates_and_resumes(dataset, tmp_path):
    output, run = tmp_path / "policy.safetensors", tmp_path / "run"
    common = ("--envs", "2", "--width", "8", "--run", run, "--cache", tmp_path / "cache", "--jobs", "1")
    done = command(dataset, "-o", output, "--no-one-step", "--moves", "20", *common)
    assert done.exit_code == 0, done.output
    policy = load_policy(output)
    assert not policy.use_gains
    assert policy.made_by["seed"] == "0"
    assert policy.made_by["moves"] == "20"
    assert "mixrl" in policy.made_by["command"]
    assert "improvement three" in (run / LOG).read_text()
    assert not (run / CHECKPOINT).exists()  # never reached a restart
    refused = command(dataset, "-o", output, "--moves", "20", *common)
    assert isinstance(refused.exception, InputError)
    assert str(output) in str(refused.exception)
    resumed = command(dataset, "-o", output, "--force", "--resume", "--moves", "20", *common)
    assert isinstance(resumed.exception, InputError)
    assert "no checkpoint" in str(resumed.exception)
    (run / CHECKPOINT).write_bytes(b"a run")
    again = command(dataset, "-o", tmp_path / "other.safetensors", "--moves", "20", *common)
    assert isinstance(again.exception, InputError)
    assert "--resume" in str(again.exception)


def test_the_command_trains_a_table_on_plain_folders(dataset, tmp_path):
    output = tmp_path / "table.safetensors"
    folders = session_folders([dataset], "train")
    done = command(*folders, "-o", output, "--algorithm", "tabular", "--moves", "64", "--jobs", "1")
    assert done.exit_code == 0, done.output
    assert load_table(output).made_by["moves"] == "64"
    assert (tmp_path / "table-run" / LOG).exists()
    assert "improvement one" in (tmp_path / "table-run" / LOG).read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-o", "nowhere/policy.safetensors"), "nowhere"),
        (("-o", "p.safetensors", "--algorithm", "sarsa"), "sarsa"),
        (("-o", "p.safetensors", "--pool", "median"), "median"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(dataset, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    done = command(dataset, *arguments)
    assert isinstance(done.exception, InputError)
    assert words in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_training_without_torch_says_what_to_install(dataset, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else find(name, *a))
    done = command(dataset, "-o", tmp_path / "p.safetensors")
    assert isinstance(done.exception, InputError)
    assert "mixrl[train]" in str(done.exception)
