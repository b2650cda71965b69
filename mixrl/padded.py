"""The mixing task as other libraries want it: one flat observation, one fixed number of actions, sessions of any size.

For Stable-Baselines3 and the like, whose networks take a vector of fixed length. Each episode may be another session;
what it has fewer of than the padding is zeros and illegal actions.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mixrl.env import MixEnv
from mixrl.moves import Layout
from mixrl.state import GROUP_FEATURES, MIX_FEATURES, STEM_FEATURES
from mixrl.vector import Sampler, begin, own_action, padded

Float = NDArray[np.float32]


class PaddedMixEnv(gymnasium.Env[Float, np.int64]):
    """``MixEnv`` on padded sessions.

    Observation: float32 vector, the parts of ``VectorMixEnv``'s one after the other: stems, groups, mix, present,
    mask, the stems' groups (one column a group) and, with gains, every action's exact one-step reward. Action: a
    number in the layout of ``Layout(most_stems, most_groups)``; ``action_masks()`` says which are legal, under the
    name that sb3-contrib's MaskablePPO asks for. An illegal action changes nothing but takes its time and earns 0
    (``info["illegal"]``).

    sample: draws an episode's task from the environment's generator, which ``reset(seed=...)`` seeds. Reset raises
    ValueError when a task is larger than the padding.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's interface)

    def __init__(self, sample: Sampler, *, most_stems: int, most_groups: int, gains: bool = True) -> None:
        self.sample, self.gains = sample, gains
        self.most_stems, self.most_groups = most_stems, most_groups
        self.layout = Layout(most_stems, most_groups)
        self.action_space = spaces.Discrete(self.layout.size)
        inside = most_stems * (STEM_FEATURES + 1 + most_groups) + most_groups * GROUP_FEATURES + MIX_FEATURES
        bounds = np.full(inside + self.layout.size * (1 + gains), 3.0, dtype=np.float32)
        bounds[inside + self.layout.size :] = np.inf  # rewards
        self.observation_space = spaces.Box(-bounds, bounds)
        self.env: MixEnv

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Float, dict[str, Any]]:
        """Begin an episode on the next task. info: ``score``."""
        super().reset(seed=seed)
        self.env = begin(self.sample(self.np_random), self.most_stems, self.most_groups, self.gains)
        return self._observation(), {"score": self.env.score}

    def step(self, action: np.int64 | int) -> tuple[Float, float, bool, bool, dict[str, Any]]:
        """Make one move. info: ``score``, ``illegal``. Raises ValueError for a number that is no action."""
        if not 0 <= action < self.layout.size:
            raise ValueError(f"action {action} of {self.layout.size}")
        own = own_action(self.env, int(action), self.most_stems, self.most_groups)
        _, reward, terminated, truncated, info = self.env.step(-1 if own is None else own)
        return self._observation(), reward, terminated, truncated, info

    def action_masks(self) -> NDArray[np.bool_]:
        """(actions,) bool: the legal ones."""
        return self._parts()["mask"]

    def _parts(self) -> dict[str, NDArray[Any]]:
        batch = padded([self.env.state], self.most_stems, self.most_groups)
        return {name: part[0] for name, part in batch.items()}

    def _observation(self) -> Float:
        parts = self._parts()
        belongs = (parts["members"][:, None] == np.arange(self.most_groups)) & parts["present"][:, None]
        found = [parts["stems"], parts["groups"], parts["mix"], parts["present"], parts["mask"], belongs]
        return np.concatenate([part.ravel() for part in found + [parts["gains"]] * self.gains], dtype=np.float32)
