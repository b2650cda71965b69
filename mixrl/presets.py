"""Delivery presets: integrated loudness (LUFS) and true-peak ceiling (dBTP) that platforms and broadcasters ask for."""

from __future__ import annotations

PRESETS: dict[str, tuple[float, float]] = {
    "spotify": (-14.0, -1.0),
    "apple-music": (-16.0, -1.0),
    "youtube": (-14.0, -1.0),
    "tidal": (-14.0, -1.0),
    "amazon": (-14.0, -2.0),
    "deezer": (-15.0, -1.0),
    "ebu-r128": (-23.0, -1.0),
    "atsc-a85": (-24.0, -2.0),
    "netflix-dialogue": (-27.0, -2.0),
    "podcast": (-16.0, -1.0),
    "club": (-8.0, -1.0),
}
