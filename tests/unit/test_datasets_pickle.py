"""Pickled data files: plain data comes out, anything else is named and not run."""

import os
import pickle
from collections import OrderedDict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tries import tries

from segrl.datasets.referring import load_plain
from segrl.errors import DataError

PLAIN = [
    {"ref_id": 0, "sentences": [{"sent": "the lady", "tokens": ("the", "lady")}], "none": None, "big": 2**80},
    {1, 2},
    frozenset("ab"),
    OrderedDict(a=1.5),
    b"\x00\xff",
    bytearray(b"ab"),
    1 + 2j,
    True,
]


def write(path, data, protocol):
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_out_as_it_went_in(tmp_path, protocol):
    for data in PLAIN:
        assert load_plain(write(tmp_path / "a.p", data, protocol)) == data


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
plain = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@tries(40)
@given(plain, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_any_plain_data(tmp_path_factory, data, protocol):
    assert load_plain(write(tmp_path_factory.getbasetemp() / "any.p", data, protocol)) == data


@pytest.mark.parametrize("protocol", [2, 4])
def test_numpy_numbers_come_out_as_plain_numbers_and_lists(tmp_path, protocol):
    data = {
        "id": np.int64(7),
        "area": np.float32(1.5),
        "box": np.arange(6, dtype=">i4").reshape(2, 3),
        "columns": np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]),
        "words": np.array(["a", "bc"]),
    }
    read = load_plain(write(tmp_path / "a.p", data, protocol))
    assert read == {
        "id": 7,
        "area": 1.5,
        "box": [[0, 1, 2], [3, 4, 5]],
        "columns": [[1.0, 2.0], [3.0, 4.0]],
        "words": ["a", "bc"],
    }
    assert type(read["id"]) is int


def test_text_of_python_2(tmp_path):
    path = tmp_path / "a.p"
    path.write_bytes(b"(dp0\nS'sent'\np1\nS'caf\\xc3\\xa9'\np2\ns.")
    assert load_plain(path) == {"sent": "café"}
    path.write_bytes(b"(dp0\nS'sent'\np1\nS'caf\\xe9'\np2\ns.")
    assert load_plain(path) == {"sent": "café"}


class Calls:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (Calls(os.system, ("touch ran",)), "system"),
        (Calls(eval, ("open('ran', 'w')",)), r"eval"),
        (Calls(getattr, ("a", "upper")), r"getattr"),
        (Fraction(1, 2), r"fractions\.Fraction"),
        (np.array([Fraction(1, 2)], dtype=object), r"numpy\.object"),
        (np.zeros(2, dtype=[("a", "i4")]), r"numpy\."),
        ([{"deep": [print]}], r"print"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_anything_else_is_named_and_not_run(tmp_path, monkeypatch, data, named, protocol):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"a\.p .*{named}"):
        load_plain(write(tmp_path / "a.p", data, protocol))
    assert not (tmp_path / "ran").exists()


def test_codecs_decode_nothing_but_bytes(tmp_path):
    path = tmp_path / "a.p"
    path.write_bytes(b"c_codecs\nencode\n(S'abc'\nS'rot13'\ntR.")
    with pytest.raises(DataError, match="rot13"):
        load_plain(path)


def test_broken_and_missing_files_are_named(tmp_path):
    path = write(tmp_path / "a.p", PLAIN[0], 2)
    whole = path.read_bytes()
    for broken in (b"", b"no pickle", whole[:20], whole[:-1]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"a\.p"):
            load_plain(path)
    with pytest.raises(DataError, match=r"b\.p"):
        load_plain(tmp_path / "b.p")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a byte string of 2⁶³ bytes
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # a number of 2³¹ bytes
        b"c__builtin__\nbytearray\n(I9000000000\ntR.",
        b"c__builtin__\nbytes\n(I9000000000\ntR.",
        b"\x80\x02Kbccomplex\n",
        b"(((((((((((((",
    ],
)
def test_hostile_pickles_are_one_line(tmp_path, data):
    (tmp_path / "a.p").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.p") as caught:
        load_plain(tmp_path / "a.p")
    assert "\n" not in str(caught.value)
