"""``mixrl train``: train a mixing policy on folders of stems."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def train(
    folders: Annotated[list[Path], typer.Argument(help="Session folders to train on.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the policy goes (.safetensors).")],
    validate: Annotated[list[Path], typer.Option(help="Session folder to choose the best policy on; repeatable.")],
    run: Annotated[Path, typer.Option(help="Folder for log, learning curve, best policy so far.")] = Path("runs/train"),
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    moves: Annotated[int, typer.Option(min=1, help="Moves to play in all.")] = 24_000,
    width: Annotated[int, typer.Option(min=8, max=512, help="Width of the network's layers.")] = 96,
    penalty: Annotated[float, typer.Option(min=0, help="Penalty that holds the advantages of moves near zero.")] = 0.1,
    one_step: Annotated[bool, typer.Option(help="Give the network each move's exact one-step gain.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing policy file.")] = False,
) -> None:
    """Train a policy by Double DQN (needs the train extra: pip install "mixrl[train]").

    Every episode takes a random subset of a session's stems with faders knocked about by up to 12 dB, and rewards
    each move by how much it improves the score. The policy that does best on the validation sessions is kept.
    """
    from importlib.metadata import version
    from importlib.util import find_spec

    from rich.console import Console

    from mixrl import __version__
    from mixrl.errors import InputError

    if find_spec("torch") is None:
        raise InputError('training needs PyTorch: install it with pip install "mixrl[train]"')
    if output.exists() and not force:
        raise InputError(f"{output}: exists already: add --force to overwrite it, or give another name")
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: no such folder: make it first")
    from mixrl.agent.policy import save_policy
    from mixrl.agent.train import Progress, TrainConfig
    from mixrl.agent.train import train as learn
    from mixrl.excerpt import excerpt
    from mixrl.scene import Scene
    from mixrl.session import load_session

    console = Console(stderr=True)
    scenes = []
    for folder in [*folders, *validate]:
        console.print(f"listening to {folder.name}")
        scenes.append(Scene.of(excerpt(load_session(folder))))

    def report(row: Progress) -> None:
        console.print(
            f"{row.moves:7d} moves  {row.updates:6d} updates  epsilon {row.epsilon:.2f}  loss {row.loss:.5f}  "
            f"return {row.episode_return:+.3f}  validation {row.improvement:+.4f}"
        )

    config = TrainConfig(seed=seed, moves=moves, width=width, use_gains=one_step, advantage_penalty=penalty)
    made_by = {
        "command": shlex.join(["mixrl", *sys.argv[1:]]),
        "seed": str(seed),
        "mixrl": __version__,
        "torch": version("torch"),
    }
    policy = learn(scenes[: len(folders)], scenes[len(folders) :], config, run, made_by, report)
    save_policy(policy, output)
    console.print(f"wrote {output}")
