"""The documentation's site builds without a warning, loads nothing from another host, and names what there is."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from segrl import answers
from segrl.rewards.registry import TERMS
from segrl.training.recipe import Recipe

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LOADED = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")
IN_STYLE = re.compile(r"(?:@import|url\()[\s\"']*(?:https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    out = tmp_path_factory.mktemp("docs") / "site"
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes the modules of docs/generate importable for a test."""
    monkeypatch.syspath_prepend(DOCS / "generate")
    yield
    for name in ("menu", "prose", "commands_page"):
        sys.modules.pop(name, None)


def load(name: str) -> ModuleType:
    """A module of docs/generate."""
    return importlib.import_module(name)


def test_every_page_is_built_and_in_the_menu(site: Path) -> None:
    home = (site / "index.html").read_text()
    for page in DOCS.glob("*.md"):
        assert (site / f"{page.stem}.html").is_file(), page
        assert page.stem == "index" or f"{page.stem}.html" in home, f"{page} is not in the menu"


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    pages, styles = list(site.rglob("*.html")), list(site.rglob("*.css"))
    assert pages
    assert styles
    for path, pattern in [*((page, LOADED) for page in pages), *((style, IN_STYLE) for style in styles)]:
        found = pattern.search(path.read_text())
        assert found is None, f"{path.name} loads {found[0] if found else ''}"


def test_formulas_need_no_script(site: Path) -> None:
    page, source = (site / "objectives.html").read_text(), (DOCS / "objectives.md").read_text()
    inline = source.replace("$$", "").count("$") // 2
    assert page.count("<math") == source.count("$$") // 2 + inline
    assert page.count("<span><math") == inline > 0
    assert "$" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert "<p><math" not in page  # an inline formula stands in its line
    assert "$SECRET" in (site / "http.html").read_text()


def test_modules_and_the_python_interface_are_made_from_the_code(site: Path) -> None:
    modules, interface = ((site / "reference" / f"{name}.html").read_text() for name in ("modules", "api"))
    for path in (ROOT / "src" / "segrl").rglob("*.py"):
        name = path.relative_to(ROOT / "src" / "segrl").as_posix()
        assert name == "__init__.py" or f"<code>{name}</code>" in modules, name
    for name in (
        "segrl.loading.load",
        "segrl.types.MaskPrompt",
        "segrl.rewards.rollout.Rollout",
        "segrl.scoring.iou",
    ):
        assert f'id="{name}"' in interface, name


def test_the_reference_names_every_key_term_and_recipe(site: Path) -> None:
    page = (site / "reference" / "recipe.html").read_text()
    for key in Recipe.model_fields:
        assert f"<td><code>{key}</code></td>" in page, key
    for term in TERMS:
        assert f'id="term-{term.replace("_", "-")}"' in page, term
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert f'id="recipe-{recipe.stem.replace("_", "-")}"' in page, recipe


def test_the_reference_names_every_answer_format(site: Path) -> None:
    page = (site / "reference" / "answers.html").read_text()
    for name in answers.names():
        assert f'id="{name}"' in page, name


@pytest.mark.usefixtures("generate")
def test_the_reference_names_every_command(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text()
    commands = dict(load("commands_page").commands())
    assert {"segrl segment", "segrl train", "segrl data check"} <= commands.keys()
    for path, command in commands.items():
        assert f'id="{path.removeprefix("segrl ").replace(" ", "-")}"' in page, path
        for option in command.params:
            shown = option.param_type_name == "argument" or re.search(rf"<code>[^<]*{option.opts[0]}\b", page)
            assert shown or option.name == "help", (path, option.name)


def test_the_page_on_installing_names_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = re.findall(r"^\| `(\w+)` \|", (DOCS / "install.md").read_text(), flags=re.M)
    assert sorted(table) == sorted(extras)


@pytest.mark.usefixtures("generate")
def test_the_menu_leaves_out_what_is_not_there_and_adds_what_it_lacks() -> None:
    nav = ["a.md", {"Use": ["b.md", {"C": "c.md"}]}, {"Gone": ["d.md"]}]
    menu = load("menu").menu
    assert menu(nav, {"a.md", "c.md", "z.md"}) == ["a.md", {"Use": [{"C": "c.md"}]}, {"More": ["z.md"]}]
    assert menu(nav, {"a.md", "b.md", "c.md", "d.md"}) == nav
