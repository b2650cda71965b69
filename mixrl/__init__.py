"""mixrl: an automatic mixing assistant.

    import mixrl

    mix = mixrl.mix("my-song", target=-14.0)   # a folder of stems
    mix.write("my-song.wav")
    for move in mix.moves:
        print(move)

Audio arrays are float32 of shape (channels, samples), gains in dB, loudness in LUFS, frequencies in Hz, time in s.
Importing this package is quick: what a name needs is imported when the name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mixrl.errors import InputError, MixrlError, ProcessingError

if TYPE_CHECKING:
    from mixrl.agent.policy import Policy, load_policy
    from mixrl.batching import Batch, batch
    from mixrl.check import Finding, check
    from mixrl.delivery import Delivery
    from mixrl.env import MixEnv, make_env
    from mixrl.meters import Measurement, Meter, measure, measure_array
    from mixrl.mixer import Candidate, Mix, Mixer, deliver_mix, mix
    from mixrl.recipe import LoggedMove, Recipe, read_recipe, write_recipe
    from mixrl.scene import Scene
    from mixrl.session import Session, Stem, load_session
    from mixrl.settings import EqBand, MasterSettings, MixSettings, StripSettings
    from mixrl.worker import Result

__version__ = "0.1.0"

_HOMES = {
    "mixrl.agent.policy": ("Policy", "load_policy"),
    "mixrl.batching": ("Batch", "batch"),
    "mixrl.check": ("Finding", "check"),
    "mixrl.delivery": ("Delivery",),
    "mixrl.env": ("MixEnv", "make_env"),
    "mixrl.meters": ("Measurement", "Meter", "measure", "measure_array"),
    "mixrl.mixer": ("Candidate", "Mix", "Mixer", "deliver_mix", "mix"),
    "mixrl.recipe": ("LoggedMove", "Recipe", "read_recipe", "write_recipe"),
    "mixrl.scene": ("Scene",),
    "mixrl.session": ("Session", "Stem", "load_session"),
    "mixrl.settings": ("EqBand", "MasterSettings", "MixSettings", "StripSettings"),
    "mixrl.worker": ("Result",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Batch",
    "Candidate",
    "Delivery",
    "EqBand",
    "Finding",
    "InputError",
    "LoggedMove",
    "MasterSettings",
    "Measurement",
    "Meter",
    "Mix",
    "MixEnv",
    "MixSettings",
    "Mixer",
    "MixrlError",
    "Policy",
    "ProcessingError",
    "Recipe",
    "Result",
    "Scene",
    "Session",
    "Stem",
    "StripSettings",
    "batch",
    "check",
    "deliver_mix",
    "load_policy",
    "load_session",
    "make_env",
    "measure",
    "measure_array",
    "mix",
    "read_recipe",
    "write_recipe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'mixrl' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
