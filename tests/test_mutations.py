"""Valid files with something in them changed: each is read, or refused with MixrlError; nothing else comes of it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from fuzz.targets import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
FEW = settings(
    max_examples=250, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
EDGES = (0, 1, 2, 3, 7, 8, 16, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**62, 2**64 - 1)


def whole(target: str, *names: str) -> st.SearchStrategy[bytes]:
    return st.sampled_from([(CORPUS / target / name).read_bytes() for name in names])


@st.composite
def mutated(draw, files: st.SearchStrategy[bytes], first: int):
    """Up to four changes, most of them in the first bytes: a number overwritten, bytes cut out, put in or doubled."""
    data = bytearray(draw(files))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(min(first, len(data)) - 1, 0)) | st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(["number", "byte", "cut", "end", "insert", "double"]))
        if kind == "number":
            form, value = draw(st.sampled_from("BHIQ")), draw(st.sampled_from(EDGES))
            size = struct.calcsize(f"<{form}")
            data[at : at + size] = struct.pack(f"<{form}", value % 256**size)
        elif kind == "byte":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif kind == "end":
            del data[at:]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=20))
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 60))]
    return bytes(data)


@FEW
@given(mutated(whole("loaders", "pcm16.wav", "pcm24.wav", "float.wav", "rf64.wav", "bext.wav", "wavex.wav"), 110))
def test_wav_headers(data):
    run("loaders", data)


@FEW
@given(mutated(whole("loaders", "flac.flac", "flac24.flac", "aiff.wav", "adpcm.wav"), 60))
def test_other_audio(data):
    run("loaders", data)


@FEW
@given(mutated(whole("recipe", "whole.json", "settings.json"), 10_000))
def test_the_bytes_of_recipes(data):
    run("recipe", data)


@FEW
@given(mutated(whole("policy", "whole.safetensors"), 2000))
def test_the_bytes_of_policies(data):
    run("policy", data)


ANY = st.recursive(
    st.none() | st.booleans() | st.sampled_from([10**30, 2**63, -1, 0, 96]) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
_POLICY = (CORPUS / "policy" / "whole.safetensors").read_bytes()
_LENGTH = struct.unpack("<Q", _POLICY[:8])[0]
HEADER = json.loads(_POLICY[8 : 8 + _LENGTH])
BYTES = {"F32": 4, "F64": 8, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U64": 8, "C64": 8, "none": 1}


@FEW
@given(
    st.sampled_from(sorted(set(HEADER) - {"__metadata__"})),
    st.sampled_from(sorted(BYTES)) | st.none(),
    st.none() | st.lists(st.sampled_from([0, 1, 2, 92, 2**32, 2**62]), max_size=70),
    st.none() | st.dictionaries(st.sampled_from(["format", "size"]), st.text(max_size=9) | ANY.map(json.dumps)),
    st.none() | ANY,
    st.none() | st.tuples(st.sampled_from(["width", "pool", "use_gains", "stem_moves"]), ANY),
)
def test_the_headers_of_policies(name, kind, shape, about, entry, size):
    header = json.loads(json.dumps(HEADER))
    if kind is not None:
        start, stop = header[name]["data_offsets"]
        header[name] |= {"dtype": kind, "shape": [(stop - start) // BYTES[kind]]}  # as many bytes as there are
    if shape is not None:
        header[name]["shape"] = shape
    if size is not None:
        given_sizes = {**json.loads(header["__metadata__"]["size"]), size[0]: size[1]}
        header["__metadata__"]["size"] = json.dumps(given_sizes)
    if about is not None:
        header["__metadata__"] |= about
    if entry is not None:
        header[name] = entry
    text = json.dumps(header).encode()
    run("policy", struct.pack("<Q", len(text)) + text + _POLICY[8 + _LENGTH :])


KEYS = ("target", "ceiling", "bpm", "preset", "lock", "include", "roles", "groups", "other")
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map(json.dumps)
NUMBERS = ["-14", "0.5", "1e999", "nan", "-inf", "0x" + "f" * 400, "9" * 4400, "1979-05-27", "07:32:00", "true"]
VALUES = st.recursive(
    st.sampled_from(NUMBERS) | WORDS,
    lambda inner: st.lists(inner, max_size=3).map(lambda them: f"[{', '.join(them)}]")
    | st.lists(st.tuples(WORDS, inner), max_size=2).map(lambda them: f"{{{', '.join(f'{k} = {v}' for k, v in them)}}}"),
    max_leaves=4,
)


@FEW
@given(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=4), st.sampled_from(["", "[roles]\n", "[groups]\n"]))
def test_the_values_of_mixrl_toml(lines, table):
    text = table + "".join(f"{key} = {value}\n" for key, value in lines)
    run("toml", text.encode())


@FEW
@given(mutated(whole("toml", "whole.toml", "preset.toml"), 10_000))
def test_the_bytes_of_mixrl_toml(data):
    run("toml", data)
