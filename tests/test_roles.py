"""Roles from messy names: real ones, as bands, DAWs and multitrack libraries write them."""

from __future__ import annotations

import pytest

from mixrl.roles import LEVELS, ROLES, group_of_role, role_of

NAMES = {
    "vocal": "vox_lead, Lead Vocal, LdVox, Vocals/01, Tom vox, 12_VoxMain, LV, Rap 2, Bass vox",
    "backing": "bgvox_aahh, bgvox_harmony, bgvox_3, bgvox_echo, BGVOX OOH, BV Harm 1, bvs, Choir, BGV/Vox 1, "
    "Background Vocals, backing_vox, Lead Vocal Dbl, adlibs",
    "kick": "kick, off_kick, 9_kick_hard01.ogg, Tr77_kick, 7_Tr77_kick.ds, 12_bassdrum04.ogg, 5_BD 03, 5_old_kik.ds, "
    "22_K_8bit.ds, Kick In, KickOut, 808 Kick, bass drum, Kick Click, 4_Dirty World BD",
    "snare": "snare_build, 9_U don_t know - Snare, 9_it_s_like_that_snare.ds, 7_sidestick01.ogg, 19_S_8bit.ds, SN TOP, "
    "7_electronic_rim.ds, 8_clap_layer.ds, 10_Handclap, 6_electro_snare_layer.ds",
    "hats": "hh, alt_hh, hh_glitch, scratch_hats, 11_Little C-HiHat, 9_Closed HihHat 03, 8_Sleepy HH, OHH, "
    "15_hihat_opened02.ogg, 10_lighthat.ds, 14_live_sound_hh.ds, Hi-Hat",
    "toms": "toms, Floor Tom, Rack 1, 18_Syntom_1.ds",
    "cymbals": "OH, OH L, Overheads, crash_fade, 14_Cymbal Crash, 13_crash02.ogg, Ride",
    "drums": "K & SN, kick+snare, house_beat, break, break_beat, big_beat, main_drums, drums_break_2, fill_scratch, "
    "drums/01, Room, Drum Mix, Loop 120, Drum Sub",
    "percussion": "11_shaker01.ogg, Tambourine, Perc Loop, Cowbell, 13_linn_cga1.ds, Congas",
    "bass": "SY BASS, sy_bass, bassguitar, Bass DI, Synth Bass, 3_sub, 2_dub bass, 6_rave_bass01.ogg, 808, "
    "17_mute_bass.ds",
    "guitar": "01_Gtr DI L, leadguitar, Acoustic, EGtr 1, ElecGtr1, 2_steel_guitar01.ogg, Vox AC30 gtr, Lead Gtr",
    "keys": "Rhodes, clav, 1_E-Piano, 9_Rock Organ, Hammond B3, Wurli, Piano L, Vox Continental",
    "synth": "minilogue_synth, arp_dist, pluck, sine, beeps, 1_slow attack synth, 5_AnalogTimes 2, Lead",
    "pad": "echo_pad, melody_pad, Pads",
    "strings": "5_strings, 6_strings top, 3_Strings (high), 1_orion_string01.ogg, Str Vln 1, Fiddle",
    "brass": "horns, Sax, 3_Trumpet, Bass Trombone, Fr Horn",
    "fx": "TRANSISTION, edm_build, sweeps, 7_sweep, microcosm_effect, 5_Noise Clip, 17_Boom.ds, Vox Verb, Whoosh",
}
NAMELESS = "12_Default preset, 2_Sample track, 10_Supernova, song, Audio 12, Track 01, Mix, click, Ohio, that, 1_2"


@pytest.mark.parametrize(("role", "name"), [(r, n.strip()) for r, names in NAMES.items() for n in names.split(",")])
def test_role_of_a_real_name(role: str, name: str) -> None:
    assert role_of(name) == role


@pytest.mark.parametrize("name", NAMELESS.split(", "))
def test_a_name_that_says_nothing_has_no_role(name: str) -> None:
    assert role_of(name) is None


def test_every_role_has_a_group_and_a_level_within_its_range() -> None:
    assert set(LEVELS) == set(ROLES) == set(NAMES)
    for role, (mean, low, high) in LEVELS.items():
        assert low < mean < high < 0.0
        assert group_of_role(role) in ("vocals", "drums", "bass", "music")
    groups = [group_of_role(role) for role in ("vocal", "hats", "bass", "pad", None)]
    assert groups == ["vocals", "drums", "bass", "music", "music"]
