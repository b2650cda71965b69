"""Experience replay over whole episodes, sampled as n-step transitions."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixrl.state import State


@dataclass(frozen=True)
class Episode:
    """T moves: states (T + 1), actions (T), rewards (T). The last state is worth nothing more: either the last move
    was stop, or no time was left, which the state shows."""

    states: tuple[State, ...]
    actions: tuple[int, ...]
    rewards: tuple[float, ...]


@dataclass(frozen=True)
class Transition:
    """n_step_return: the sum of the next n rewards (fewer at the end); done: nothing follows ``later``."""

    state: State
    action: int
    n_step_return: float
    later: State
    done: bool


def transition(episode: Episode, at: int, n: int) -> Transition:
    """The n-step transition that starts at move ``at`` (discount 1)."""
    end = min(at + n, len(episode.actions))
    return Transition(
        episode.states[at],
        episode.actions[at],
        float(sum(episode.rewards[at:end])),
        episode.states[end],
        end == len(episode.actions),
    )


class Replay:
    """The latest episodes, up to ``capacity`` moves; samples moves uniformly."""

    def __init__(self, capacity: int, n: int) -> None:
        self.capacity, self.n = capacity, n
        self._episodes: deque[Episode] = deque()
        self._moves = 0

    def __len__(self) -> int:
        return self._moves

    def add(self, episode: Episode) -> None:
        """Store an episode and drop the oldest ones beyond the capacity."""
        if not episode.actions:
            return
        self._episodes.append(episode)
        self._moves += len(episode.actions)
        while self._moves > self.capacity and len(self._episodes) > 1:
            self._moves -= len(self._episodes.popleft().actions)

    def sample(self, count: int, rng: np.random.Generator) -> Sequence[Transition]:
        """``count`` transitions, with replacement."""
        ends = np.cumsum([len(e.actions) for e in self._episodes])
        picks = rng.integers(0, ends[-1], count)
        found = []
        for pick in picks:
            index = int(np.searchsorted(ends, pick, side="right"))
            start = int(ends[index - 1]) if index else 0
            found.append(transition(self._episodes[index], int(pick) - start, self.n))
        return found
