"""Every option of how one answer is made, from the command line, in Python, over HTTP and on the page.

`CASES` × `WAYS`: the same option the four ways, with the same outcome. Words, doubt and the baseline are in
test_words_and_doubt_reach.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from demo_panel import panel_of
from fastapi.testclient import TestClient
from folder_runs import segment as command
from PIL import Image
from scripted import ScriptedPolicy
from serving import png, text_of

import segrl
from segrl import loading, segmenters
from segrl.errors import SegrlError
from segrl.files import read_rows
from segrl.loading import make_text_to_masks
from segrl.masks import from_rle
from segrl.pipeline import Pipeline
from segrl.policies import Completion
from segrl.result import Result
from segrl.types import ORIGINAL, Status
from segrl.web.app import create_app
from segrl.web.demo import page, turns
from segrl.web.demo.options import chosen, decoding_of
from segrl.web.demo.results import of_result
from segrl.web.limits import Limits

LEFT, RIGHT, NEARLY_LEFT = "<bbox>[2,2,12,22]</bbox>", "<bbox>[20,2,36,22]</bbox>", "<bbox>[4,2,12,22]</bbox>"
WIDER = "<bbox>[2,2,14,22]</bbox>"
BOTH = f"{LEFT}, {RIGHT}"
NONE = "<bbox>[]</bbox>, <points>[]</points>, <labels>[]</labels>"
DONE = "<answer>done</answer>"
WH = (40, 30)
TURNS = (BOTH, LEFT, DONE)


class Sampler(ScriptedPolicy):
    """The same samples for every question, and the same turns; keeps the options that it is asked with."""

    def __init__(self, samples: Sequence[str]) -> None:
        super().__init__({}, frame=ORIGINAL)
        self.samples, self.asked = samples, list[dict[str, Any]]()

    def generate(self, images, prompts, *, num_samples=1, **options):
        self.asked.append({"samples": num_samples, **options})
        return [[Completion(text) for text in (list(self.samples) * 4)[:num_samples]] for _ in prompts]

    def reply(self, chats, **options):
        self.asked.append({"samples": 1, **options})
        return [[Completion(TURNS[len(chat.exchanges)])] for chat in chats]


def pipeline(policy: ScriptedPolicy, **options: Any) -> Pipeline:
    return Pipeline(policy, make_text_to_masks(policy, segmenters.load("box")), **options)


@dataclass(frozen=True)
class Case:
    """An option: decoding in plain values, and what comes of it: each object's confidence and area, and a check of
    what the policy was asked."""

    decoding: Mapping[str, Any]
    samples: Sequence[str]
    confidence: Sequence[float | None]
    areas: Sequence[int]
    asks: Callable[[list[dict[str, Any]]], bool] = lambda asked: True
    min_confidence: float = 0.0


FOUR = (BOTH, BOTH, LEFT, "broken")
CASES = {
    "samples": Case({"samples": 4}, FOUR, (1, 0.666667), (200, 320), lambda asked: asked[0]["samples"] == 4),
    "temperature": Case(
        {"samples": 2, "temperature": 0.7}, FOUR, (1, 1), (200, 320), lambda asked: asked[0]["temperature"] == 0.7
    ),
    "seed": Case({"samples": 2, "seed": 5}, FOUR, (1, 1), (200, 320), lambda asked: asked[0]["seed"] == 5),
    "vote.same_object": Case(
        {"samples": 2, "vote": {"same_object": 0.75}}, (LEFT, NEARLY_LEFT), (1,), (200,), lambda asked: True
    ),
    "vote.least_votes": Case({"samples": 4, "vote": {"least_votes": 0.8}}, (BOTH, BOTH, LEFT, BOTH), (1,), (200,)),
    "vote.nothing": Case({"samples": 4, "vote": {"nothing": 0.25}}, (BOTH, BOTH, BOTH, NONE), (), ()),
    "vote.mask": Case(
        {"samples": 3, "vote": {"mask": "consensus", "same_object": 0.6}}, (NEARLY_LEFT, WIDER, LEFT), (1,), (200,)
    ),
    "second_look": Case({"second_look": True}, (LEFT,), (None,), (200,), lambda asked: len(asked) == 2),
    "turns": Case({"turns": 3}, (BOTH,), (None,), (200,), lambda asked: len(asked) == 3),
    "min_confidence": Case({"samples": 4}, FOUR, (1,), (200,), min_confidence=0.9),
}


@dataclass
class Outcome:
    """Confidence and area of each object, and what the policy was asked."""

    confidence: Sequence[float | None]
    areas: Sequence[int]
    asked: list[dict[str, Any]] = field(default_factory=list)


def outcome_of(result: Result) -> Outcome:
    told = [None] * len(result.masks) if result.confidence is None else result.confidence.tolist()
    return Outcome(told, [int(mask.sum()) for mask in result.masks])


def in_python(case: Case, policy: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    decoding = segrl.Decoding.of(case.decoding)
    return outcome_of(pipeline(policy).segment(picture(), "both", decoding=decoding).surer(case.min_confidence))


def by_command(case: Case, policy: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    asked = policy

    def load(policy: str = "", decoding: Mapping[str, Any] | None = None, **options: Any) -> Pipeline:
        return pipeline(asked, decoding=segrl.Decoding.of(decoding or {}))

    monkeypatch.setattr(loading, "load", load)
    picture().save(tmp_path / "a.png")
    words = []
    for name, value in case.decoding.items():
        if name == "vote":
            words += [word for key, one in value.items() for word in ("--vote", f"{key}={one}")]
        else:
            words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    words += ["--min-confidence", str(case.min_confidence)]
    ran = command(tmp_path / "a.png", "-q", "both", "--out", tmp_path / "out", *words)
    assert ran.exit_code == 0, ran.output
    (answer,) = read_rows(tmp_path / "out" / "results.jsonl")[0]["answers"]
    told = answer["votes"]["agreement"] if "votes" in answer else [None] * len(answer["masks"])
    return Outcome(told, [int(from_rle(rle).sum()) for rle in answer["masks"]])


def over_http(case: Case, policy: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    body = {"image": text_of(png(WH)), "query": "both", "min_confidence": case.min_confidence}
    body["decoding"] = {name: value for name, value in case.decoding.items() if name != "turns"}
    body |= {"turns": case.decoding["turns"]} if "turns" in case.decoding else {}
    with TestClient(create_app(pipeline(policy))) as client:
        answer = client.post("/v1/segment", json=body)
    assert answer.status_code == 200, answer.text
    masks = answer.json()["results"][0]["masks"]
    return Outcome([mask["confidence"] for mask in masks], [mask["area"] for mask in masks])


def on_the_page(case: Case, policy: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    panel = panel_of(pipeline(policy), tmp_path)
    kept = panel.kept
    plain = {"samples": 1, "temperature": None, "seed": 0, "second_look": False}
    rule = {"same_object": 0.85, "least_votes": 0.2, "nothing": 0.5, "mask": "best"} | case.decoding.get("vote", {})
    controls = [case.decoding.get(name, value) for name, value in plain.items()]
    asked = page.Asked(kept.pictures.put(picture()), "a.png", "both")
    asked = kept.answered_as(asked, case.decoding.get("turns", 1), *controls, *rule.values(), case.min_confidence)
    key = list(panel.answer(asked))[-1][-1]
    for shown in turns.begin(panel, asked, key):
        key = shown[len(panel.outputs) - 1] if isinstance(shown[len(panel.outputs) - 1], str) else key
    result = kept.store.get(key)
    assert result is not None
    return outcome_of(result)


def picture() -> Image.Image:
    return Image.new("RGB", WH, (90, 90, 90))


WAYS = {"command line": by_command, "Python": in_python, "HTTP": over_http, "page": on_the_page}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_an_option_of_an_answer(name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    case, policy = CASES[name], Sampler(CASES[name].samples)
    found = WAYS[way](case, policy, tmp_path, monkeypatch)
    assert list(found.areas) == list(case.areas)
    assert [None if one is None else round(one, 6) for one in found.confidence] == list(case.confidence)
    assert case.asks(policy.asked)


@pytest.mark.parametrize("name", ["vote.same_object", "vote.least_votes", "vote.nothing", "vote.mask"])
def test_each_number_of_the_rule_makes_a_difference(name: str):
    case = CASES[name]
    plain = pipeline(Sampler(case.samples)).segment(
        picture(), "both", decoding=segrl.Decoding(samples=case.decoding["samples"])
    )
    found = outcome_of(plain)
    assert (list(found.areas), list(found.confidence)) != (list(case.areas), list(case.confidence))


def test_a_server_that_was_started_with_a_vote_takes_turns_and_a_second_look_in_its_place():
    with TestClient(create_app(pipeline(Sampler(FOUR), decoding=segrl.Decoding(samples=4)))) as client:
        asked = {"image": text_of(png(WH)), "query": "both"}
        assert client.post("/v1/segment", json=asked).json()["results"][0]["votes"]["samples"] == 4
        (found,) = client.post("/v1/segment", json={**asked, "turns": 3}).json()["results"]
        assert (found["votes"], len(found["turns"])) == (None, 3)
        assert client.post("/v1/segment", json={**asked, "decoding": {"second_look": True}}).status_code == 200
        both = {**asked, "turns": 3, "decoding": {"samples": 2}}
        refused = client.post("/v1/segment", json=both)
        assert (refused.status_code, "choose one" in refused.json()["detail"]) == (422, True)
    with TestClient(create_app(pipeline(Sampler(FOUR), decoding=segrl.Decoding(turns=3)))) as client:
        assert len(client.post("/v1/segment", json=asked).json()["results"][0]["turns"]) == 3
        assert client.post("/v1/segment", json={**asked, "turns": 1}).json()["results"][0]["turns"] == []
        (voted,) = client.post("/v1/segment", json={**asked, "decoding": {"samples": 4}}).json()["results"]
        assert voted["votes"]["samples"] == 4


def test_a_policy_that_takes_single_requests_is_refused_turns_before_it_serves():
    with pytest.raises(SegrlError, match="answers single requests only"):
        segrl.load("words", segmenter="shapes", decoding={"turns": 3})


def test_forms_take_the_options_and_wrong_ones_are_refused():
    with TestClient(create_app(pipeline(Sampler(FOUR)))) as client:
        how = {"samples": 4, "temperature": 1, "seed": 3, "vote": {"mask": "consensus"}}
        form = {"query": "both", "decoding": json.dumps(how), "min_confidence": "0.9"}
        sent = client.post("/v1/segment", data=form, files={"image": ("a.png", png(WH))}).json()["results"]
        assert (len(sent[0]["masks"]), len(sent[0]["prompts"])) == (1, 1)
        asked = {"image": text_of(png(WH)), "query": "both"}
        for wrong in ({"samples": 99}, {"samples": 0}, {"samples": 2, "second_look": True}, {"vote": {"mask": "x"}}):
            assert client.post("/v1/segment", json={**asked, "decoding": wrong}).status_code == 422


def test_the_page_refuses_what_does_not_go_together():
    own, limits = segrl.Decoding(), Limits(max_samples=8)
    for wrong in ((9, None, 0, False, 0.85, 0.2, 0.5, "best", 0), (2, None, 0, True, 0.85, 0.2, 0.5, "best", 0)):
        with pytest.raises(gr.Error):
            decoding_of(chosen(wrong), own, limits)
    vote = chosen((2, None, 0, False, 0.85, 0.2, 0.5, "best", 0))
    with pytest.raises(gr.Error, match="choose one"):
        decoding_of(vote, own, limits, turns=3)
    assert decoding_of(vote, segrl.Decoding(turns=3), limits).samples == 2


def test_a_stream_votes_and_a_result_says_what_agrees():
    model = pipeline(Sampler(FOUR))
    result = model.segment(picture(), "both", decoding=segrl.Decoding(samples=4))
    assert (result.votes.samples, result.votes.readable, result.samples) == (4, 3, FOUR)
    nothing = result.surer(1.1)
    assert (nothing.status, len(nothing.masks), nothing.samples) == (Status.NO_TARGET, 0, FOUR)
    assert "no object has a confidence of 1.1 or more." in of_result(nothing)
    assert result.to_detections().confidence.tolist() == result.confidence.tolist()
    stream = model.stream(picture(), "both", decoding=segrl.Decoding(samples=4))
    assert ("".join(stream), stream.result.votes) == (result.text, result.votes)
