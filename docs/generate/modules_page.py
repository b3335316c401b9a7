"""The page on modules: every module in its layer with the first line of its docstring, made from the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from prose import cell, code, table

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "segrl"
HEAD = """# Modules

Made from the code when this site is built: the layers from the highest to the lowest, as `tests/unit/test_house.py`
holds them, and of each module what its first line says. [Architecture](../architecture.md) says how they work together.
"""


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for names in reversed(layers()):
        parts += [f"## {', '.join(sorted(names))}", table(("module", ""), list(_rows(sorted(names))))]
    return "\n\n".join(parts) + "\n"


def layers() -> list[set[str]]:
    """The packages and modules of each layer that exist, from the lowest, as the test has them."""
    tree = ast.parse((ROOT / "tests" / "unit" / "test_house.py").read_text(encoding="utf-8"))
    values = [node.value for node in tree.body if isinstance(node, ast.Assign) and _name(node) == "LAYERS"]
    there = {path.stem for path in SOURCE.iterdir()}
    return [names & there for names in ast.literal_eval(values[0]) if names & there]


def _name(node: ast.Assign) -> str:
    target = node.targets[0]
    return target.id if isinstance(target, ast.Name) else ""


def _rows(names: list[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        file = SOURCE / f"{name}.py"
        for path in [file] if file.exists() else sorted((SOURCE / name).rglob("*.py")):
            said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            yield code(path.relative_to(SOURCE).as_posix()), cell(said.partition("\n\n")[0])
