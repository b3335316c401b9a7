"""Limits that hold before any work: what JSON holds, what labelling configurations hold, what errors say."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrl.web.errors import Refused, one_line
from segrl.web.limits import Limits, Memory, check_json
from segrl.web.regions import read_config

LIMITS = Limits(max_items=50, max_depth=5, max_digits=20)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**19), 10**19) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=60,
)


def depth_of(tree) -> int:
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else None
    return 0 if inside is None else 1 + max(map(depth_of, inside), default=0)


def commas_and_pairs(tree) -> int:
    """The values of all lists and objects, an empty one counting as one."""
    inside = list(tree.values()) if isinstance(tree, dict) else tree if isinstance(tree, list) else None
    return 0 if inside is None else max(len(inside), 1) + sum(map(commas_and_pairs, inside))


@given(TREES)
def test_what_json_holds_is_counted_before_it_is_parsed(tree):
    too_much = depth_of(tree) > LIMITS.max_depth or commas_and_pairs(tree) > LIMITS.max_items
    body = json.dumps(tree, ensure_ascii=False).encode()
    with pytest.raises(Refused) if too_much else nullcontext():
        check_json(body, LIMITS)


@given(st.binary(max_size=200))
def test_any_bytes_are_counted(data):
    with suppress(Refused):
        check_json(data, Limits())


@pytest.mark.parametrize("piece", [b'"', b'\\"', b'"\\', b"[", b"9", b'{"a":', b"\\", b'"a",'])
def test_counting_is_linear(piece):
    def seconds(n: int) -> float:
        began = time.process_time()
        for _ in range(3):
            with suppress(Refused):
                check_json(piece * n + b"[" * 60, Limits())
        return time.process_time() - began

    seconds(1000)
    assert seconds(400_000 // len(piece)) < 40 * max(seconds(40_000 // len(piece)), 0.002)


def test_a_configuration_of_nested_tags_takes_linear_time():
    with pytest.raises(Refused, match="deeper"):
        read_config("<BrushLabels>" * 4_000 + "</BrushLabels>" * 4_000)
    with pytest.raises(Refused, match="more than"):
        read_config("<View>" + "<Label/>" * 50_000 + "</View>")
    with pytest.raises(Refused, match="more than"):
        read_config("<View>" + "x" * 2_000_000 + "</View>")


def test_a_label_belongs_to_the_control_that_it_stands_in():
    nested = """<View><Image name="i" value="$x"/><BrushLabels name="a" toName="i"><View>
        <RectangleLabels name="b" toName="i"><Label value="B"/></RectangleLabels></View><Label value="A"/>
        </BrushLabels></View>"""
    assert [(one.from_name, one.label) for one in read_config(nested)] == [("a", "A"), ("b", "B")]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("cannot read the image /srv/data/a.jpg: gone", "cannot read the image a.jpg: gone"),
        ("it is outside /srv/data", "it is outside data"),
        ("../x/y.png and ~/z/w.png", "y.png and w.png"),
        ("give image/png or a/b", "give image/png or a/b"),
        ("two\nlines", "two lines"),
        ("half \ud800", "half ?"),
        ("x" * 900, "x" * 399 + "…"),
    ],
)
def test_an_error_tells_a_client_one_line_and_no_folder(said, told):
    assert one_line(ValueError(said)) == told


def test_memory_is_given_back_however_a_request_ends():
    memory = Memory(100)
    with memory.holding() as take:
        take(60)
        with memory.holding() as other, pytest.raises(Refused, match="other requests"):
            other(50)
        with pytest.raises(Refused, match="more memory"):
            take(50)
        assert memory.taken == 60
    assert memory.taken == 0
