"""The commands of docs/walkthroughs.md: recipes take the overrides, plans fit. (test_docs.py checks the options.)"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segrl import datasets
from segrl.cli.app import app
from segrl.errors import DataError
from segrl.training.recipe import load_stages

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "walkthroughs.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line)[1:] for line in PAGE.splitlines() if line.startswith("    segrl ")]


def of(name: str) -> list[list[str]]:
    return [words for words in COMMANDS if words[0] == name]


def test_both_walks_go_from_download_to_metrics():
    names = [words[0] for words in COMMANDS]
    assert [names.count(name) for name in ("plan", "train", "report", "export", "compare")] == [2, 4, 2, 1, 2]
    assert names.count("eval") == 5


@pytest.mark.parametrize("words", of("plan"), ids=lambda words: words[1])
def test_the_plans_fit_with_the_figures_of_the_page(words: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    most = re.search(r"most +([0-9.]+) GB", done.stdout)
    assert most is not None
    assert f"{most[1]} GB in the largest phase" in PAGE.replace("\n", " ")


@pytest.mark.parametrize("words", of("train"), ids=lambda words: words[3])
def test_the_recipes_take_the_overrides(words: list[str]):
    overrides = [word for word in words if "=" in word]
    (stage,) = load_stages(ROOT / words[1], overrides)
    assert stage.recipe.dataset.options["root"] == "data"
    for override in (word for word in overrides if word.startswith("trainer.")):
        key, value = override.removeprefix("trainer.").split("=")
        assert str(stage.recipe.trainer[key]) == value


@pytest.mark.parametrize("words", of("eval"), ids=lambda words: words[words.index("--out") + 1])
def test_the_data_sets_take_the_options(words: list[str], tmp_path: Path):
    """All that is missing is the data."""
    name, options = words[words.index("--dataset") + 1], dict(word.split("=") for word in words if "=" in word)
    with pytest.raises(DataError, match=f"(?i)the files of {name}.* are not there"):
        datasets.load(name, root=tmp_path, **options)
