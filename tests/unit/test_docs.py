"""What README, the pages, recipes and examples show is there: commands with their options, recipes' keys, files, names.

Nothing is run: a command line is parsed as the command itself parses it, and recipes are read with their overrides.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from segrl import answers, datasets
from segrl.cli.app import app
from segrl.cli.common import key_values
from segrl.cli.segment import FORMATS
from segrl.errors import DataError
from segrl.training.recipe import load_stages

ROOT = Path(__file__).parents[2]
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *sorted(ROOT.glob("docs/*.md"))]
SHOWN = [*PAGES, *sorted(ROOT.glob("recipes/*.yaml")), *sorted(ROOT.glob("examples/*.py"))]
LIKE_SHELL = {"", "bash", "sh", "console"}
OURS = re.compile(r"(?:\w+=\S+ )*(?:\S*bin/)?(segrl|python \w+/[\w/]+\.py|make)((?: .*)?)$")
ENDS = re.compile(r"\s(?:[<>|&]|&&)(?:\s|$)")


@dataclass(frozen=True)
class Shown:
    """A command line of a page. whole: it stands in a block, to be typed as it is."""

    page: str
    program: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.page}: {self.program} {' '.join(self.words)}"


def lines_of(path: Path) -> Iterator[tuple[str, bool]]:
    """Text in code, and whether it is a line of a block; a comment of a recipe or an example is one if indented."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    if path.suffix != ".md":
        yield from ((line.lstrip("# "), True) for line in text.splitlines() if re.match(r"#?  +\S", line))
        return
    fence: str | None = None
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fence = line.strip(" `") if fence is None else None
        elif fence is not None:
            if fence in LIKE_SHELL:
                yield line.strip(), True
        elif line.startswith("    "):
            yield line.strip(), True
        else:
            yield from ((piece, False) for piece in re.findall(r"`([^`]+)`", line))


def shown() -> Iterator[Shown]:
    for path in SHOWN:
        for line, whole in lines_of(path):
            if found := OURS.match(line):
                told = re.split(r"\s{3,}", found[2].strip())[0]
                words = shlex.split(ENDS.split(told)[0], comments=True)
                yield Shown(path.relative_to(ROOT).as_posix(), found[1], tuple(words), whole)


COMMANDS = list(dict.fromkeys(shown()))


def of(program: str) -> list[Shown]:
    return [one for one in COMMANDS if one.program.partition(" ")[0] == program]


@cache
def root_command() -> Any:
    return typer.main.get_command(app)


def parsed(one: Shown) -> tuple[str, dict[str, Any]]:
    """Name and values of a command of ours, as it reads its own line. N, GB and other such stand for a number."""
    words = ["1" if re.fullmatch("[A-Z]{1,2}", word) else word for word in one.words]
    command, name = root_command(), "segrl"
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command, name = command.commands[words[0]], f"{name} {words.pop(0)}"
    if name == "segrl":
        assert words in ([], ["COMMAND", "--help"], ["--help"]), f"{one}: there is no such command"
        return name, {}
    if words == ["--help"]:
        return name, {}
    needed = [parameter for parameter in command.params if parameter.required and not one.whole]
    try:
        for parameter in needed:  # in a sentence they may be left out
            parameter.required = False
        with command.make_context(name, words) as context:
            return name, dict(context.params)
    finally:
        for parameter in needed:
            parameter.required = True


@pytest.mark.parametrize("one", of("segrl"), ids=str)
def test_commands_are_parsed_by_the_command_itself(one: Shown):
    name, values = parsed(one)
    if name == "segrl segment":
        formats = [part.strip() for part in (values["formats"] or "").split(",") if part.strip()]
        assert set(formats) <= set(FORMATS.split(", "))
    if form := values.get("answer_format"):
        assert form in answers.names() or len(form) == 1


@pytest.mark.parametrize(
    "one",
    [one for one in of("segrl") if one.words[:1] and one.words[0] in ("train", "plan", "serve-reward")],
    ids=str,
)
def test_recipes_take_the_overrides(one: Shown):
    _, values = parsed(one)
    recipe = ROOT / str(values["recipe"])
    if recipe.suffix == ".yaml" and recipe.parent.name == "recipes":
        load_stages(recipe, [pair for pair in values["overrides"] or () if pair != "…"])


@pytest.mark.parametrize("one", [one for one in of("segrl") if one.words[:1] == ("eval",)], ids=str)
def test_data_sets_have_the_options(one: Shown, tmp_path: Path):
    _, values = parsed(one)
    own = [pair for pair in values["options"] or () if not pair.startswith(("policy.", "segmenter.", "…"))]
    root = {} if values["root"] is None else {"root": str(tmp_path)}
    message = ""
    try:
        datasets.load(values["dataset"] or "tiny", **root, **key_values(own))
    except DataError as error:  # the files are not there
        message = str(error)
    assert "has no option" not in message


def test_an_option_that_is_none_is_told_before_files_that_are_missing(tmp_path: Path):
    """What `test_data_sets_have_the_options` looks for in the message."""
    for name in ("folder", "duts", "refcocog", "reasonseg", "jsonl"):
        with pytest.raises(DataError, match="has no option"):
            datasets.load(name, root=str(tmp_path), no_such_option=1)


def test_enough_is_found():
    assert len(of("segrl")) > 150
    assert len(of("python")) > 12
    assert len(of("make")) > 15


@pytest.mark.parametrize("one", of("python"), ids=str)
def test_scripts_have_the_options(one: Shown):
    script = ROOT / one.program.partition(" ")[2]
    source = "".join(
        path.read_text(encoding="utf-8") for path in {script, *script.parent.glob("*.py")} if path.is_file()
    )
    assert script.is_file(), f"{one}: there is no {script.name}"
    for option in (word for word in one.words if word.startswith("--")):
        assert f'"{option}"' in source, f"{one}: no {option}"


@pytest.mark.parametrize("one", of("make"), ids=str)
def test_make_has_the_targets(one: Shown):
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    assert {word for word in one.words if "=" not in word} <= targets


PATH = re.compile(r"(?:tests|recipes|proof|bench|docs|examples|requirements|notebooks|src/segrl)/[\w./-]*\w/?")
IN_PACKAGE = re.compile(r"[a-z_]+/[\w/]+\.py")
MADE_LATER = {"bench/step.json"}
"""Files that a command writes, as the page that names them says."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path):
    for piece, _ in lines_of(page):
        for name in PATH.findall(piece) if PATH.match(piece) else IN_PACKAGE.findall(piece):
            places = (ROOT / name, ROOT / "src" / name, ROOT / "src" / "segrl" / name)
            assert name in MADE_LATER or any(place.exists() for place in places), f"there is no {name}"


NAME = re.compile(r"(segrl(?:\.[A-Za-z_]\w*)+)")


def is_there(name: str) -> bool:
    """Whether a dotted name of ours is a module, or a name that one defines, imports or gives a field."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT / "src" / Path(*parts[:count])
        file = next((one for one in (place.with_suffix(".py"), place / "__init__.py") if one.is_file()), None)
        if file is not None:
            source = file.read_text(encoding="utf-8")
            return all(re.search(rf"\b{part}\b", source) for part in parts[count:])
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_the_package_on_a_page_are_there(page: Path):
    for piece, _ in lines_of(page):
        for name in NAME.findall(piece):
            assert name in ("segrl.json", "segrl.report") or is_there(name), f"there is no {name}"


def test_the_layers_of_the_architecture_page_are_those_that_the_house_rules_check():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## Layers")[1].split("```")[1]
    rules = (ROOT / "tests" / "unit" / "test_house.py").read_text(encoding="utf-8")
    (layers,) = re.findall(r"^LAYERS = (\(.*?^\))", rules, flags=re.M | re.S)
    expected = [names - {"__main__"} for names in reversed(ast.literal_eval(layers))]
    assert [set(line.split(", ")) for line in page.strip().splitlines()] == expected
