"""General ability: lmms-eval's command, its results, and an environment of its own; with a program in its place."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from segrl.errors import ModelError, SegrlError
from segrl.evaluation.general import BENCHMARKS, command, environment, general, read_general, read_results

FAKE = """#!{python}
import json, os, pathlib, sys
words = sys.argv[1:]
if words[0] == "-c":
    sys.exit(0)
with open({log!r}, "a") as log:
    log.write(json.dumps([words, "PYTHONPATH" in os.environ]) + "\\n")
if words[:2] == ["-m", "pip"]:
    print("downloading")
    sys.exit({pip})
place = pathlib.Path(words[words.index("--output_path") + 1]) / "name"
if {fails}:
    print("loading\\nCUDA out of memory")
    sys.exit(3)
place.mkdir(parents=True, exist_ok=True)
shift = 1.0 if "base" in str(place) else 0.0
results = {{
    "mmbench_en_dev_static": {{"alias": "x", "gpt_eval_score,none": 77.5 - shift, "submission,none": None}},
    "mme": {{"alias": "mme", "mme_cognition_score,none": 600.0, "mme_perception_score,none": 1581.0 - 5 * shift}},
    "pope": {{"pope_accuracy,none": 0.87, "pope_f1_score,none": 0.8625, "pope_f1_score_stderr,none": "N/A"}},
    "ai2d": {{"exact_match,flexible-extract": 0.78, "exact_match_stderr,flexible-extract": 0.01}},
}}
(place / "20261122_120000_results.json").write_text(json.dumps({{"results": results, "n-shot": {{}}}}))
"""


@pytest.fixture
def fake(tmp_path: Path) -> Any:
    def write(fails: bool = False, pip: int = 0, place: Path | None = None) -> Path:
        path = place or tmp_path / "fake-python"
        path.parent.mkdir(parents=True, exist_ok=True)
        log = str(tmp_path / "calls.jsonl")
        path.write_text(FAKE.format(python=sys.executable, log=log, fails=fails, pip=pip))
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    place = tmp_path / "checkpoint"
    place.mkdir()
    (place / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    return str(place)


def calls(tmp_path: Path) -> list[Any]:
    path = tmp_path / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_command(checkpoint: str, tmp_path: Path) -> None:
    words = command(checkpoint, tmp_path / "o", ["mme", "pope"], limit=8, batch_size=4, processes=2)
    assert words == [
        *("-m", "accelerate.commands.launch", "--num_processes", "2", "-m", "lmms_eval"),
        *("--model", "qwen2_5_vl", "--model_args", f"pretrained={checkpoint}", "--tasks", "mme,pope"),
        *("--batch_size", "4", "--output_path", str(tmp_path / "o"), "--limit", "8"),
    ]
    assert command("Qwen/Qwen3-VL-8B-Instruct", tmp_path, ["mme"])[3] == "qwen3_vl"
    assert "--limit" not in command("OpenGVLab/InternVL3-8B-hf", tmp_path, ["mme"])


def test_scores_and_the_change_against_the_base(
    fake: Any, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    said: list[str] = []
    base = "Qwen/Qwen2.5-VL-7B-Instruct"
    result = general(checkpoint, tmp_path / "out", base=base, python=fake(), say=said.append)
    assert result["benchmarks"]["MME"] == {"value": 1581.0, "base": 1576.0, "change": 5.0}
    assert result["benchmarks"]["POPE"]["value"] == pytest.approx(86.25)
    assert result["benchmarks"]["AI2D"] == {"value": 78.0, "base": 78.0, "change": 0.0}
    assert result["benchmarks"]["MMBench"]["change"] == 1.0
    assert result["run"]["tasks"]["checkpoint"]["mme"]["mme_cognition_score"] == 600.0
    assert json.loads((tmp_path / "out" / "general.json").read_text()) == result
    made = calls(tmp_path)
    assert [f"pretrained={name}" in words for (words, _), name in zip(made, (checkpoint, base), strict=True)] == [
        True
    ] * 2
    assert not any(leaks for _, leaks in made)
    assert len(said) == 2


def test_what_is_done_is_not_done_again(fake: Any, checkpoint: str, tmp_path: Path) -> None:
    for limit, runs in ((5, 1), (5, 1), (6, 2)):
        general(checkpoint, tmp_path / "out", python=fake(), limit=limit, benchmarks=["MME"], say=lambda line: None)
        assert len(calls(tmp_path)) == runs
    result = general(checkpoint, tmp_path / "out", python=fake(), limit=6, benchmarks=["MME"], say=lambda line: None)
    assert result["benchmarks"] == {"MME": {"value": 1581.0, "base": None, "change": None}}


def test_a_run_that_fails_is_told_in_one_line(fake: Any, checkpoint: str, tmp_path: Path) -> None:
    with pytest.raises(SegrlError, match=r"status 3\): CUDA out of memory; all of it is in") as raised:
        general(checkpoint, tmp_path / "out", python=fake(fails=True), say=lambda line: None)
    assert "\n" not in str(raised.value)
    assert "loading" in (tmp_path / "out" / "checkpoint" / "lmms_eval.log").read_text()
    general(checkpoint, tmp_path / "out", python=fake(), say=lambda line: None)
    assert read_general(tmp_path / "out") is not None
    with pytest.raises(SegrlError, match="has no lmms-eval"):
        general(checkpoint, tmp_path / "other", python=tmp_path / "no-python", say=lambda line: None)


def test_checkpoints_that_it_cannot_run(tmp_path: Path, checkpoint: str) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    for name, hint in [
        (str(tmp_path / "adapter"), "segrl export --merge"),
        ("somebody/model", "none that segrl can tell"),
        ("a,b", "comma"),
    ]:
        with pytest.raises(ModelError, match=hint):
            command(name, tmp_path, ["mme"])
    with pytest.raises(SegrlError, match="MMBench, MME, POPE, AI2D, not 'MMMU'"):
        general(checkpoint, tmp_path / "out", benchmarks=["MMMU"])


def test_results_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SegrlError, match="left no results"):
        read_results(tmp_path)
    for text in ("{", "{}", '{"results": []}', '{"results": {"mme": 3}}'):
        (tmp_path / "1_results.json").write_text(text)
        with pytest.raises(SegrlError, match="no results file"):
            read_results(tmp_path)


def test_the_environment_is_made_once(fake: Any, tmp_path: Path) -> None:
    place = tmp_path / "environment"
    fake(place=place / "bin" / "python")  # stands for what the maker would leave
    for _ in range(2):
        assert environment(place, maker="true", say=lambda line: None) == place / "bin" / "python"
    assert [words[:3] for words, _ in calls(tmp_path)] == [["-m", "pip", "install"]]
    with pytest.raises(SegrlError, match="cannot be run"):
        environment(tmp_path / "other", maker=str(tmp_path / "no-python"), say=lambda line: None)
    (place / "segrl-installed").unlink()
    fake(place=place / "bin" / "python", pip=1)
    with pytest.raises(SegrlError, match=r"cannot be installed .*status 1\): downloading"):
        environment(place, maker="true", say=lambda line: None)
    assert not (place / "segrl-installed").exists()


def test_the_suite_is_that_of_the_papers_table() -> None:
    assert list(BENCHMARKS) == ["MMBench", "MME", "POPE", "AI2D"]
