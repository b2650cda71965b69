"""``mixrl train``: train a mixing policy on folders of stems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Session folders, or data sets made by `mixrl dataset`.", show_default=False),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the policy goes (.safetensors).", show_default=False)
    ],
    validate: Annotated[
        list[Path], typer.Option(help="Session folder to choose the best policy on; repeatable.", show_default=False)
    ] = [],  # noqa: B006  (Typer's way to say "none")
    algorithm: Annotated[str, typer.Option(help="dqn, pqn, or tabular (a baseline).")] = "dqn",
    one_step: Annotated[
        bool, typer.Option(help="Give the network each move's exact one-step gain; otherwise it predicts it.")
    ] = False,
    moves: Annotated[
        int | None, typer.Option(min=1, help="Moves to make in all [200,000, or as many as --minutes allow].")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after so long.", show_default=False)] = None,
    discount: Annotated[float, typer.Option(min=0.0, max=1.0, help="What the value of the next state counts.")] = 0.7,
    n_step: Annotated[int, typer.Option(min=1, max=20, help="Rewards that a target of DQN adds up.")] = 3,
    double: Annotated[bool, typer.Option(help="Double DQN.")] = True,
    pool: Annotated[str, typer.Option(help="How stems are pooled: mean+max, mean, or attention.")] = "mean+max",
    width: Annotated[int, typer.Option(min=8, max=512, help="Width of the network's layers.")] = 96,
    envs: Annotated[int | None, typer.Option(min=1, max=1024, help="Environments in parallel [32; PQN 64].")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    run: Annotated[
        Path | None, typer.Option(help="Folder for log, learning curve and checkpoint [OUTPUT-run].")
    ] = None,
    people: Annotated[
        float, typer.Option(min=0.0, help="What closeness to people's mix counts in the reward, beside the score.")
    ] = 0.2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that remembers sessions listened to [RUN/scenes].")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Sessions to listen to at a time.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing policy and run.")] = False,
) -> None:
    """Train a policy by Double DQN (needs the train extra: pip install "mixrl[train]").

    Episodes are played on whole sessions and on random parts of them with faders, EQ, pan and polarity knocked about;
    each move is rewarded by how much it improves the score and brings the mix closer to what people left. The policy
    that does best on validation is kept: on the validation sessions of the data set, on those given, or else on fixed
    starts of the training sessions. Test sessions are never read. One process uses one core; the same command and seed
    give the same policy on one machine.
    """
    from importlib.metadata import version
    from importlib.util import find_spec

    from mixrl.errors import InputError

    for package in ("torch", "sklearn"):
        if find_spec(package) is None:
            raise InputError(f'training needs {package}: install it with pip install "mixrl[train]"')
    if output.exists() and not force:
        raise InputError(f"{output}: exists already: add --force to overwrite it, or give another name")
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: no such folder: make it first")
    run = run or output.with_name(f"{output.stem}-run")

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from mixrl import __version__
    from mixrl.agent.config import Practice, TrainConfig
    from mixrl.agent.material import load_material, session_folders
    from mixrl.agent.tasks import environments_of, fingerprint
    from mixrl.agent.train import CHECKPOINT, Row
    from mixrl.agent.train import train as learn

    if (run / CHECKPOINT).exists() and not resume and not force:
        raise InputError(f"{run}: holds a run already: go on with --resume, start over with --force, or give --run")
    config = TrainConfig.of(
        algorithm, one_step, seed=seed, discount=discount, n_step=n_step, double=double, pool=pool, width=width,
        practice=Practice(people=people),
        **({"moves": 10**12 if minutes else 200_000} if moves is None else {"moves": moves}),
        **({} if envs is None else {"envs": envs}),
    )  # fmt: skip
    training = session_folders(folders, "train")
    checking = [*session_folders(folders, "validation"), *validate]

    console = Console(stderr=True)
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=console) as bar:
        listening = bar.add_task("listening", total=len(training) + len(checking))
        material = load_material(
            [*training, *checking], cache or run / "scenes", jobs,
            lambda name: bar.update(listening, advance=1, description=f"listened to {name}"),
        )  # fmt: skip
    material, held = material[: len(training)], material[len(training) :]
    environments, starts = environments_of(config, material, held or material)
    made_by = {
        "command": command_line(), "seed": str(seed), "mixrl": __version__, "torch": version("torch"),
        "numpy": version("numpy"),
    }  # fmt: skip
    with Progress(*columns, console=console) as bar:
        going = bar.add_task("training", total=None if moves is None and minutes else config.moves)

        def report(done: int, row: Row | None) -> None:
            bar.update(going, completed=done)
            if row is not None:
                bar.update(going, description=f"validation {row.improvement:+.4f}")
                bar.console.print(row.line(), highlight=False, soft_wrap=True)

        policy = learn(
            config, environments, starts, run, made_by,
            tasks=fingerprint([*material, *held]), minutes=minutes, resume=resume, report=report,
        )  # fmt: skip
    policy.save(output)
    console.print(f"wrote {output}, trained for {policy.made_by['moves']} moves", highlight=False, soft_wrap=True)


def command_line() -> str:
    """The command as it was typed."""
    import shlex
    import sys

    return shlex.join(["mixrl", *sys.argv[1:]])
