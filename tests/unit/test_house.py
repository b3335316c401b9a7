"""The house rules that a machine can check: sizes, and the direction of imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "segrl").rglob("*.py"))
FILES = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60

# From the lowest to the highest; a module imports its own layer and those below.
LAYERS = (
    {"types", "errors", "files", "devices", "text", "plugins", "recent"},
    {"srgb", "brush_rle", "images", "masks", "contours", "overlay", "coordinates", "jobs"},
    {"answers", "segmenters", "scoring"},
    {"text_to_masks", "turns", "tiny"},
    {"policies", "rewards", "datasets"},
    {"batch_queue", "exports", "inference"},
    {"result"},
    {"pipeline"},
    {"loading"},
    {"training", "evaluation", "reporting"},
    {"folder_job"},
    {"experiment", "integrations", "memory_estimate"},
    {"api"},
    {"cli", "web", "__main__"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def module_name(path: Path) -> str:
    """`segrl.answers.base` for src/segrl/answers/base.py."""
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


BY_NAME = re.compile(r"(?:python:)?(segrl(?:\.\w+)+)\.?")
"""A text that names a module of ours: what `import_module`, `python:` and a new process are given."""


@cache
def tree(path: Path) -> ast.Module:
    """A file, parsed once for all that is asked of it."""
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> tuple[tuple[str, int], ...]:
    """(module of ours, line) for every import, those inside functions and those by name included."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = BY_NAME.fullmatch(node.value)
            parts = match[1].split(".") if match else []
            name = next((n for i in range(len(parts), 1, -1) if (n := ".".join(parts[:i])) in MODULES), None)
            if name is not None and not f"{module_name(path)}.".startswith(f"{name}."):  # its package: a file in it
                yield name, node.lineno
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module, node.lineno


def test_the_package_with_its_weights_stays_under_25_mb() -> None:
    files = [path for path in (ROOT / "src" / "segrl").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in files}
    assert any(name.endswith(".safetensors") for name in sizes)
    assert sum(sizes.values()) < 25e6, sorted(sizes.items(), key=lambda one: -one[1])[:5]


def test_every_module_has_a_layer() -> None:
    unknown = {name.split(".")[1] for name in MODULES if "." in name} - RANK.keys()
    assert not unknown, f"give them a place in LAYERS and in the README's tree: {sorted(unknown)}"


def test_imports_run_downward() -> None:
    upward = [
        f"{name} (line {line}) imports {target}"
        for name, path in MODULES.items()
        for target, line in imports(path)
        if name != "segrl" and target != "segrl" and RANK[target.split(".")[1]] > RANK[name.split(".")[1]]
    ]
    assert not upward, "\n".join(upward)


def test_packages_import_each_other_one_way() -> None:
    """Two packages of one layer that import each other are one package, or in the wrong layers."""
    graph: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        if name != "segrl":
            targets = {target.split(".")[1] for target, _ in imports(path) if target != "segrl"}
            graph.setdefault(name.split(".")[1], set()).update(targets - {name.split(".")[1]})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"packages in a circle: {' ← '.join(error.args[1])}")


def test_imports_have_no_cycle() -> None:
    graph = {name: {target for target, _ in imports(path)} - {"segrl"} for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a cycle of imports: {' ← '.join(error.args[1])}")


def test_relative_imports_are_not_used() -> None:
    for path in SOURCES:
        nodes = [node for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom)]
        assert not any(node.level for node in nodes), path


def test_no_module_defines_a_name_twice() -> None:
    """The later one would hold for the functions before it too."""
    for path in SOURCES:
        names: list[str] = []
        for node in tree(path).body:
            targets = list(node.targets) if isinstance(node, ast.Assign) else []
            targets += [node.target] if isinstance(node, ast.AnnAssign) else []
            names += [target.id for target in targets if isinstance(target, ast.Name)]
            names += [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        twice = {name for name in names if names.count(name) > 1}
        assert not twice, f"{path} defines {', '.join(sorted(twice))} twice"


def test_files_and_functions_are_small() -> None:
    long = [f"{path} has {n} lines" for path in FILES if (n := len(path.read_text().splitlines())) > MAX_FILE_LINES]
    for path in FILES:
        functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        sizes = [(node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions]
        long += [f"{name} in {path} has {size} lines" for name, size in sizes if size > MAX_FUNCTION_LINES]
    assert not long, "\n".join(long)
