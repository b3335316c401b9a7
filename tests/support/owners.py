"""Environments of their own for libraries that own a format and do not fit into ours."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

SHARED = "parent.pth"


def environment(place: Path, packages: list[str], shared: list[str] | None = None) -> Path:
    """The Python of an environment with `packages`; skips the test where they cannot be installed.

    shared: packages that are put beside those of this environment, which are seen as well (torch is not installed
    twice); what they need and this environment lacks is to be named. SEGRL_TEST_ENVS keeps environments between runs.
    """
    if "SEGRL_TEST_ENVS" in os.environ:
        place = Path(os.environ["SEGRL_TEST_ENVS"]) / place.name
    python, done = place / "bin" / "python", place / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        if shared:
            own = next((place / "lib").glob("python3*/site-packages"))
            own.joinpath(SHARED).write_text("".join(f"{path}\n" for path in _our_packages()))
            _install(python, ["--no-deps", *shared])
        _install(python, packages)
        done.touch()
    return python


def _our_packages() -> list[str]:
    """Where this environment's packages lie, those of the environments that it shares included."""
    own = sysconfig.get_path("purelib")
    return [own, *(path for path in sys.path if path.endswith("site-packages") and path != own)]


def _install(python: Path, packages: list[str]) -> None:
    words = [str(python), "-m", "pip", "install", "-q", "--retries", "1", "--disable-pip-version-check", *packages]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    if ran.returncode:
        pytest.skip(f"the registry gives no {packages[-1]}: {ran.stderr.strip().splitlines()[-1:]}")


def run(python: Path, code: str, *arguments: object, cwd: Path) -> str:
    """What a program prints; its last lines of error where it fails."""
    words = [str(python), "-c", code, *map(str, arguments)]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ran = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd, env=clean)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout
