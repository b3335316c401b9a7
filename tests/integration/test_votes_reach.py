"""Votes, words and confidence from the command line, in Python, over HTTP and on the page: one test for each way."""

from __future__ import annotations

import io
import json
from pathlib import Path

import gradio as gr
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from scripted import ScriptedPolicy
from serving import png, text_of
from typer.testing import CliRunner
from word_scene import scene

import segrl
from segrl import segmenters
from segrl.cli.app import app
from segrl.errors import SegrlError
from segrl.evaluation import EvalDir
from segrl.loading import make_text_to_masks
from segrl.pipeline import Pipeline
from segrl.policies import Completion
from segrl.types import ORIGINAL, Status
from segrl.web.app import create_app
from segrl.web.demo.options import chosen, decoding_of
from segrl.web.limits import Limits

LEFT, RIGHT = "<bbox>[2,2,12,22]</bbox>", "<bbox>[20,2,36,22]</bbox>"
BOTH = "<bbox>[2,2,12,22]</bbox>, <bbox>[20,2,36,22]</bbox>"
NONE = "<bbox>[]</bbox>, <points>[]</points>, <labels>[]</labels>"
TEXTS = [BOTH, BOTH, LEFT, "broken"]
COMMAND = CliRunner()


class Sampler(ScriptedPolicy):
    """The same four samples for every question."""

    def generate(self, images, prompts, *, num_samples=1, **options):
        return [[Completion(text) for text in (TEXTS * 4)[:num_samples]] for _ in prompts]


def model() -> Pipeline:
    policy = Sampler({}, frame=ORIGINAL)
    return Pipeline(policy, make_text_to_masks(policy, segmenters.load("box")))


def run(*words: str) -> str:
    result = COMMAND.invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.output


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for i, colour in enumerate([(120, 120, 120), (90, 90, 90), (150, 150, 150)]):
        picture = scene()
        picture.paste(Image.new("RGB", (160, 8), colour), (0, 112))
        picture.save(folder / f"{i}.png")
    Image.new("RGB", (160, 120), (100, 100, 100)).save(folder / "empty.png")
    return folder


def test_python_votes_and_leaves_out_what_is_not_sure():
    result = model().segment(Image.new("RGB", (40, 30)), "both", decoding=segrl.Decoding(samples=4))
    assert (result.votes.samples, result.votes.readable) == (4, 3)
    assert result.confidence.tolist() == pytest.approx([1, 2 / 3])
    assert result.samples == tuple(TEXTS)
    assert len(result.surer(0.9).masks) == 1
    assert result.surer(1.1).status is Status.NO_TARGET
    assert result.to_detections().confidence.tolist() == result.confidence.tolist()
    stream = model().stream(Image.new("RGB", (40, 30)), "both", decoding=segrl.Decoding(samples=4))
    assert ("".join(stream), stream.result.votes) == (result.text, result.votes)


def test_the_command_line_votes_sorts_and_writes_what_is_doubtful(tmp_path):
    folder, out = pictures(tmp_path / "photos"), tmp_path / "out"
    said = ["--policy", "words", "--segmenter", "shapes", "--query", "red square", "--format", "coco,label-studio,rle"]
    vote = [
        "--samples",
        "4",
        "--temperature",
        "0.7",
        "--seed",
        "1",
        "--vote",
        "mask=consensus",
        "--vote",
        "nothing=0.6",
    ]
    chosen_by = ["--by-doubt", "--review", "2", "--min-confidence", "0.5"]
    run("segment", str(folder), "--out", str(out), *said, *vote, *chosen_by)
    coco = json.loads((out / "coco.json").read_text())
    assert [one["score"] for one in coco["annotations"]] == [1.0] * 3
    reviewed = [json.loads(line) for line in (out / "review" / "review.jsonl").read_text().splitlines()]
    assert [one["confidence"] for one in reviewed] == [1.0, 1.0]
    assert len(json.loads((out / "review" / "label-studio" / "tasks.json").read_text())) == 2
    assert len(list((out / "review" / "labelme").glob("*.json"))) == 2
    kept = json.loads((out / "segment.json").read_text())
    assert kept["decoding"] == {
        "samples": 4,
        "temperature": 0.7,
        "seed": 1,
        "vote": {"mask": "consensus", "nothing": 0.6},
    }
    assert kept["min_confidence"] == 0.5


def test_a_folder_without_confidence_cannot_be_sorted(tmp_path):
    folder = pictures(tmp_path / "photos")
    words = ["--policy", "words", "--segmenter", "shapes", "--query", "green star", "--review", "2"]
    result = COMMAND.invoke(app, ["segment", str(folder), "--out", str(tmp_path / "out"), *words])
    assert isinstance(result.exception, SegrlError) or result.exit_code == 2


def test_eval_measures_the_query_as_asked_beside_the_policy(tmp_path):
    out = tmp_path / "eval"
    words = ["eval", "--dataset", "tiny", "--policy", "oracle", "--answer-format", "concept", "--segmenter", "shapes"]
    run(*words, "--out", str(out), "n=4", "seed=9100", "says=words", "gold=tight", "policy.prompts=example")
    assert EvalDir(out).baseline.is_finished
    assert "query as asked" in EvalDir(out).report.read_text()
    fewer = ["--out", str(tmp_path / "plain"), "--no-baseline", "n=2", "seed=9100", "says=words"]
    plain = run(*words, *fewer, "policy.prompts=example")
    assert "as asked" not in plain


def test_http_votes_and_says_how_far_the_samples_agree():
    with TestClient(create_app(model())) as client:
        asked = {"image": text_of(png()), "query": "both"}
        how = {"samples": 4, "temperature": 1, "seed": 3, "vote": {"mask": "consensus"}}
        (found,) = client.post("/v1/segment", json={**asked, "decoding": how}).json()["results"]
        assert [mask["confidence"] for mask in found["masks"]] == pytest.approx([1, 2 / 3])
        assert found["votes"]["agreement"] == pytest.approx([1, 2 / 3])
        (sure,) = client.post("/v1/segment", json={**asked, "decoding": how, "min_confidence": 0.9}).json()["results"]
        assert len(sure["masks"]) == len(sure["prompts"]) == 1
        form = {"query": "both", "decoding": json.dumps(how), "min_confidence": "0.9"}
        sent = client.post("/v1/segment", data=form, files={"image": ("a.png", png())}).json()["results"]
        assert len(sent[0]["masks"]) == 1
        for wrong in ({"samples": 99}, {"samples": 0}, {"samples": 2, "second_look": True}, {"vote": {"mask": "x"}}):
            assert client.post("/v1/segment", json={**asked, "decoding": wrong}).status_code == 422


def test_http_takes_words_as_mask_prompts_where_the_segmenter_does():
    words, data = segrl.load("words", segmenter="shapes"), io.BytesIO()
    scene().save(data, "PNG")
    asked = {"image": text_of(data.getvalue()), "prompts": [{"phrase": "red"}]}
    with TestClient(create_app(words)) as client:
        body = client.post("/v1/masks", json=asked).json()
        assert len(body["masks"]) == len(body["prompts"]) == 2
        nothing = client.post("/v1/masks", json={**asked, "prompts": [{"phrase": "green star"}]}).json()
        assert nothing["masks"] == []
    with TestClient(create_app(model())) as client:
        refused = client.post("/v1/masks", json=asked)
        assert refused.status_code == 422
        assert "does not take" in refused.json()["detail"]


def test_the_page_has_a_control_for_every_option():
    own, limits = segrl.Decoding(), Limits(max_samples=8)
    options = chosen((4, None, 2, False, 0.8, 0.3, 0.6, "consensus", 0.4))
    found = decoding_of(options, own, limits)
    assert (found.samples, found.heat, found.seed, found.vote.mask) == (4, 1, 2, "consensus")
    assert (found.vote.same_object, found.vote.least_votes, found.vote.nothing) == (0.8, 0.3, 0.6)
    assert options.min_confidence == 0.4
    assert decoding_of(chosen((1, None, 0, True, 0.85, 0.2, 0.5, "best", 0)), own, limits).second_look
    for wrong in ((9, None, 0, False, 0.85, 0.2, 0.5, "best", 0), (2, None, 0, True, 0.85, 0.2, 0.5, "best", 0)):
        with pytest.raises(gr.Error):
            decoding_of(chosen(wrong), own, limits)
