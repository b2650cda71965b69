"""What is imported when: quick to start, and no torch needed to mix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stems import band, write

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "scipy", "librosa", "pedalboard", "numba", "gymnasium", "soundfile", "soxr", "safetensors", "joblib")
REPORT = "import json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"


def modules(code, *arguments):
    """The modules that are loaded once a new Python has run the code."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_importing_mixrl_is_light():
    loaded = modules(f"import mixrl; {REPORT}")
    assert "mixrl" in loaded
    assert loaded.isdisjoint({*HEAVY, "typer", "rich"})


@pytest.mark.parametrize(
    "arguments", ["--help", "mix --help", "batch --help", "train --help", "evaluate search --help", "--version"]
)
def test_help_is_light(arguments):
    code = f"import atexit, mixrl.commands; atexit.register(lambda: exec({REPORT!r})); mixrl.commands.main()"
    loaded = modules(code, *arguments.split())
    assert "typer" in loaded
    assert loaded.isdisjoint({*HEAVY, "numpy"})


def test_playing_policies_and_tables_needs_no_torch():
    loaded = modules(f"import mixrl.contest, mixrl.agent.policy, mixrl.agent.tabular; {REPORT}")
    assert loaded.isdisjoint({"torch", "gymnasium"})


def test_everything_public_can_be_had():
    import mixrl

    for name in mixrl.__all__:
        assert getattr(mixrl, name) is not None
    assert set(mixrl.__all__) <= set(dir(mixrl))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mixrl.nothing


@pytest.fixture
def no_torch(tmp_path):
    """A path on which torch, gymnasium and matplotlib are packages that cannot be imported."""
    for name in ("torch", "gymnasium", "matplotlib"):
        package = tmp_path / "broken" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise ImportError('this is not installed here')\n")
    return f"{tmp_path / 'broken'}{os.pathsep}{ROOT}"


def test_mixing_needs_no_torch(no_torch, tmp_path):
    song = write(tmp_path / "song", band(3))
    command = [sys.executable, str(ROOT / "cli.py"), "mix", str(song), "-o", str(tmp_path / "a.wav"), "--json"]
    environment = {**os.environ, "PYTHONPATH": no_torch}
    done = subprocess.run([*command, "--steps", "4"], env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(json.loads(done.stdout)["candidates"]) == {"no change", "rule mix", "dqn"}


def test_training_without_torch_says_what_to_install(no_torch, tmp_path):
    # a torch that is there but broken must not be met either before the arguments are checked
    song = write(tmp_path / "song", band(1))
    command = [sys.executable, str(ROOT / "cli.py"), "train", str(song), "-o", str(tmp_path / "no" / "p.safetensors")]
    environment = {**os.environ, "PYTHONPATH": no_torch}
    done = subprocess.run([*command, "--validate", str(song)], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "make it first" in done.stderr


def test_mixing_needs_no_place_for_compiled_code(tmp_path):
    """Installed by one user, run by another without a home, as in containers: numba finds no place for its cache."""
    code = f"""
import numba.core.caching as caching
caching.CacheImpl._locator_classes = []
from mixrl.compiled import compiled
@compiled
def doubled(x):
    return 2 * x
assert doubled(21) == 42
from mixrl.meters import measure_array
import numpy as np
assert measure_array(np.ones((1, 100), np.float32), 8000).true_peak_dbtp is not None
{REPORT}
"""
    assert "mixrl.meters" in modules(code)


def test_the_process_ends_with_its_code_and_all_that_it_said(tmp_path):
    """It ends without taking Python down, so nothing may be left in a buffer."""
    write(tmp_path / "song", band(seconds=1.0))
    files = sorted(str(path) for path in (tmp_path / "song").iterdir())
    command = [sys.executable, str(ROOT / "cli.py"), "measure", *files, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)) == len(files)
    for arguments, code in ((["measure", "nothing.wav"], 2), ([], 2), (["--version"], 0)):
        assert subprocess.run([*command[:2], *arguments], capture_output=True).returncode == code
