"""What a training run is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mixrl.agent.policy import POOLS
from mixrl.errors import InputError

ALGORITHMS = ("dqn", "pqn", "tabular")


@dataclass(frozen=True)
class Practice:
    """How starts are drawn. real_share: of real sessions among the draws, where there are both. whole_share: of whole,
    undamaged sessions; the others are fewest to most random stems of one, broken (see ``tasks.damaged``). most_stems: a
    session of more audible stems is never taken whole. rule_share: of starts at ``rules.starting_mix``; the others are
    at no change. nameless_share: of sessions in which nobody knows what stems are called.

    Breaking: faders off by up to one of spreads_db either way, or, in level_share each, all stems brought to one
    loudness, or to one peak; with the chance eq_share EQ, one of four kinds: every band off by up to eq_db either way,
    a tilt, a shelf, a resonance; with pan_share half of the stems off their place, all in the centre, or left and right
    swapped, with flip_share a stem with its polarity turned.
    people: what closeness to people's mix counts in the reward, beside the score; 0 for nothing."""

    real_share: float = 0.3
    whole_share: float = 0.2
    rule_share: float = 0.7
    nameless_share: float = 0.3
    fewest: int = 3
    most: int = 12
    most_stems: int = 24
    spreads_db: tuple[float, ...] = (0.0, 3.0, 6.0, 12.0, 12.0)
    level_share: float = 0.1
    eq_share: float = 0.5
    eq_db: float = 6.0
    pan_share: float = 0.2
    flip_share: float = 0.1
    people: float = 0.2


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run; nothing in it depends on how long the run is, so a run can be continued.

    algorithm: one of ``ALGORITHMS``. envs: environments in parallel, restarted together every ``restart_every`` steps
    (there a run can be saved and continued exactly). Environment i explores with the probability epsilon ** (1 +
    i / (envs - 1) * epsilon_power), as in Ape-X (D. Horgan et al., 2018). Validation every ``validate_every`` moves, on
    ``validation_starts`` of each session.

    Network: width, use_gains (it sees one-step gains; otherwise it learns to predict them, from the share
    ``look_ahead`` of the environments that look), pool (one of ``policy.POOLS``), learning_rate. discount: what the
    value of the next state counts. Moves mostly add up, so that undiscounted each of them could as well be made later,
    and the differences between Q-values that choose among them would be lost in their errors.

    DQN: one update of ``batch`` n_step transitions every ``update_every`` moves, once ``warm_up`` moves are stored;
    the replay holds ``capacity`` moves; the target network moves ``target_rate`` of the way after every update.

    PQN: updates on ``rollout`` steps of all environments, ``epochs`` times over in ``minibatches`` parts, towards
    Q(lambda_) returns.

    Tabular: every update moves an entry table_rate of the way; what comes after counts table_discount.
    """

    algorithm: str = "dqn"
    seed: int = 0
    moves: int = 200_000
    envs: int = 32
    restart_every: int = 256
    validate_every: int = 10_000
    validation_starts: int = 3
    epsilon: float = 0.3
    epsilon_power: float = 5.0

    width: int = 96
    use_gains: bool = True
    look_ahead: float = 1.0
    pool: str = "mean+max"
    learning_rate: float = 3e-4
    discount: float = 0.7

    n_step: int = 3
    double: bool = True
    batch: int = 128
    update_every: int = 4
    warm_up: int = 2_000
    capacity: int = 40_000
    target_rate: float = 0.005

    rollout: int = 16
    lambda_: float = 0.65
    epochs: int = 2
    minibatches: int = 8

    table_rate: float = 0.1
    table_discount: float = 0.9

    practice: Practice = field(default_factory=Practice)

    @classmethod
    def of(cls, algorithm: str, use_gains: bool, **changes: Any) -> TrainConfig:
        """The settings that do best for an algorithm, with or without one-step gains, and changes to them. The table
        never looks at one-step gains."""
        found: dict[str, Any] = {"algorithm": algorithm, "use_gains": use_gains and algorithm != "tabular"}
        found |= {"envs": 64} if algorithm == "pqn" else {}
        if algorithm == "dqn" and not use_gains:  # every look teaches it all moves: fewer updates, larger steps
            found |= {"learning_rate": 1e-3, "update_every": 8, "capacity": 80_000, "validate_every": 20_000}
        return cls(**{**found, **changes})

    @property
    def looks(self) -> tuple[bool, ...]:
        """Which environments look at all one-step successors."""
        share = 1.0 if self.use_gains else 0.0 if self.algorithm == "tabular" else self.look_ahead
        return tuple(int((i + 1) * share) > int(i * share) for i in range(self.envs))

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise InputError(f"{self.algorithm}: no such algorithm: choose one of {', '.join(ALGORITHMS)}")
        if self.pool not in POOLS:
            raise InputError(f"{self.pool}: no such pool: choose one of {', '.join(POOLS)}")
        if self.algorithm == "pqn" and self.restart_every % self.rollout:
            raise InputError("restart_every must be a multiple of rollout: rollouts end where environments restart")
