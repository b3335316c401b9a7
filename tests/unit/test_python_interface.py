"""What a person meets at `import segrl`: names, results that show and write themselves, prompts, empty queries."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripted import ScriptedPolicy

import segrl
from segrl import exports, segmenters
from segrl.errors import DataError, SegrlError
from segrl.loading import folder_options
from segrl.pipeline import Pipeline
from segrl.result import Result
from segrl.text_to_masks import TextToMasks
from segrl.types import ORIGINAL, Answer, MaskPrompt, Status


@pytest.fixture
def result() -> Result:
    image = Image.new("RGB", (40, 30), (200, 10, 10))
    masks = np.zeros((2, 30, 40), dtype=bool)
    masks[0, 5:15, 5:20] = masks[1, 20:28, 25:38] = True
    prompts = (MaskPrompt((5, 5, 20, 15), frame=ORIGINAL), MaskPrompt((25, 20, 38, 28), frame=ORIGINAL))
    return Result(image, "the cups", "…", Answer(Status.OK, prompts), masks, np.array([0.9, 0.5], dtype=np.float32))


def test_dir_shows_what_there_is() -> None:
    assert {"load", "train", "evaluate", "report", "Result", "MaskPrompt", "answers"} <= set(dir(segrl))
    for name in segrl.__all__:
        assert getattr(segrl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = segrl.laod


def test_a_result_shows_itself_in_a_notebook(result: Result) -> None:
    shown = Image.open(io.BytesIO(result._repr_png_()))
    assert shown.size == result.image.size
    assert np.array_equal(np.asarray(shown), np.asarray(result.overlay()))


def test_a_cutout_is_transparent_where_no_mask_is(result: Result) -> None:
    cutout = np.asarray(result.cutout())
    assert np.array_equal(cutout[..., 3] > 0, result.mask)
    assert (cutout[..., :3] == (200, 10, 10)).all()


def test_a_result_as_detections(result: Result) -> None:
    detections = result.to_detections()
    assert detections.xyxy.tolist() == [[5, 5, 20, 15], [25, 20, 38, 28]]
    assert np.array_equal(detections.mask, result.masks)
    assert detections.confidence.tolist() == pytest.approx([0.9, 0.5])
    assert list(detections.data["class_name"]) == ["the cups"] * 2
    nothing = Result(result.image, "a", "", Answer(Status.NO_TARGET), result.masks[:0])
    assert len(nothing.to_detections()) == 0


def test_a_result_writes_every_export(result: Result, tmp_path: Path) -> None:
    written = result.save(tmp_path, exports.names(), name="cups")
    assert len(written) == len(exports.names())
    assert all(path.exists() for path in written)
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert (coco["images"][0]["file_name"], len(coco["annotations"])) == ("cups.png", 2)
    with pytest.raises(SegrlError, match="coco"):
        result.save(tmp_path, ["cocoo"])


def test_points_alone_need_no_box() -> None:
    assert MaskPrompt(points_xy=((5, 6),), labels=(1,)).box_xyxy is None


def test_an_empty_query_is_refused() -> None:
    policy = ScriptedPolicy({"cup": ["<bbox>[1,2,9,9]</bbox>"]}, key=lambda image, prompt: "cup")
    pipeline = Pipeline(policy, TextToMasks(segrl.answers.get("seg-r1"), policy.frame_for, segmenters.load("box")))
    image = Image.new("RGB", (20, 20))
    for query in ("", "  \n"):
        with pytest.raises(DataError, match="the query is empty"):
            pipeline.segment(image, query)
        with pytest.raises(DataError, match="the query is empty"):
            pipeline.stream(image, query)
    good, bad = pipeline.try_many([(image, "a cup"), (image, "")], batch_size=2)
    assert isinstance(good, Result)
    assert isinstance(bad, DataError)


@pytest.mark.parametrize("said", [{"temperature": 0}, {"trust_remote_code": False}, {"system": ""}, {"max_edge": 0.0}])
def test_what_is_given_as_nothing_is_given(said: dict[str, object]) -> None:
    assert said.items() <= folder_options("tiny-scenes", **said).items()


def test_a_folder_does_not_keep_what_was_not_given() -> None:
    plain = {"segmenter": "grabcut", "policy": "tiny-scenes", "reading": "lenient"}
    plain |= {"answer_format": None, "max_new_tokens": None}
    assert folder_options("tiny-scenes", base=None, decoding={}, segmenter=None) == plain
    with pytest.raises(SegrlError, match="max_new_tokens is a whole number from 1 on, not 0"):
        segrl.load("tiny-scenes", max_new_tokens=0)
