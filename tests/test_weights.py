"""Policy files that are damaged, of another make, or made to do harm: refused by name, with the mend."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict

import numpy as np
import pytest

from mixrl import InputError, load_policy
from mixrl.agent.policy import FORMAT, NetworkSize

SIZE = NetworkSize(width=4)


def arrays(size=SIZE, **others):
    return {name: np.zeros(shape, np.float32) for name, shape in size.shapes().items()} | others


def packed(arrays, size=SIZE, **about):
    from safetensors.numpy import save

    known = {"format": FORMAT, "size": json.dumps(asdict(size))} | about
    return save({name: array for name, array in arrays.items() if array is not None}, known)


def header(entries, data=b""):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def odd(kind, shape, size):
    return header({"a": {"dtype": kind, "shape": shape, "data_offsets": [0, size]}}, bytes(size))


NO_MULTIPLE = NetworkSize(width=6, pool="attention")
NARROW = NetworkSize(width=0)
CASES = {
    "a missing tensor": (packed(arrays(**{"mix1.bias": None})), "mix1.bias is missing"),
    "a wrong shape": (packed(arrays(**{"mix1.bias": np.zeros((2, 2), np.float32)})), "mix1.bias is missing"),
    "a wrong type": (packed(arrays(**{"mix1.bias": np.zeros(4)})), "mix1.bias is missing"),
    "NaN": (packed(arrays(**{"mix1.bias": np.full(4, np.nan, np.float32)})), "mix1.bias is missing, not finite"),
    "cut short": (packed(arrays())[:-4], "not a readable policy file"),
    "cut in the header": (packed(arrays())[:90], "not a readable policy file"),
    "a header of exabytes": (struct.pack("<Q", 2**62) + b"{}", "not a readable policy file"),
    "a header of nearly all": (struct.pack("<Q", 10**9) + b"{}", "not a readable policy file"),
    "bfloat16": (odd("BF16", [4], 8), "not a readable policy file"),
    "float8": (odd("F8_E4M3", [8], 8), "not a readable policy file"),
    "complex": (odd("C64", [1], 8), "holds no real numbers"),
    "a shape beyond memory": (odd("F32", [2**62, 0], 0), "not a readable policy file"),
    "100 dimensions": (odd("F32", [1] * 100, 4), "not a readable policy file"),
    "deeply nested sizes": (header({"__metadata__": {"format": FORMAT, "size": "[" * 99_999}}), "its sizes"),
    "sizes that are none": (header({"__metadata__": {"format": FORMAT, "size": "[]"}}), "its sizes cannot be read"),
    "heads of unequal width": (packed(arrays(NO_MULTIPLE), NO_MULTIPLE), "its sizes cannot be read"),
    "no width": (packed({}, NARROW), "its sizes cannot be read"),
    "another format": (packed(arrays(), format="mixrl-policy-99"), "not a mixrl policy of format"),
}


def test_what_these_are_made_from_is_a_policy(tmp_path):
    (tmp_path / "whole.safetensors").write_bytes(packed(arrays()))
    assert load_policy(tmp_path / "whole.safetensors").size == SIZE


@pytest.mark.parametrize(("data", "says"), CASES.values(), ids=CASES)
def test_a_policy_file_that_is_refused(data, says, tmp_path):
    path = tmp_path / "policy.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError, match=says) as error:
        load_policy(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "anew" in str(error.value) or "train it again" in str(error.value)
