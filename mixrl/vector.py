"""Many mixing episodes side by side: the vectorised twin of ``MixEnv``.

Every environment plays its own sessions, drawn by a sampler from its own generator, and steps exactly as ``MixEnv``
does. Observations are padded to the same number of stems and groups, as the Q-network takes them. When an episode ends,
the same step begins the next one (``SAME_STEP`` autoreset): the observation is the new episode's first, and the old
one's last is in ``info["final_obs"]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from mixrl.closeness import Goal
from mixrl.env import MixEnv
from mixrl.knobs import Knobs
from mixrl.moves import Layout, padded_columns
from mixrl.scene import Scene
from mixrl.state import GROUP_FEATURES, MIX_FEATURES, STEM_FEATURES, State

Observations = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Task:
    """One episode to play: a scene, the mix it starts from (neutral), the moves it may take (``moves.step_limit``), and
    what is rewarded besides the score."""

    scene: Scene
    start: Knobs | None = None
    steps: int | None = None
    goal: Goal | None = None


Sampler = Callable[[np.random.Generator], Task]


class VectorMixEnv(gymnasium.vector.VectorEnv[Observations, NDArray[np.int64], NDArray[Any]]):
    """``num_envs`` episodes at once.

    Observation: dict of arrays ``stems`` (E, N, F), ``groups`` (E, G, F), ``mix`` (E, F), ``present`` (E, N) bool,
    ``members`` (E, N) index of each stem's group, ``gains`` (E, A), ``mask`` (E, A) bool, with N = most_stems,
    G = most_groups and A the actions of a session of that size, laid out as ``moves.padded_columns`` says. Actions are
    numbers in that padded layout.

    sample: draws an episode's task; each environment has a generator of its own, so that environment i plays the same
    whatever the others do. gains: as for ``MixEnv``, for all environments or for each. Raises ValueError when a task is
    larger than the padding.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self, sample: Sampler, num_envs: int, *, most_stems: int, most_groups: int, gains: bool | Sequence[bool] = True
    ) -> None:
        self.num_envs = num_envs
        self.sample = sample
        self.gains = (gains,) * num_envs if isinstance(gains, bool) else tuple(gains)
        self.most_stems, self.most_groups = most_stems, most_groups
        self.size = Layout(most_stems, most_groups).size
        self.single_action_space = spaces.Discrete(self.size)
        self.action_space = spaces.MultiDiscrete([self.size] * num_envs)
        self.single_observation_space = padded_space(most_stems, most_groups)
        self.observation_space = padded_space(most_stems, most_groups, (num_envs,))
        self.envs: list[MixEnv] = []
        self.generators = [np.random.default_rng([0, i]) for i in range(num_envs)]
        self.returns = np.zeros(num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin a new episode everywhere. An int seeds environment i with (seed, i)."""
        if isinstance(seed, int):
            self.generators = [np.random.default_rng([seed, i]) for i in range(self.num_envs)]
        elif seed is not None:
            self.generators = [
                old if s is None else np.random.default_rng(s) for old, s in zip(self.generators, seed, strict=True)
            ]
        self.envs = [self._begin(i) for i in range(self.num_envs)]
        self.returns[:] = 0.0
        return self.observe(), {"score": np.array([env.score for env in self.envs])}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observations, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """One move everywhere. info: ``score`` (E,) after the move, and where an episode ended (``_final_obs``)
        ``final_obs`` and ``episode_return``."""
        rewards = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, dtype=bool)
        truncated = np.zeros(self.num_envs, dtype=bool)
        own = [self._own_action(env, int(action)) for env, action in zip(self.envs, actions, strict=True)]
        for i, (env, action) in enumerate(zip(self.envs, own, strict=True)):
            _, rewards[i], terminated[i], truncated[i], _ = env.step(action)
        self.returns += rewards
        info: dict[str, Any] = {"score": np.array([env.score for env in self.envs])}
        ended = terminated | truncated
        if ended.any():
            info |= {"final_obs": self.observe(), "_final_obs": ended}
            info |= {"episode_return": np.where(ended, self.returns, 0.0), "_episode_return": ended}
            for ended_now in np.flatnonzero(ended).tolist():
                self.envs[ended_now] = self._begin(ended_now)
            self.returns[ended] = 0.0
        return self.observe(), rewards, terminated, truncated, info

    def observe(self) -> Observations:
        """The padded observation of every environment as it is."""
        return padded([env.state for env in self.envs], self.most_stems, self.most_groups)

    def _begin(self, index: int) -> MixEnv:
        return begin(self.sample(self.generators[index]), self.most_stems, self.most_groups, self.gains[index])

    def _own_action(self, env: MixEnv, action: int) -> int:
        own = own_action(env, action, self.most_stems, self.most_groups)
        if own is None:
            raise ValueError(f"action {action} is of a stem or group that this session does not have")
        return own


def begin(task: Task, most_stems: int, most_groups: int, gains: bool) -> MixEnv:
    """An environment at the start of a task. Raises ValueError when the task is larger than the padding."""
    facts = task.scene.facts
    if len(facts.names) > most_stems or len(facts.groups) > most_groups:
        raise ValueError(f"{len(facts.names)} stems in {len(facts.groups)} groups are more than the padding holds")
    env = MixEnv(task.scene, start=task.start, steps=task.steps, gains=gains, goal=task.goal)
    env.reset()
    return env


def own_action(env: MixEnv, action: int, most_stems: int, most_groups: int) -> int | None:
    """An action of the padded layout as the environment numbers it; None if it is of a stem or group that is not
    there."""
    columns = padded_columns(env.layout.stems, env.layout.groups, most_stems, most_groups)
    own = int(np.searchsorted(columns, action))
    return own if own < len(columns) and columns[own] == action else None


def padded_space(most_stems: int, most_groups: int, lead: tuple[int, ...] = ()) -> spaces.Space[Any]:
    """The space of what ``padded`` makes, with leading axes."""
    size = Layout(most_stems, most_groups).size
    return spaces.Dict(
        {
            "stems": spaces.Box(-3.0, 3.0, (*lead, most_stems, STEM_FEATURES)),
            "groups": spaces.Box(-3.0, 3.0, (*lead, most_groups, GROUP_FEATURES)),
            "mix": spaces.Box(-3.0, 3.0, (*lead, MIX_FEATURES)),
            "present": spaces.Box(0, 1, (*lead, most_stems), dtype=np.bool_),  # type: ignore[type-var]
            "members": spaces.Box(0, max(most_groups - 1, 0), (*lead, most_stems), dtype=np.int64),
            "gains": spaces.Box(-np.inf, np.inf, (*lead, size)),
            "mask": spaces.Box(0, 1, (*lead, size), dtype=np.bool_),  # type: ignore[type-var]
        }
    )


def padded(states: list[State], most_stems: int, most_groups: int) -> Observations:
    """States as one padded batch."""
    count = len(states)
    size = Layout(most_stems, most_groups).size
    found: Observations = {
        "stems": np.zeros((count, most_stems, STEM_FEATURES), dtype=np.float32),
        "groups": np.zeros((count, most_groups, GROUP_FEATURES), dtype=np.float32),
        "mix": np.zeros((count, MIX_FEATURES), dtype=np.float32),
        "present": np.zeros((count, most_stems), dtype=bool),
        "members": np.zeros((count, most_stems), dtype=np.int64),
        "gains": np.zeros((count, size), dtype=np.float32),
        "mask": np.zeros((count, size), dtype=bool),
    }
    for i, state in enumerate(states):
        n, g = len(state.stems), len(state.groups)
        columns = padded_columns(n, g, most_stems, most_groups)
        found["stems"][i, :n], found["groups"][i, :g], found["mix"][i] = state.stems, state.groups, state.mix
        found["present"][i, :n], found["members"][i, :n] = True, state.members
        found["gains"][i, columns], found["mask"][i, columns] = state.gains, state.mask
    return found
