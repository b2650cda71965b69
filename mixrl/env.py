"""The mixing task as a Gymnasium environment: states of a mix, discrete moves, improvement of the score as reward.

An episode starts from given settings (neutral unless told otherwise). The reward of a move is the rise of the score
less a small cost, so with discount 1 an episode's return is the score at its end minus the score at its start, less the
cost of its moves. ``backend="scene"`` judges each mix in closed form,
``backend="render"`` renders it through pedalboard and measures the audio; states, actions and masks are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from mixrl.closeness import Goal
from mixrl.errors import InputError
from mixrl.excerpt import excerpt
from mixrl.knobs import Knobs, neutral_knobs, to_settings
from mixrl.measures import Measures
from mixrl.moves import KINDS, MOVE_COST, Layout, apply, step_limit
from mixrl.people import informed
from mixrl.scene import Scene
from mixrl.score import score
from mixrl.session import Session
from mixrl.settings import MixSettings
from mixrl.sound_roles import guessed
from mixrl.state import GROUP_FEATURES, MIX_FEATURES, STEM_FEATURES, State, observe

Observation = dict[str, np.ndarray]


def make_env(session: Session, *, backend: str = "scene", target: float = -14.0, ceiling: float = -1.0) -> MixEnv:
    """An environment on a session (a long one's excerpt), judged in closed form ("scene") or on rendered audio
    ("render", much slower). Balance is judged by what people would do."""
    session = excerpt(session)
    scene = informed(guessed(Scene.of(session, target_lufs=target, ceiling_dbtp=ceiling)))
    if backend != "render":
        return MixEnv(scene, backend=backend)
    from mixrl.rendered import Rendered

    return MixEnv(scene, backend=backend, measure=Rendered(session, scene).measures)


class MixEnv(gymnasium.Env[Observation, np.int64]):
    """One session as an environment.

    Observation: dict of float32 arrays ``stems`` (N, F), ``groups`` (G, F), ``mix`` (F,), ``gains`` (actions,) and
    int8 ``mask`` (actions,). Action: a number in the layout of ``moves``. An illegal action, or -1, changes nothing but
    takes its time and earns 0 (``info["illegal"]``). The episode terminates on stop and is truncated at the step limit.

    scene: what the state is seen through. measure: how settings are judged; None for the scene itself
    (``backend="scene"``), else e.g. ``rendered.Rendered(session, scene).measures`` (``backend="render"``). start: the
    settings an episode begins with. gains: whether the state holds every move's exact one-step reward. goal: closeness
    to people's mix, which then is rewarded too (``info["closeness"]``, at most 0): for training, which knows that mix.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's interface)

    def __init__(
        self,
        scene: Scene,
        *,
        backend: str = "scene",
        measure: Callable[[MixSettings], Measures] | None = None,
        start: MixSettings | Knobs | None = None,
        steps: int | None = None,
        locked: Collection[str] = (),
        kinds: Collection[str] = KINDS,
        gains: bool = True,
        goal: Goal | None = None,
    ) -> None:
        if backend not in ("scene", "render"):
            raise InputError(f'backend must be "scene" or "render", not {backend!r}')
        if (backend == "render") != (measure is not None):
            raise InputError('give measure= with backend="render", and only then')
        self.scene = scene
        self.start = self._as_knobs(start or neutral_knobs(scene.facts))
        self.steps = steps or step_limit(len(scene.facts.names))
        self.locked, self.kinds, self.gains = tuple(locked), tuple(kinds), gains
        self._measure, self._goal = measure, goal
        count, groups = len(scene.facts.names), len(scene.facts.groups)
        self.layout = Layout(count, groups)
        self.action_space = spaces.Discrete(self.layout.size)
        size = self.layout.size
        self.observation_space: spaces.Space[Observation] = spaces.Dict(  # type: ignore[assignment]
            {
                "stems": spaces.Box(-3.0, 3.0, (count, STEM_FEATURES)),
                "groups": spaces.Box(-3.0, 3.0, (groups, GROUP_FEATURES)),
                "mix": spaces.Box(-3.0, 3.0, (MIX_FEATURES,)),
                "gains": spaces.Box(-np.inf, np.inf, (size,)),
                "mask": spaces.MultiBinary(size),
            }
        )
        self.knobs = self.start
        self.state: State
        self.score = self.closeness = 0.0
        self._taken = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Back to the start, or to ``options["settings"]``. Nothing is random: the seed changes nothing."""
        super().reset(seed=seed)
        self.knobs = self._as_knobs((options or {}).get("settings", self.start))
        self._taken = 0
        self._look()
        return self._observation(), self._info()

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Make one move. Returns observation, reward, terminated, truncated, info (score, illegal)."""
        action = int(action)
        before = self.score + self.closeness
        illegal = action < 0 or not bool(self.state.mask[action])
        stop = action == self.layout.mix_start
        self._taken += 1
        if not illegal and not stop:
            self.knobs = apply(self.knobs, self.scene.facts, action)
        self._look()
        info = {**self._info(), "illegal": illegal}
        reward = 0.0 if stop or illegal else self.score + self.closeness - before - MOVE_COST
        return self._observation(), reward, stop, not stop and self._taken >= self.steps, info

    def _info(self) -> dict[str, Any]:
        closeness = {} if self._goal is None else {"closeness": self.closeness}
        return {"score": self.score, **closeness}

    @property
    def settings(self) -> MixSettings:
        """The mix as it is."""
        return to_settings(self.knobs, self.scene.facts)

    def _as_knobs(self, start: MixSettings | Knobs) -> Knobs:
        return start if isinstance(start, Knobs) else self.scene.knobs(start)

    def _look(self) -> None:
        left = 1.0 - self._taken / self.steps
        worth = self._goal if self._goal is not None and self._goal.shown else None
        self.state, measures = observe(self.scene, self.knobs, left, self.locked, self.kinds, self.gains, worth)
        self.score = self.state.score
        if self._goal is not None:
            self.closeness = self._goal.now(self.scene, measures)
        if self._measure is not None:
            self.score = float(score(self._measure(self.settings), self.scene.facts))

    def _observation(self) -> Observation:
        s = self.state
        return {"stems": s.stems, "groups": s.groups, "mix": s.mix, "gains": s.gains, "mask": s.mask.astype(np.int8)}
