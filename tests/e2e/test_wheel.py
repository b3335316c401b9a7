"""The wheel built from the repository holds what segrl needs, and works where nothing else of it is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the repository."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "src" / "segrl", copy / "src" / "segrl", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-W", "ignore", "-c", BUILD, str(out)], cwd=copy, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    sources = [
        path for path in (ROOT / "src" / "segrl").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    missing = [name for path in sources if (name := path.relative_to(ROOT / "src").as_posix()) not in packed]
    assert not missing, f"add their suffixes to package-data in pyproject.toml: {missing}"
    assert any(name.endswith("/LICENSE") for name in packed)


def test_it_works_in_a_bare_environment(wheel: Path, tmp_path: Path) -> None:
    """The dependencies come from this environment's files, segrl from the wheel alone."""
    import numpy

    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = tmp_path / "bare" / "bin" / "python"
    install = ["install", "--no-index", "--no-deps", "--quiet", "--disable-pip-version-check", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    (site,) = (tmp_path / "bare" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(f"{Path(numpy.__file__).parents[1]}\n")
    code = (
        "import segrl; from segrl import datasets; print(segrl.__file__)\n"
        "example = datasets.load('tiny', n=1, seed=0)[0]\n"
        "print(segrl.load('tiny').segment(example.image, example.query).masks.shape[1:])"
    )
    ran = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    place, shape = ran.stdout.splitlines()
    assert Path(place).is_relative_to(tmp_path)
    assert shape == "(112, 112)"
    command = subprocess.run(
        [site.parents[2] / "bin" / "segrl", "--version"], capture_output=True, text=True, check=True
    )
    assert command.stdout.startswith("segrl ")


@pytest.mark.long
def test_it_installs_with_its_dependencies(wheel: Path, tmp_path: Path) -> None:
    """Fetches every dependency as a user's pip does."""
    venv.create(tmp_path / "bare", with_pip=True)
    python = tmp_path / "bare" / "bin" / "python"
    pins = ["--constraint", str(ROOT / "requirements" / "tested.txt")]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *pins, str(wheel)], check=True, cwd=tmp_path)
    code = "import segrl; print(segrl.load('tiny').segment(__import__('numpy').zeros((9, 9), 'uint8'), 'it').status)"
    ran = subprocess.run(
        [python, "-W", "error::ImportWarning", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
