"""What a stem is, from its name alone, and how loud such stems usually are. Text and tables, no audio."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixrl.session import Session

ROLES = (
    "vocal", "backing", "kick", "snare", "hats", "toms", "cymbals", "drums", "percussion",
    "bass", "guitar", "keys", "synth", "pad", "strings", "brass", "fx",
)  # fmt: skip

# The first that matches wins. Names come in as lower-case words and numbers, one space apart: "BGVox_02" is
# "bgvox 02", "E-Piano" is "e piano". Hence the order: what is most specific, then what names a part, then what
# only names a kind of sound.
_VOICE = r"vox\w*|\w*vocals?|voc|vocs|voice\w*|vx|ldv|lv"
_PATTERNS: tuple[tuple[str, str], ...] = (
    ("fx", r"fx|efx|sfx|reverb\w*|verb|rvb"),  # an effect's return, whatever was sent into it
    ("guitar", r"vox ac|(gtr|guitar) .*vox|vox .*(gtr|guitar)"),  # Vox is a maker of amplifiers and organs, too
    ("keys", r"vox (organ|continental)"),
    ("backing", r"b(g|k|ck|kg)? ?v(ox|oc|ocs|ocal|ocals|x)?s?|bgs|choirs?|\w*adlibs?|gang\w*|oohs?|a+h+s?|ad libs?"),
    ("backing", rf"(?=.*\b(back\w*|bkg|bg|harm\w*|dbl\w*|doubles?|doubled|background)\b).*\b({_VOICE})"),
    ("backing", r"backing|harmon(y|ies)"),
    ("vocal", rf"{_VOICE}|sing\w*|rap|rapper|acapella"),
    ("kick", r"kick\w*|kik|kck|kk|bd|bass ?drum\w*|bombo"),
    ("snare", r"\w*snares?\w*|sn|sd|snr|rim|rimshots?|side ?sticks?|\w*claps?"),
    ("hats", r"(?!that|what|chat)\w*hats?|[oc]?hh|hihats?\w*"),
    ("brass", r"brass\w*|horns?|\w*horn|trumpets?|tpts?|trombones?|tbn|\w*sax\w*|tuba|flugel\w*|flutes?|clarinets?"),
    ("brass", r"oboes?|bassoons?|wood ?winds?|winds|harmonicas?"),
    ("percussion", r"perc\w*|shakers?|tamb\w*|congas?|cga|bongos?|cow ?bells?|claves?|guiro|triangles?|djembe"),
    ("percussion", r"cajon|cabasa|maracas?|timbales?|timpani|wood ?blocks?|tabla\w*|snaps?|beat ?box\w*|agogo|stomps?"),
    ("drums", r"drums? sub\w*"),
    ("bass", r"(?!.*\b(guitar|gtr) .*(strings?)\b)\w*bass\w*|bs|sub|subs|upright|contrabass"),
    ("guitar", r"\w*guitars?|\w*guit|\w*gtrs?|gt|gts|[ea]g|banjos?|mandolins?|ukul?eles?|uke|dobro|(pedal|lap) steel"),
    ("guitar", r"strat|telecaster|tele|les paul"),
    ("toms", r"\w*toms?|floor|rack|ft"),
    ("cymbals", r"cym\w*|crash\w*|rides?|splash\w*|china|ohs?|over ?heads?"),
    ("strings", r"strings?|strs?|violins?|vlns?|violas?|vlas?|cellos?|celli|vc|fiddles?|harp|orch\w*"),
    ("keys", r"\w*pianos?|pno|keys?|keyboards?|kbds?|kys|rhodes|wurl\w*|ep|organs?|hammond|b 3|clav\w*|harpsichord"),
    ("keys", r"celest[ae]|mellotron|accordion|vibes|vibraphone|marimba|glock\w*|xylo\w*|bells?|melodica|nord"),
    ("pad", r"pads?|drones?|atmos\w*|textures?|ambient"),
    ("synth", r"\w*synth\w*|syn|sy|syns|arp\w*|pluck\w*|seq\w*|moog|juno|jupiter|minilogue|prophet|dx 7|saws?|\w*saw"),
    ("synth", r"square|sine|analog\w*|poly\w*|stabs?|beeps?|blips?|bleeps?"),
    ("drums", r"\w*drums?\w*|kit|\w*beats?|breaks?|fills?|grooves?|909|707|rooms?|rm"),
    ("bass", r"808s?"),
    ("fx", r"effects?|risers?|rise|sweeps?|impacts?|booms?|noises?|trans\w*|whoosh\w*|\w*lifters?|builds?|build ?ups?"),
    ("fx", r"hits?|ambience|foley|scratch\w*|vinyl|glitch\w*|reversed?|swells?|crowd|applause|delays?|dly|echo\w*"),
    ("synth", r"leads?"),
    ("guitar", r"acoustics?|electrics?|ac|riffs?"),
    ("drums", r"loops?"),
    ("kick", r"k( \d+)?( \w+)?$"),
    ("snare", r"s( \d+)?( \w+)?$"),
)
_COMPILED = tuple((role, re.compile(rf"\b({pattern})(\b|$)")) for role, pattern in _PATTERNS)
_PIECES = frozenset(["kick", "snare", "hats", "toms", "cymbals"])
_KICK_AND_SNARE = re.compile(r"\bk(ick)? (and |n |\+ )?(s|sn|snare)\b")


def role_of(name: str) -> str | None:
    """The role (one of `ROLES`) that a stem's name tells, or None: "drums/9_kick_hard01.ogg" is "kick".

    Of a path, the last part decides; a part that says nothing leaves it to the folder above.
    """
    found: str | None = None
    for part in reversed(name.split("/")):
        role = _role_of_words(_words(part))
        found = role if found is None or (found, role) == ("vocal", "backing") else found
    return found


def _words(text: str) -> str:
    text = re.sub(r"\.(wav|flac|aiff?|ogg|mp3|ds)$", "", text, flags=re.I)  # "kick02.ogg" as a track's name
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)  # KickIn
    text = re.sub(r"([A-Za-z])(\d)|(\d)([A-Za-z])", r"\1\3 \2\4", text)  # snare01, 8bit
    words = re.findall(r"[^\W\d_]+|\d+", text.casefold())
    if len(words) > 1 and words[0].isdigit() and len(words[0]) < 3:  # a track number
        words = words[1:]
    return " ".join(words)


def _role_of_words(words: str) -> str | None:
    matching = [role for role, pattern in _COMPILED if pattern.search(words)]
    if not matching:
        return None
    pieces = {role for role in matching if role in _PIECES}
    if (matching[0] in _PIECES and len(pieces) > 1) or _KICK_AND_SNARE.search(words):
        return "drums"
    return matching[0]


def group_of_role(role: str | None) -> str:
    """The group that a role is mixed in: "vocals", "drums", "bass" or "music" (all else, and no role)."""
    if role in ("vocal", "backing"):
        return "vocals"
    if role in _PIECES or role in ("drums", "percussion"):
        return "drums"
    return "bass" if role == "bass" else "music"


@dataclass(frozen=True)
class Known:
    """What is known of a stem. by: what tells its role, "mixrl.toml", "name" or "sound", None where nothing does;
    group: what it is mixed in."""

    stem: str
    role: str | None
    by: str | None
    group: str


def known_of(session: Session, guesses: Sequence[str | None] | None = None) -> tuple[Known, ...]:
    """What is known of each of a session's stems, and how. guesses: roles by sound (see ``sound_roles``), if somebody
    listened."""
    found = []
    for stem, guess in zip(session.stems, guesses or (None,) * len(session.stems), strict=True):
        named = stem.role or role_of(stem.name)
        role = named or guess
        by = "mixrl.toml" if stem.role else "name" if named else "sound" if guess else None
        found.append(Known(stem.name, role, by, stem.group or group_of_role(role)))
    return tuple(found)


_REST_OF_DRUMS = (-12.7, -18.0, -7.3)
_ACCOMPANIMENT = (-9.5, -13.4, -5.4)

LEVELS: dict[str, tuple[float, float, float]] = {
    "vocal": (-2.6, -4.2, -1.0),
    "bass": (-9.5, -13.4, -5.4),
    "kick": (-13.1, -17.8, -8.5),
    "snare": (-16.8, -23.2, -10.3),
    "hats": _REST_OF_DRUMS,
    "toms": _REST_OF_DRUMS,
    "cymbals": _REST_OF_DRUMS,
    "percussion": _REST_OF_DRUMS,
    "drums": (-9.1, -14.3, -3.8),
    "fx": _REST_OF_DRUMS,
    **dict.fromkeys(("backing", "guitar", "keys", "synth", "pad", "strings", "brass"), _ACCOMPANIMENT),
}
"""Loudness against the whole mix in LU: (mean, low, high), De Man et al., "An analysis and evaluation of audio
features for multitrack music mixtures", ISMIR 2014, for vocal, bass, kick, snare and the rest of the drums.

What the paper lacks is filled in from it: each of hats, toms, cymbals, percussion and fx gets the rest of the
drums; "drums", a whole kit in one stem, the power sum of kick, snare and rest; backing vocals and all pitched
accompaniment the bass's, the nearest pitched part. (What those five leave of the mix's power is -6.7 LU.)
"""
