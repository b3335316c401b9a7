"""segrl suite as a user types it, with a package in lmms-eval's place."""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from eval_samples import write_examples
from typer.testing import CliRunner

from segrl.cli.app import app

LMMS_EVAL = """
import json, pathlib, sys, time
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
name = words["--model_args"].removeprefix("pretrained=")
if "broken" in name:
    sys.exit("CUDA out of memory")
better = 0.0 if name.endswith("base") else 1.0
results = {
    "mmbench_en_dev_static": {"alias": "mmbench", "gpt_eval_score,none": 77.2 + better, "submission,none": None},
    "mme": {"alias": "mme", "mme_cognition_score,none": 600.0, "mme_perception_score,none": 1576.0 + 5 * better},
    "pope": {"pope_accuracy,none": 0.87, "pope_f1_score,none": 0.859, "pope_f1_score_stderr,none": "N/A"},
    "ai2d": {"exact_match,flexible-extract": 0.78 - 0.01 * better, "exact_match_stderr,flexible-extract": 0.01},
}
wanted = {task: results[task] for task in words["--tasks"].split(",")}
place = pathlib.Path(words["--output_path"]) / name.replace("/", "__")
place.mkdir(parents=True)
stamp = time.strftime("%Y%m%d_%H%M%S")
(place / f"{stamp}_results.json").write_text(json.dumps({"results": wanted, "configs": {}, "n-samples": {}}))
"""


def segrl(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Python of an environment that has lmms-eval."""
    package = tmp_path / "site" / "lmms_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(LMMS_EVAL)
    path = tmp_path / "lmms-python"
    path.write_text(f'#!/bin/sh\nPYTHONPATH={package.parent} exec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A directory that says which family it is of, and one beside it that stands for its base."""
    for name in ("trained", "base", "broken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    return tmp_path / "trained"


def test_scores_and_change_in_terminal_file_and_page(python: Path, checkpoint: Path, tmp_path: Path) -> None:
    base, out = checkpoint.with_name("base"), tmp_path / "out"
    command = ("suite", "--policy", checkpoint, "--base", base, "--lmms-python", python)
    code, said = segrl(*command, "--out", out)
    assert code == 0, said
    rows = {cells[0]: cells[1:] for line in said.splitlines() if (cells := line.split())}
    assert rows["MME"] == ["1581.0", "1576.0", "+5.0"]
    assert rows["AI2D"] == ["77.0", "78.0", "-1.0"]
    found = json.loads((out / "general.json").read_text())["benchmarks"]
    assert found["POPE"] == {"value": pytest.approx(85.9), "base": pytest.approx(85.9), "change": 0.0}
    assert found["MMBench"]["change"] == pytest.approx(1.0)
    page = (out / "report.html").read_text()
    assert "<tr><td>MME</td><td>1581.0</td><td>1576.0</td><td>+5.0</td></tr>" in page
    assert str(base) in page
    (out / "report.html").unlink()
    assert segrl("report", out)[0] == 0
    assert (out / "report.html").read_text() == page
    write_examples(tmp_path, 4)
    data = ("eval", "--dataset", "jsonl", "--root", tmp_path, "--segmenter", "box", "--policy", "oracle")
    code, said = segrl(*data, "--out", out)
    assert (code, said.count("\n")) == (2, 1)
    assert f"holds an evaluation of {checkpoint}, not of oracle" in said


def test_it_goes_into_the_report_of_an_evaluation(python: Path, checkpoint: Path, tmp_path: Path) -> None:
    write_examples(tmp_path, 4)
    data = ("eval", "--dataset", "jsonl", "--root", tmp_path, "--segmenter", "box", "--policy", "oracle")
    assert segrl(*data, "--out", tmp_path / "run")[0] == 0
    before = (tmp_path / "run" / "report.html").read_text()
    code, said = segrl("suite", "--policy", checkpoint, "--out", tmp_path / "run")
    assert (code, said.count("\n")) == (2, 1)
    assert "holds an evaluation of oracle" in said
    description = json.loads((tmp_path / "run" / "run.json").read_text())
    description["policy"]["name"] = str(checkpoint)
    (tmp_path / "run" / "run.json").write_text(json.dumps(description))
    options = ("--policy", checkpoint, "--out", tmp_path / "run", "--lmms-python", python, "--limit", 8)
    assert segrl("suite", *options)[0] == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "General ability" not in before
    assert page.index("All metrics") < page.index("General ability") < page.index("<td>1581.0</td><td>–</td>")


def test_an_evaluation_after_the_suite_is_on_the_page_too(python: Path, tmp_path: Path) -> None:
    weights, out = Path(str(files("segrl") / "tiny" / "weights")), tmp_path / "run"
    common = ("--policy", weights, "--out", out)
    assert segrl("suite", "--lmms-python", python, *common)[0] == 0
    data = ("eval", "--dataset", "tiny", "n=2", "seed=0", "--segmenter", "box")
    code, said = segrl(*data, *common)
    assert code == 0, said
    page = (out / "report.html").read_text()
    assert page.index("All metrics") < page.index("General ability") < page.index("<td>1581.0</td>")
    assert list((out / "evaluation" / "images").iterdir())
    (out / "report.html").write_text("as it was")
    assert segrl(*data, *common)[0] == 0
    assert (out / "report.html").read_text() == "as it was"


def test_what_is_missing_is_said_in_one_line(
    python: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    general, with_it = ("suite", "--out", tmp_path / "o"), ("--lmms-python", python)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    for arguments, hints in [
        ((*general, "--policy", checkpoint), ("--install makes an environment", str(tmp_path / "cache"))),
        ((*general, "--policy", checkpoint, "--lmms-python", sys.executable), ("-m pip install 'lmms_eval>=",)),
        ((*general, "--policy", checkpoint, "--lmms-python", tmp_path / "nowhere"), ("has no lmms-eval",)),
        ((*general, *with_it, "--policy", checkpoint.with_name("broken")), ("CUDA out of memory", "lmms_eval.log")),
        ((*general, *with_it, "--policy", tmp_path / "adapter"), ("segrl export --merge",)),
        ((*general, *with_it, "--policy", "tiny"), ("tiny is none that segrl can tell",)),
        ((*general, *with_it, "--policy", "openai:Qwen/Qwen2.5-VL-7B@http://localhost:1/v1"), ("give a checkpoint",)),
    ]:
        code, said = segrl(*arguments)
        line = said.strip().splitlines()[-1]
        assert (code, line[:7]) == (2, "segrl: ")
        assert all(hint in line for hint in hints), line
    assert not (tmp_path / "cache").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, said = segrl(*general, *with_it, "--policy", checkpoint)
    assert (code, "in one process" in said) == (2, True)
