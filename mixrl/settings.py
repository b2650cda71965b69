"""What a mix is made of: settings for every stem, gains for groups, and the master.

``MixSettings`` is the only thing that passes from deciding to rendering. Everything here is frozen,
checked when it is made (``InputError``), equal by value, hashable, and goes to JSON and back exactly.
Moves make new settings with ``dataclasses.replace`` or the ``with_*`` methods.

Signal order of a strip: tempo, compressor, high-pass, EQ, gain, polarity, pan.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, TypeVar

from mixrl.errors import InputError

VERSION = 1
COMPRESSORS = ("off", "gentle", "medium", "firm")
EQ_KINDS = ("low_shelf", "peak", "high_shelf")
EQ_BANDS = 5
GAIN_RANGE_DB = (-60.0, 30.0)
EQ_GAIN_RANGE_DB = (-24.0, 24.0)
EQ_FREQUENCY_RANGE_HZ = (20.0, 20_000.0)
Q_RANGE = (0.1, 10.0)
HIGHPASS_RANGE_HZ = (20.0, 1000.0)
TEMPO_RATIO_RANGE = (0.5, 2.0)
CEILING_RANGE_DBTP = (-20.0, 0.0)
TARGET_RANGE_LUFS = (-60.0, 0.0)
BPM_RANGE = (20.0, 400.0)
BUTTERWORTH_Q = 1 / math.sqrt(2)

_T = TypeVar("_T")


def _checked(value: Any, low: float, high: float, where: str) -> float:
    """The value as a float; InputError if it is no number in the range."""
    try:
        number = math.nan if isinstance(value, (str, bytes, bool)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not low <= number <= high:  # also false for NaN
        raise InputError(f"{where} must be a number from {low:g} to {high:g}, not {_short(value)}")
    return number


def _number(owner: object, name: str, low: float, high: float) -> None:
    """Check one field of a frozen dataclass and store it as a float."""
    number = _checked(getattr(owner, name), low, high, f"{type(owner).__name__}.{name}")
    object.__setattr__(owner, name, number)


def _choice(owner: object, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(owner, name)
    if value not in choices:
        where = f"{type(owner).__name__}.{name}"
        raise InputError(f"{where} must be one of {', '.join(choices)}, not {_short(value)}")


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 1e18 else "an enormous number"
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True)
class EqBand:
    """One EQ band: ``kind`` of ``EQ_KINDS``, frequency (20..20000 Hz), gain (-24..24 dB), Q (0.1..10)."""

    kind: str
    frequency_hz: float
    gain_db: float = 0.0
    q: float = BUTTERWORTH_Q

    def __post_init__(self) -> None:
        _choice(self, "kind", EQ_KINDS)
        _number(self, "frequency_hz", *EQ_FREQUENCY_RANGE_HZ)
        _number(self, "gain_db", *EQ_GAIN_RANGE_DB)
        _number(self, "q", *Q_RANGE)


NEUTRAL_EQ: tuple[EqBand, ...] = (
    EqBand("low_shelf", 100.0),
    EqBand("peak", 250.0, q=1.0),
    EqBand("peak", 1000.0, q=1.0),
    EqBand("peak", 3500.0, q=1.0),
    EqBand("high_shelf", 8000.0),
)


@dataclass(frozen=True)
class StripSettings:
    """The settings of one stem; the defaults change nothing.

    gain_db: -60..30. pan: -1 (left) to 1. invert: polarity. highpass_hz: the -3 dB point, 20..1000, or
    None for no high-pass. eq: ``EQ_BANDS`` bands in order. compressor: a name in ``COMPRESSORS``.
    tempo_ratio: 0.5..2, above 1 plays faster (pitch kept).

    Raises InputError for anything else.
    """

    gain_db: float = 0.0
    pan: float = 0.0
    invert: bool = False
    highpass_hz: float | None = None
    eq: tuple[EqBand, ...] = NEUTRAL_EQ
    compressor: str = "off"
    tempo_ratio: float = 1.0

    def __post_init__(self) -> None:
        _number(self, "gain_db", *GAIN_RANGE_DB)
        _number(self, "pan", -1.0, 1.0)
        if not isinstance(self.invert, bool):
            raise InputError(f"StripSettings.invert must be true or false, not {_short(self.invert)}")
        if self.highpass_hz is not None:
            _number(self, "highpass_hz", *HIGHPASS_RANGE_HZ)
        bands = tuple(self.eq) if isinstance(self.eq, (tuple, list)) else ()
        if len(bands) != EQ_BANDS or not all(isinstance(band, EqBand) for band in bands):
            raise InputError(f"StripSettings.eq must be {EQ_BANDS} EqBand, not {_short(self.eq)}")
        object.__setattr__(self, "eq", bands)
        _choice(self, "compressor", COMPRESSORS)
        _number(self, "tempo_ratio", *TEMPO_RATIO_RANGE)

    def with_band(self, index: int, **changes: Any) -> StripSettings:
        """These settings with some fields of one EQ band changed, e.g. ``with_band(1, gain_db=-3)``."""
        bands = list(self.eq)
        bands[index] = replace(bands[index], **changes)
        return replace(self, eq=tuple(bands))


@dataclass(frozen=True)
class MasterSettings:
    """The master: gain before the limiter (-60..30 dB), true-peak ceiling (-20..0 dBTP), and the integrated
    loudness to deliver (-60..0 LUFS). With a target the gain is solved for it; None keeps ``gain_db``."""

    gain_db: float = 0.0
    ceiling_dbtp: float = -1.0
    target_lufs: float | None = -14.0

    def __post_init__(self) -> None:
        _number(self, "gain_db", *GAIN_RANGE_DB)
        _number(self, "ceiling_dbtp", *CEILING_RANGE_DBTP)
        if self.target_lufs is not None:
            _number(self, "target_lufs", *TARGET_RANGE_LUFS)


@dataclass(frozen=True)
class MixSettings:
    """A whole mix: settings by stem name, gain (dB) by group name, the group of each member stem, the master.

    The mappings are read-only and sorted by name; a stem need not be in a group. Raises InputError when a
    member is no stem, a stem's group has no gain, a value has the wrong type, or ``version`` is not ours.
    """

    stems: Mapping[str, StripSettings]
    groups: Mapping[str, float] = field(default_factory=dict)
    members: Mapping[str, str] = field(default_factory=dict)
    master: MasterSettings = field(default_factory=MasterSettings)
    version: int = VERSION

    def __post_init__(self) -> None:
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1:
            raise InputError(f"MixSettings.version must be {VERSION}, not {_short(self.version)}")
        if self.version > VERSION:
            raise InputError(
                f"these settings have version {_short(self.version)}; this mixrl reads up to {VERSION}: update mixrl"
            )
        for name in ("stems", "groups", "members"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) or not all(isinstance(key, str) and key for key in value):
                raise InputError(f"MixSettings.{name} must map names to values, not {_short(value)}")
        for name, strip in self.stems.items():
            if not isinstance(strip, StripSettings):
                raise InputError(f"the settings of stem {name!r} must be StripSettings, not {_short(strip)}")
        if not isinstance(self.master, MasterSettings):
            raise InputError(f"MixSettings.master must be MasterSettings, not {_short(self.master)}")
        groups = {
            name: _checked(gain, *GAIN_RANGE_DB, f"the gain of group {name!r}") for name, gain in self.groups.items()
        }
        for stem, group in self.members.items():
            if stem not in self.stems:
                raise InputError(f"group member {stem!r} is not a stem of these settings")
            if not isinstance(group, str) or group not in groups:
                raise InputError(f"stem {stem!r} is in group {_short(group)}, which has no gain in 'groups'")
        object.__setattr__(self, "stems", _frozen(self.stems))
        object.__setattr__(self, "groups", _frozen(groups))
        object.__setattr__(self, "members", _frozen(self.members))

    def __hash__(self) -> int:
        return hash((*self.stems.items(), *self.groups.items(), *self.members.items(), self.master))

    def __reduce__(self) -> tuple[Any, ...]:  # a mapping proxy cannot be pickled
        plain = (dict(self.stems), dict(self.groups), dict(self.members))
        return MixSettings, (*plain, self.master, self.version)

    @classmethod
    def neutral(cls, names: Iterable[str], members: Mapping[str, str] | None = None) -> MixSettings:
        """Settings that change nothing, for these stems and this grouping (stem name -> group name)."""
        members = dict(members or {})
        return cls({name: StripSettings() for name in names}, dict.fromkeys(members.values(), 0.0), members)

    def strip(self, name: str) -> StripSettings:
        """The settings of one stem; InputError if there is none of that name."""
        try:
            return self.stems[name]
        except KeyError:
            raise InputError(f"no stem named {name!r} in these settings; there are: {', '.join(self.stems)}") from None

    def stem_gain_db(self, name: str) -> float:
        """The whole gain of a stem before the master: its own plus its group's, in dB."""
        group = self.members.get(name)
        return self.strip(name).gain_db + (0.0 if group is None else self.groups[group])

    def with_strip(self, name: str, strip: StripSettings) -> MixSettings:
        """These settings with one stem's changed."""
        self.strip(name)
        return replace(self, stems={**self.stems, name: strip})

    def with_group(self, group: str, gain_db: float) -> MixSettings:
        """These settings with one group's gain changed."""
        if group not in self.groups:
            raise InputError(f"no group named {group!r} in these settings; there are: {', '.join(self.groups)}")
        return replace(self, groups={**self.groups, group: gain_db})

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings, ready for JSON."""
        return {
            "version": self.version,
            "stems": {
                name: {**asdict(strip), "eq": [asdict(band) for band in strip.eq]} for name, strip in self.stems.items()
            },
            "groups": dict(self.groups),
            "members": dict(self.members),
            "master": asdict(self.master),
        }

    def to_json(self) -> str:
        """Sorted, indented JSON that ``from_json`` reads back to equal settings, to the last bit."""
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return text + "\n"

    @classmethod
    def from_dict(cls, data: object) -> MixSettings:
        """Settings from what ``to_dict`` made. ``version`` and ``stems`` must be there, other absent keys
        take their defaults; InputError on unknown keys, a future version, and values out of range."""
        values = _object(data, "settings")
        for key in ("version", "stems"):
            if key not in values:
                raise InputError(f"the settings have no {key!r}: is this a mixrl recipe?")
        if isinstance(values["version"], int) and values["version"] > VERSION:
            return cls({}, version=values["version"])  # raises: before a new key is called unknown
        _object(values, "settings", {f.name for f in fields(cls)})
        stems = {name: _strip(value, name) for name, value in _object(values["stems"], "stems").items()}
        master = _made(MasterSettings, values.get("master", {}), "master")
        return cls(
            stems,
            _object(values.get("groups", {}), "groups"),
            _object(values.get("members", {}), "members"),
            master,
            values["version"],
        )

    @classmethod
    def from_json(cls, text: str) -> MixSettings:
        """Settings from ``to_json``'s text; InputError on bad JSON (NaN, a repeated key) and as
        ``from_dict``."""
        return cls.from_dict(parse_json(text, "settings"))


def parse_json(text: str, what: str) -> Any:
    """JSON, strictly: no NaN or Infinity, no key twice. InputError, opening with ``what``, if it is not."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key appears twice")
        return found

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not a number")

    def whole(digits: str) -> int:
        if len(digits) > 1000:  # Python itself stops at some thousands, with words of its own
            raise ValueError(f"a number of {len(digits)} digits")
        return int(digits)

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=constant, parse_int=whole)
    except (ValueError, RecursionError, TypeError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{what}: not valid JSON: {reason}") from None


def _frozen(mapping: Mapping[str, _T]) -> Mapping[str, _T]:
    return MappingProxyType(dict(sorted(mapping.items())))


def _object(data: object, where: str, known: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise InputError(f"{where} must be an object, not {_short(data)}")
    unknown = sorted(set(data) - known) if known is not None else []
    if unknown:
        raise InputError(f"{where}: unknown key {_short(unknown[0])}")
    return dict(data)


def _made(kind: Callable[..., _T], data: object, where: str, **given: Any) -> _T:
    """A dataclass from a JSON object; messages say where in the file the fault is."""
    values = {**_object(data, where, {f.name for f in fields(kind)}), **given}  # type: ignore[arg-type]
    try:
        return kind(**values)
    except TypeError:
        raise InputError(f"{where}: a required key is missing") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _strip(data: object, name: str) -> StripSettings:
    where = f"stem {name!r}"
    values = _object(data, where)
    if "eq" not in values:
        return _made(StripSettings, values, where)
    if not isinstance(values["eq"], (list, tuple)):
        raise InputError(f"{where}: eq must be a list of {EQ_BANDS} bands")
    eq = tuple(_made(EqBand, band, f"{where}, EQ band {i}") for i, band in enumerate(values["eq"], 1))
    return _made(StripSettings, values, where, eq=eq)
