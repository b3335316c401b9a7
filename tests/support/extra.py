"""Packages that the tests' own environment lacks, each set in a folder of its own beside it, made when first asked for.

They stay out of that environment because they change how other libraries behave in it, or because their pins
exclude it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

PLACE = Path(sys.prefix) / "extra"


def folder(name: str, *packages: str, environment: Mapping[str, str] | None = None) -> Path:
    """A folder for PYTHONPATH with exactly these packages; what they need besides is to be there already.

    Without a network the test is skipped, in CI it fails.
    """
    return _made(name, [sys.executable, "-m", "pip"], packages, environment or {}, target=True)


def python(name: str, *packages: str) -> Path:
    """The interpreter of an environment with exactly these packages and Python's own library, nothing else."""
    place = PLACE / f"{name}-env"
    if not (place / "bin" / "python").exists():
        venv.create(place, with_pip=False)
    interpreter = place / "bin" / "python"
    site = next((place / "lib").glob("python*")) / "site-packages"
    if packages:
        _made(name, [sys.executable, "-m", "pip"], packages, {}, target=True)
        (site / "extra.pth").write_text(f"{PLACE / name}\n")
    return interpreter


def _made(name: str, pip: list[str], packages: tuple[str, ...], environment: Mapping[str, str], target: bool) -> Path:
    place = PLACE / name
    done = place / ".packages"
    if done.exists() and done.read_text() == " ".join(packages):
        return place
    line = [*pip, "install", "-q", "--disable-pip-version-check", "--no-build-isolation", "--no-deps", "--upgrade"]
    made = subprocess.run(
        [*line, "--target", str(place), *packages], env={**os.environ, **environment}, capture_output=True, text=True
    )
    if made.returncode:
        told = f"cannot install {' '.join(packages)}: {made.stderr.strip().splitlines()[-1:]}"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    done.write_text(" ".join(packages))
    return place
