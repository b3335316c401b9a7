"""Every shipped recipe runs two steps with a small policy, small data in the original layout and the overlay `ci`."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from ci_overlay import ci
from small import save_data, save_policy

from segrl.files import read_rows
from segrl.policies import read_settings
from segrl.training import train
from segrl.training.checkpoints import RunDir
from segrl.training.recipe import Recipe, load_stages

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL sets options that transformers has renamed

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
DOCS = (FOLDER.parent / "docs" / "recipes.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("recipes")
    save_data(place / "data")
    save_policy(place / "tiny")
    save_policy(place / "hub", settings=None)
    return place


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def prepared(recipe: Recipe, place: Path) -> tuple[Recipe, list[str]]:
    policies = {"tiny": place / "tiny", "tiny-fresh": place / "tiny", "hub": place / "hub"}
    return ci(recipe, policies, place / "data")


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_takes_two_steps(place: Path, tmp_path: Path, name: str):
    model = None
    for stage in load_stages(FOLDER / f"{name}.yaml"):
        own = stage.resolved(model)
        recipe, _ = prepared(own, place)
        run = RunDir(stage.directory(tmp_path))
        result = train(recipe, run.path, say=lambda line: None, progress=False)
        rows = read_rows(run.steps)
        assert [row["step"] for row in rows] == [1, 2]
        assert all(math.isfinite(row["loss"]) for row in rows)
        if own.method == "grpo":
            assert {f"rewards/{term}/mean" for term in own.rewards} <= rows[0].keys()
        assert read_settings(result.model_dir).answer_format == (recipe.answer_format or "seg-r1")
        assert (result.model_dir / "adapter_config.json").exists() == (own.peft is not None)
        model = result.model_dir


def test_what_ci_leaves_out_is_listed(place: Path):
    left_out = {}
    for name in RECIPES:
        for stage in load_stages(FOLDER / f"{name}.yaml"):
            for key in prepared(stage.recipe, place)[1]:
                left_out.setdefault(name, set()).add(key)
    section = DOCS.split("### What CI runs of them")[1].split("\n## ")[0]
    listed = {
        name: set(re.findall(r"`(.*?)`", keys)) for name, keys in re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.M)
    }
    assert listed == left_out
