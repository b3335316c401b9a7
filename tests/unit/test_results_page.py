"""docs/results.md: published tables, and ours from evaluation summaries only."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from dataset_files import save_image, save_json

from segrl.datasets import NAMES
from segrl.errors import DataError
from segrl.evaluation import CATALOGUE, EvalSettings, Share, run
from segrl.inference import PLAIN

DOCS = Path(__file__).parents[2] / "docs"


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("results", DOCS / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


results = load_script()
PUBLISHED = yaml.safe_load((DOCS / "results.yaml").read_text(encoding="utf-8"))


def save_run(place: Path, dataset: str, options: dict[str, Any], test_time: str = PLAIN) -> Path:
    place.mkdir()
    metrics = {"giou": {"value": 0.6123, "ci95": [0.6, 0.6251]}, "ciou": {"value": 0.55, "ci95": None}}
    run = {"dataset": {"name": dataset, "options": options, "examples": 779}, "decoding": {"test_time": test_time}}
    (place / "summary.json").write_text(json.dumps({"n": 779, "metrics": metrics, "run": run}))
    return place


def test_the_page_is_what_the_script_writes() -> None:
    kept = DOCS / "results.json"
    ours = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    assert (DOCS / "results.md").read_text(encoding="utf-8") == results.page(PUBLISHED, ours)


def test_data_sets_and_metrics_are_those_of_segrl() -> None:
    known = {metric.name for metric in CATALOGUE}
    for table in PUBLISHED["tables"]:
        assert set(table["metrics"]) <= known
        for row in table["rows"]:
            assert row["dataset"] in NAMES
            assert len(row["published"]) == len(table["metrics"])
    assert len({table["key"] for table in PUBLISHED["tables"]}) == len(PUBLISHED["tables"])


def test_a_run_fills_the_row_of_its_data_set(tmp_path: Path) -> None:
    run = save_run(tmp_path / "a", "reasonseg", {"split": "test"})
    results.main([f"sam-r1-7b={run}"], tmp_path)
    (line,) = [row for row in (tmp_path / "results.md").read_text().splitlines() if "61.2" in row]
    assert line == "| ReasonSeg test | 60.2 | 54.3 | 61.2 (60.0–62.5) | 55.0 | 779 |"
    results.main([], tmp_path)
    assert line in (tmp_path / "results.md").read_text()
    general = {"benchmarks": {"MME": {"value": 1580.4}, "POPE": {"value": None}}, "run": {}}
    (tmp_path / "general.json").write_text(json.dumps(general))
    results.main([f"general.RL={tmp_path}"], tmp_path)
    page = (tmp_path / "results.md").read_text()
    assert "| RL | 77.8 | 1581 | 86.2 | 78 |  | 1580.4 |  |  |" in page
    assert line in page


def test_an_evaluation_fills_its_row(tmp_path: Path) -> None:
    save_image(tmp_path / "ReasonSeg" / "test" / "a.jpg")
    shape = {"label": "target", "points": [[2, 1], [7, 1], [7, 5], [2, 5]]}
    save_json(tmp_path / "ReasonSeg" / "test" / "a.json", {"text": ["?"], "is_sentence": False, "shapes": [shape]})
    options = {"root": str(tmp_path), "split": "test"}
    settings = EvalSettings("oracle", "reasonseg", segmenter="box", dataset_options=options)
    assert run(settings, tmp_path / "run", share=Share())
    results.main([f"sam-r1-7b={tmp_path / 'run'}"], tmp_path)
    assert "| ReasonSeg test | 60.2 | 54.3 | 100.0 | 100.0 | 1 |" in (tmp_path / "results.md").read_text()


@pytest.mark.parametrize(
    ("key", "dataset", "options", "test_time", "hint"),
    [
        ("sam-r1", "reasonseg", {"split": "test"}, PLAIN, "no table 'sam-r1'"),
        ("sam-r1-7b", "reasonseg", {"split": "train"}, PLAIN, "no row of sam-r1-7b"),
        ("sam-r1-7b", "reasonseg", {"split": "test", "sample": {"n": 9}}, PLAIN, "no row"),
        ("sam-r1-7b", "reasonseg", {"split": "test"}, "vote of 8", "test-time options"),
        ("general.base", "reasonseg", {}, PLAIN, "general.json"),
        ("general.ours", "reasonseg", {}, PLAIN, "base, SFT, RL"),
    ],
)
def test_runs_that_belong_nowhere(
    tmp_path: Path, key: str, dataset: str, options: dict[str, Any], test_time: str, hint: str
) -> None:
    run = save_run(tmp_path / "a", dataset, options, test_time)
    with pytest.raises(DataError, match=hint):
        results.main([f"{key}={run}"], tmp_path)
    with pytest.raises(DataError, match="KEY=RUN"):
        results.main(["sam-r1-7b"], tmp_path)


def test_a_run_without_a_split_is_of_the_readers_default(tmp_path: Path) -> None:
    results.main([f"sam-r1-7b={save_run(tmp_path / 'a', 'reasonseg', {})}"], tmp_path)
    assert "| ReasonSeg val | 64.0 | 55.8 | 61.2 (60.0–62.5) | 55.0 | 779 |" in (tmp_path / "results.md").read_text()
