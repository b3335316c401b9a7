"""Text, JSON and YAML that people wrote: every encoding, and one line for what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from segrl.errors import DataError
from segrl.files import load_yaml, parse_json, read_json, read_text, read_yaml


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.json"
    path.write_text('["ü"]', encoding=encoding)
    assert read_text(path) == '["ü"]'
    assert read_json(path) == ["ü"]


def test_encodings_are_tried_in_turn(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes('["ü"]'.encode("cp1252"))
    assert read_json(path, "utf-8", "cp1252") == ["ü"]
    with pytest.raises(DataError, match=r"a\.json: it is text in none of utf-8"):
        read_json(path)
    with pytest.raises(DataError, match=r"b\.json"):
        read_json(tmp_path / "b.json")


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[1e5", "9" * 5000, "", '{"a": ' * 50_000])
def test_json_that_cannot_be_read_is_one_line(text: str) -> None:
    with pytest.raises(DataError, match=r"^it: ") as caught:
        parse_json(text, "it:")
    assert "\n" not in str(caught.value)


BOMB = "\n".join(["a0: &a0 [x]", *(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(20))])


@pytest.mark.parametrize("text", [BOMB, "[" * 20_000, "a: &a [*a]", "a: [", "\0"])
def test_yaml_that_cannot_be_read_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises((ValueError, yaml.YAMLError)):
        load_yaml(text)
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(DataError, match=r"a\.yaml: it is no YAML") as caught:
        read_yaml(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)


def test_aliases_within_reason_are_values() -> None:
    assert load_yaml("a: &a [1, 2]\nb: *a\n") == {"a": [1, 2], "b": [1, 2]}
    assert load_yaml("") is None
