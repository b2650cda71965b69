"""Inputs that were found by fuzzing, or that it begins with, go through every reader of files again."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from fuzz import trees
from fuzz.targets import TARGETS, run

from mixrl import InputError

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
INPUTS = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def test_there_is_a_corpus_for_every_target():
    assert {path.parent.name for path in INPUTS} == set(TARGETS)
    assert sum(path.stat().st_size for path in INPUTS) < 200_000


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_of_the_corpus(path):
    run(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_what_begins_whole_is_read(target, tmp_path):
    """The fuzzer begins with inputs that get all the way through, not with ones that are refused at once."""
    for path in INPUTS:
        if path.parent.name == target and ("whole" in path.name or "pcm" in path.name):
            TARGETS[target](path.read_bytes(), tmp_path)


def test_a_finding_is_one(monkeypatch):
    def broken(data, folder):
        raise {b"a": KeyError("x"), b"b": InputError("names no file")}[data]

    monkeypatch.setitem(TARGETS, "toml", broken)
    with pytest.raises(KeyError):
        run("toml", b"a")
    with pytest.raises(AssertionError, match="names no file"):
        run("toml", b"b")


@pytest.mark.parametrize(
    ("change", "path"), [("changed_json", "recipe/whole.json"), ("changed_header", "policy/whole.safetensors")]
)
def test_changes_of_values_leave_json_and_go_through_the_readers(change, path):
    whole = (CORPUS / path).read_bytes()
    made = [getattr(trees, change)(whole, random.Random(seed)) for seed in range(100)]
    assert made == [getattr(trees, change)(whole, random.Random(seed)) for seed in range(100)]
    assert len({*made, whole}) > 60
    for data in made:
        json.loads(data if change == "changed_json" else data[8 : 8 + int.from_bytes(data[:8], "little")])
        run(path.partition("/")[0], data)


def test_what_is_no_json_is_left_to_others():
    for data in (b"", b"no", b"\xff\xfe", b"[" * 100_000):
        assert trees.changed_json(data, random.Random(0)) is None
        assert trees.changed_header(data, random.Random(0)) is None
