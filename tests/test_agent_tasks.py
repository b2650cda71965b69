"""What is practised: damage baked in, sessions found and remembered, and the command that trains on them."""

from __future__ import annotations

import json
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
from mixrl.agent.tasks import damaged, environments_of, fingerprint, sampler
from mixrl.agent.train import CHECKPOINT, LOG
from mixrl.commands import app
from mixrl.errors import InputError
from mixrl.knobs import joined, neutral_knobs
from mixrl.scene import Scene
from mixrl.session import Session

RATE = 22_050


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [Scene.of(Session.from_arrays(small_stems(RATE, 5.0, seed), RATE)) for seed in (1, 2)]


def test_damage_is_part_of_the_recording(scenes):
    """A damaged part: some stems, at other levels than in the session, and settings that show nothing."""
    whole = scenes[0]
    rng = np.random.default_rng(0)
    counts = set()
    for _ in range(20):
        part = damaged(whole, Practice(fewest=2, most=3, eq_share=0.0), rng)
        counts.add(len(part.facts.names))
        neutral = part.measures(part.neutral())
        rows = [whole.facts.names.index(name) for name in part.facts.names]
        off = neutral.stem_lufs - whole.measures(whole.neutral()).stem_lufs[rows]
        assert np.abs(off).max() < 12.1
        assert np.ptp(off) > 0.1
        assert all(strip.gain_db == 0.0 for strip in part.neutral().stems.values())
    assert counts == {2, 3}
    plain = damaged(whole, Practice(faders_db=0.0, eq_share=0.0, fewest=3, most=3), np.random.default_rng(1))
    coloured = damaged(whole, Practice(faders_db=0.0, eq_share=1.0, fewest=3, most=3), np.random.default_rng(1))
    assert plain.facts.names == coloured.facts.names
    change = (coloured.measures(coloured.neutral()).spectrum_db - plain.measures(plain.neutral()).spectrum_db)[5:26]
    assert np.abs(change).max() > 1.0
    assert np.abs(change).max() < 16.0


def test_real_sessions_and_whole_ones_come_up_as_often_as_they_should(scenes):
    material = [Material("a", scenes[0], True, "1"), *(Material(f"m{k}", scenes[1], False, str(k)) for k in range(4))]
    sample = sampler(material, Practice(real_share=0.5, whole_share=0.25, fewest=2, most=3))
    rng = np.random.default_rng(0)
    tasks = [sample(rng) for _ in range(400)]
    whole = [task.scene for task in tasks if len(task.scene.facts.names) > 3]
    assert len(whole) == pytest.approx(100, abs=30)
    first = [float(scene.scores(scene.knobs(scene.neutral())[None])[0]) for scene in (*scenes, *whole)]
    assert set(first[2:]) == set(first[:2])
    assert first[2:].count(first[0]) == pytest.approx(len(whole) / 2, abs=20)
    few = sampler(material, Practice(whole_share=1.0, most_stems=2, fewest=2, most=2))
    assert {len(few(rng).scene.facts.names) for _ in range(20)} == {2}
    only = sampler(material[1:], Practice(real_share=1.0, whole_share=1.0))
    assert only(rng).scene.facts.names == scenes[1].facts.names


def test_starts_are_at_the_rule_mix_as_often_as_they_should(scenes):
    sample = sampler([Material("a", scenes[0], True, "1")], Practice(rule_share=0.7, fewest=2, most=3))
    rng = np.random.default_rng(0)
    tasks = [sample(rng) for _ in range(100)]
    begun = [task for task in tasks if task.start is not None]
    assert len(begun) == pytest.approx(70, abs=15)
    moved = 0
    for task in begun[:20]:
        before, after = task.scene.scores(joined([neutral_knobs(task.scene.facts), task.start]))
        assert after >= before
        moved += after > before
    assert moved > 10


def test_validation_starts_are_the_same_for_every_seed(scenes):
    material = [Material("a", scenes[0], True, "1")]
    held = [Material("b", scenes[1], False, "2")]
    made = [environments_of(TrainConfig(seed=seed, envs=2, validation_starts=3), material, held) for seed in (0, 1)]
    scores = []
    for environments, starts in made:
        assert list(starts) == ["b"]
        assert starts["b"][0]().scene.facts.names == scenes[1].facts.names
        scores.append([start().reset()[1]["score"] for start in starts["b"]])
        state, _ = environments.reset(seed=0)
        assert state["gains"].any()
    assert scores[0] == scores[1]
    assert len(set(scores[0])) == 3
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
