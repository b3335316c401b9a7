"""Words, the order by doubt, reviews and the baseline: from the command line, in Python, over HTTP and on the page.

A test for each way there is: over HTTP there is no folder, so nothing is sorted or reviewed there, and no ground truth,
so there is no baseline.
"""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from demo_panel import in_blocks, panel_of
from fastapi.testclient import TestClient
from folder_runs import segment as command
from PIL import Image
from scripted import ScriptedPolicy
from serving import text_of
from word_scene import scene

import segrl
from segrl import loading, segmenters
from segrl.errors import SegrlError
from segrl.evaluation import EvalDir
from segrl.files import read_rows
from segrl.loading import make_text_to_masks
from segrl.masks import from_rle
from segrl.pipeline import Pipeline
from segrl.result import Result
from segrl.types import ORIGINAL, Answer, MaskPrompt, Status, Votes
from segrl.web.app import create_app
from segrl.web.demo import page
from segrl.web.demo.history import Entry, Past
from segrl.web.demo.results import ResultStore

WAYS = ("command line", "Python", "HTTP", "page")


def areas(result: Result) -> list[int]:
    return [int(mask.sum()) for mask in result.masks]


def words_model(**options: Any) -> Pipeline:
    return segrl.load("words", segmenter="shapes", **options)


def the_four_ways(model: Pipeline, query: str, folder: Path, *parts: str) -> list[list[int]]:
    """The areas of the masks of the scene by Python, the command line with these options, HTTP and the page."""
    scene().save(folder / "a.png")
    ran = command(folder / "a.png", "-q", query, "--out", folder / "out", *parts)
    assert ran.exit_code == 0, ran.output
    (answer,) = read_rows(folder / "out" / "results.jsonl")[0]["answers"]
    with TestClient(create_app(model)) as client:
        body = {"image": text_of(scene_bytes()), "query": query}
        masks = client.post("/v1/segment", json=body).json()["results"][0]["masks"]
    return [
        areas(model.segment(scene(), query)),
        [int(from_rle(rle).sum()) for rle in answer["masks"]],
        [mask["area"] for mask in masks],
        areas(asked_on_a_page(model, folder)),
    ]


def test_the_policy_words_the_four_ways(tmp_path):
    parts = ["--policy", "words", "--segmenter", "shapes"]
    expected, *others = the_four_ways(words_model(), "red square", tmp_path, *parts)
    assert expected
    assert others == [expected] * 3


def asked_on_a_page(model: Pipeline, folder: Path) -> Result:
    panel = panel_of(model, folder)
    asked = page.Asked(panel.kept.pictures.put(scene()), "a.png", "red square")
    found = panel.kept.store.get(list(panel.answer(asked))[-1][-1])
    assert found is not None
    return found


def scene_bytes() -> bytes:
    data = io.BytesIO()
    scene().save(data, "PNG")
    return data.getvalue()


CONCEPT = '<think>the red one</think> <answer>[{"phrase": "red square"}]</answer>'


def test_the_answer_format_concept_the_four_ways(tmp_path, monkeypatch):
    def load(policy: str = "", answer_format: str | None = None, segmenter: str = "", **options: Any) -> Pipeline:
        scripted = ScriptedPolicy({}, default=CONCEPT)
        return Pipeline(scripted, make_text_to_masks(scripted, segmenters.load(segmenter), answer_format, "lenient"))

    monkeypatch.setattr(loading, "load", load)
    model = load(answer_format="concept", segmenter="shapes")
    parts = ["--policy", "P", "--segmenter", "shapes", "--answer-format", "concept"]
    expected, *others = the_four_ways(model, "red square", tmp_path, *parts)
    assert len(expected) == 1
    assert others == [expected] * 3


PROMPTS = {
    "phrase": ({"phrase": "red"}, 2),
    "phrase in a box": ({"phrase": "red", "box_xyxy": [10, 65, 60, 115]}, 1),
    "exemplars": ({"exemplars_xyxy": [[18, 18, 62, 62], [68, 18, 107, 57]], "exemplar_labels": [1, 0]}, 1),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PROMPTS)
def test_words_as_mask_prompts(name: str, way: str, tmp_path):
    prompt, count = PROMPTS[name]
    model = words_model()
    if way == "Python":
        given = {key: tuple(map(tuple, value)) if key.endswith("s_xyxy") else value for key, value in prompt.items()}
        given |= {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
        assert len(model.masks(scene(), [segrl.MaskPrompt(**given)]).masks) == count
    elif way == "command line":
        scene().save(tmp_path / "a.png")
        row = {"image": "a.png", "query": "it", "prompts": [prompt]}
        (tmp_path / "prompts.jsonl").write_text(json.dumps(row))
        said = (tmp_path / "a.png", "--prompts", tmp_path / "prompts.jsonl")
        ran = command(*said, "--segmenter", "shapes", "--out", tmp_path / "out")
        assert ran.exit_code == 0, ran.output
        assert len(read_rows(tmp_path / "out" / "results.jsonl")[0]["answers"][0]["masks"]) == count
        refused = command(*said, "--segmenter", "box", "--out", tmp_path / "other")
        assert (refused.exit_code, "does not take" in refused.stderr) == (2, True), refused.stderr
    elif way == "HTTP":
        with TestClient(create_app(model)) as client:
            body = {"image": text_of(scene_bytes()), "prompts": [prompt]}
            found = client.post("/v1/masks", json=body).json()
        assert len(found["masks"]) == len(found["prompts"]) == count
    else:
        panel = panel_of(model, tmp_path)
        begun = panel.begin(page.Asked(panel.kept.pictures.put(scene()), "a.png", ""))
        assert begun[2]["words"]
        event = {"number": 1, "of": begun[-1], "objects": [{"box_xyxy": None, "points_xy": [], "labels": []} | prompt]}
        edited = panel.edit(gr.EventData(None, event))
        assert edited[2]["masks"] == count


def test_a_server_whose_segmenter_takes_no_words_refuses_them():
    with TestClient(create_app(segrl.load("tiny", segmenter="box"))) as client:
        asked = {"image": text_of(scene_bytes()), "prompts": [{"phrase": "red"}]}
        refused = client.post("/v1/masks", json=asked)
        assert (refused.status_code, "does not take" in refused.json()["detail"]) == (422, True)
    with TestClient(create_app(words_model())) as client:
        nothing = client.post("/v1/masks", json={**asked, "prompts": [{"phrase": "green star"}]}).json()
        assert nothing["masks"] == []


# Doubt.


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for i, colour in enumerate([(120, 120, 120), (90, 90, 90), (150, 150, 150)]):
        one = scene()
        one.paste(Image.new("RGB", (160, 8), colour), (0, 112))
        one.save(folder / f"{i}.png")
    Image.new("RGB", (160, 120), (100, 100, 100)).save(folder / "empty.png")
    return folder


def test_the_command_line_sorts_by_doubt_and_writes_what_is_reviewed(tmp_path):
    folder, out = pictures(tmp_path / "photos"), tmp_path / "out"
    said = ["--policy", "words", "--segmenter", "shapes", "-q", "red square", "--format", "coco,label-studio,rle"]
    chosen_by = ["--samples", "4", "--temperature", "0.7", "--by-doubt", "--review", "2", "--min-confidence", "0.5"]
    ran = command(folder, "--out", out, *said, *chosen_by)
    assert ran.exit_code == 0, ran.output
    coco = json.loads((out / "coco.json").read_text())
    assert [one["score"] for one in coco["annotations"]] == [1.0] * 3
    check_review(out, 2)
    kept = json.loads((out / "segment.json").read_text())
    assert (kept["decoding"], kept["min_confidence"]) == ({"samples": 4, "temperature": 0.7}, 0.5)
    # The same folder goes on in Python.
    done = segrl.segment(
        [folder],
        ["red square"],
        out,
        policy="words",
        segmenter="shapes",
        decoding={"samples": 4, "temperature": 0.7},
        min_confidence=0.5,
        review=3,
    )
    assert (done.new, done.skipped) == (0, 4)
    check_review(out, 3)


def check_review(out: Path, count: int) -> None:
    reviewed = read_rows(out / "review" / "review.jsonl")
    assert [one["confidence"] for one in reviewed] == [1.0] * count
    assert len(json.loads((out / "review" / "label-studio" / "tasks.json").read_text())) == count
    assert len(list((out / "review" / "labelme").glob("*.json"))) == count


def doubtful(*agreement: float) -> Result:
    """A result of a vote whose objects so many agree on."""
    prompts = tuple(MaskPrompt((2, 2, 12 + i, 22), frame=ORIGINAL) for i in range(len(agreement)))
    masks = np.ones((len(agreement), 30, 40), dtype=bool)
    votes = Votes(4, 4, 0, agreement)
    return Result(Image.new("RGB", (40, 30)), f"{min(agreement)}", "", Answer(Status.OK, prompts), masks, votes=votes)


def test_python_sorts_results_by_doubt(tmp_path):
    sure, unsure, unknown = doubtful(1, 0.9), doubtful(1, 0.3), replace(doubtful(1), query="unknown", votes=None)
    unread = replace(unknown, query="unread", answer=Answer(Status.BAD_SYNTAX), masks=unknown.masks[:0])
    ordered = segrl.by_doubt([unknown, sure, unsure, unread])
    assert [one.query for one in ordered] == ["unread", "0.3", "0.9", "unknown"]
    assert [one.least_confidence for one in ordered] == [0.0, 0.3, 0.9, None]
    for result in ordered[1:2]:
        result.save(tmp_path, ["label-studio", "labelme"], name=result.query)
    assert (tmp_path / "labelme" / "0.3.json").exists()


def test_the_page_lists_what_was_asked_by_doubt():
    store = ResultStore()
    past = in_blocks(lambda: Past.build(["mine"], store))
    history: list[Entry] = []
    for result in (doubtful(1, 0.9), doubtful(1, 0.3), doubtful(1, 0.6)):
        asked = page.Asked("x", "a.png", result.query)
        history, listed, order = past.keep(history, False, asked, store.put(result))
    assert ([place for _, place in listed.choices], listed.value, order.visible) == ([2, 1, 0], 2, True)
    listed = past.sort(history, True, 2)
    assert [place for _, place in listed.choices] == [1, 2, 0]
    assert listed.choices[0][0] == "2. 0.3: 2 objects (0.30)"
    assert listed.value == 2


def test_a_folder_without_confidence_cannot_be_sorted(tmp_path):
    folder = pictures(tmp_path / "photos")
    words = ["--policy", "words", "--segmenter", "shapes", "--query", "green star", "--review", "2"]
    ran = command(folder, "--out", tmp_path / "out", *words)
    assert (ran.exit_code, "ask for a vote" in ran.stderr) == (2, True), ran.stderr


# The baseline.


def test_eval_measures_the_query_as_asked_beside_the_policy(tmp_path):
    out = tmp_path / "eval"
    words = ["--dataset", "tiny", "--policy", "oracle", "--answer-format", "concept", "--segmenter", "shapes"]
    options = ["n=4", "seed=9100", "says=words", "gold=tight", "policy.prompts=example"]
    ran = command(*words, "--out", out, *options, name="eval")
    assert ran.exit_code == 0, ran.output
    assert EvalDir(out).baseline.is_finished
    assert "query as asked" in EvalDir(out).report.read_text()
    plain = command(*words, "--out", tmp_path / "plain", "--no-baseline", *options, name="eval")
    assert "as asked" not in plain.output


def test_evaluate_measures_the_query_as_asked_in_python(tmp_path):
    settings = {
        "dataset_options": {"n": 3, "seed": 9100, "says": "words", "gold": "tight"},
        "policy_options": {"prompts": "example"},
        "answer_format": "concept",
        "segmenter": "shapes",
    }
    found = segrl.evaluate("oracle", "tiny", tmp_path / "with", **settings)
    assert np.isfinite(found.baseline["giou"]["value"])
    assert segrl.evaluate("oracle", "tiny", tmp_path / "without", baseline=False, **settings).baseline is None
    with pytest.raises(SegrlError, match="did you mean"):
        segrl.evaluate("oracle", "tiny", tmp_path / "wrong", segmentor="shapes")
