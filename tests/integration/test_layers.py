"""The layers hold when modules are really imported, by whatever means they import each other."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = runpy.run_path(str(Path(__file__).parents[1] / "unit" / "test_house.py"))
RANK, MODULES = HOUSE["RANK"], HOUSE["MODULES"]
TOP = len(HOUSE["LAYERS"]) - 1
"""Nothing lies above the last layer, so it is not imported: that would take the web's libraries."""

CODE = """
import importlib, json, sys
loaded = {}
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
    for one in sys.modules:
        if one.startswith("segrl.") and one not in loaded:
            loaded[one] = name
print(json.dumps(loaded))
"""


def test_importing_a_layer_loads_nothing_above_it() -> None:
    """All modules in one process, the lowest layer first: whatever is loaded early was asked for from below."""
    ranked = sorted((RANK[name.split(".")[1]], name) for name in MODULES if "." in name)
    names = [name for rank, name in ranked if rank < TOP]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, json.dumps(names)], capture_output=True, text=True, check=True
    )
    loaded: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    assert loaded.keys() >= set(names)
    upward = {
        f"importing {by} loads {name}"
        for name, by in loaded.items()
        if name in MODULES and RANK[name.split(".")[1]] > RANK[by.split(".")[1]]
    }
    assert not upward, "\n".join(sorted(upward))


def printed(code: str) -> str:
    """What a process of its own prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("module", ["segrl", "segrl.types", "segrl.errors", "segrl.answers", "segrl.masks"])
def test_what_is_light_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{'torch', 'transformers', 'trl', 'cv2'}} & sys.modules.keys()))"
    assert printed(code) == ""


@pytest.mark.parametrize(
    "modules",
    [
        "segrl.datasets.folder, segrl.datasets.gold, segrl.policies",
        "segrl.training, segrl.rewards",  # reading a recipe
        "segrl.memory_estimate, segrl.cli.plan",
    ],
)
def test_what_needs_no_torch_loads_none(modules: str) -> None:
    assert printed(f"import sys, {modules}; print('torch' in sys.modules)") == "False"


def test_report_stays_a_function_whatever_is_imported() -> None:
    code = "import segrl.reporting, segrl, segrl.cli.app; print(callable(segrl.report), callable(segrl.train))"
    assert printed(code) == "True True"
