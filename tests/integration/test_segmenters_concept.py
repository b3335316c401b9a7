"""SAM 3 asked with words: equal to the reference processor and model, each image and phrase encoded once."""

from __future__ import annotations

import pytest
import torch
import transformers
from PIL import Image
from random_weights import save_random

from segrl import segmenters
from segrl.errors import ModelError
from segrl.segmenters.concept import CONCEPT_MODELS
from segrl.types import ORIGINAL, Answer, MaskPrompt, Status


@pytest.fixture(scope="module", params=["sam3", "sam3_video", "sam3_lite_text"])
def path(request, tmp_path_factory):
    return str(save_random(request.param, tmp_path_factory.mktemp(request.param)))


def load(path: str, **options):
    return segmenters.load(f"concept:{path}", device="cpu", score_threshold=0.0, **options)


def image(value: int) -> Image.Image:
    return Image.linear_gradient("L").resize((50, 30)).convert("RGB").point(lambda v: (v + value) % 256)


def plain(path: str, picture: Image.Image, words: str | None, boxes=(), labels=()):
    """Masks and scores of the plain path, surest first; empty masks left out."""
    kind = transformers.AutoConfig.from_pretrained(path).model_type
    model = getattr(transformers, CONCEPT_MODELS[kind]).from_pretrained(path).eval()
    processor = transformers.Sam3Processor.from_pretrained(path)
    examples = {"input_boxes": [boxes], "input_boxes_labels": [labels]} if boxes else {}
    inputs = processor(images=picture, text=[words] if words else None, return_tensors="pt", **examples)
    with torch.no_grad():
        output = model(**{name: value for name, value in inputs.items() if name != "original_sizes"})
    [found] = processor.post_process_instance_segmentation(output, 0.0, target_sizes=inputs["original_sizes"].tolist())
    order = found["scores"].argsort(descending=True)
    masks, scores = found["masks"].bool()[order], found["scores"][order]
    return masks[masks.any(dim=(1, 2))], scores[masks.any(dim=(1, 2))]


EXAMPLES = {
    "a phrase": (MaskPrompt(phrase="cat", frame=ORIGINAL), ("cat", [], [])),
    "a phrase with examples": (
        MaskPrompt(
            phrase="cat", exemplars_xyxy=((5, 5, 20, 20), (30, 2, 44, 28)), exemplar_labels=(1, 0), frame=ORIGINAL
        ),
        ("cat", [[5.0, 5.0, 20.0, 20.0], [30.0, 2.0, 44.0, 28.0]], [1, 0]),
    ),
    "examples alone": (
        MaskPrompt(exemplars_xyxy=((5, 5, 20, 20),), exemplar_labels=(1,), frame=ORIGINAL),
        (None, [[5.0, 5.0, 20.0, 20.0]], [1]),
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_found_is_what_the_plain_path_finds(path, name):
    prompt, asked = EXAMPLES[name]
    [found] = segmenters.segment(load(path), [image(0)], [Answer(Status.OK, (prompt,))])
    masks, scores = plain(path, image(0), *asked)
    assert len(masks) > 0
    assert torch.equal(found.masks, masks)
    assert torch.allclose(found.scores, scores)
    assert [prompt.phrase for prompt in found.answer.prompts] == [prompt.phrase] * len(masks)


def test_an_image_is_encoded_once_however_many_phrases_ask(path):
    segmenter = load(path, decode_batch=8, cache_bytes=0)
    words = ["cat", "dog", "cat", "cat"]
    answers = [Answer(Status.OK, (MaskPrompt(phrase=one, frame=ORIGINAL),)) for one in words]
    found = segmenters.segment(segmenter, [image(0), image(0), image(90), image(0)], answers)
    alone = segmenters.segment(load(path, decode_batch=1, cache_bytes=0), [image(90)], answers[2:3])
    assert segmenter.encoder_calls == 2
    assert torch.equal(found[0].masks, found[3].masks)
    assert (found[2].masks != alone[0].masks).float().mean() < 0.01  # a batch may change the last bits


def test_a_box_marks_the_one_that_fits_it_best(path):
    prompt = MaskPrompt((5, 5, 20, 20), phrase="cat", frame=ORIGINAL)
    [found] = segmenters.segment(load(path), [image(0)], [Answer(Status.OK, (prompt,))])
    masks, _ = plain(path, image(0), "cat", [[5.0, 5.0, 20.0, 20.0]], [1])
    assert found.masks.shape == (1, 30, 50)
    assert any(torch.equal(found.masks[0], mask) for mask in masks)
    assert found.answer.prompts == (prompt,)


def test_nothing_found_is_said(path):
    prompt = MaskPrompt(phrase="cat", frame=ORIGINAL)
    segmenter = segmenters.load(f"concept:{path}", device="cpu", score_threshold=1.0)
    [found] = segmenters.segment(segmenter, [image(0)], [Answer(Status.OK, (prompt,))])
    assert (found.answer.status, found.masks.shape) == (Status.NO_TARGET, (0, 30, 50))
    assert '"cat"' in found.answer.detail


def test_a_long_phrase_is_cut_where_the_model_ends(path):
    prompt = MaskPrompt(phrase="the cat that sits " * 10, frame=ORIGINAL)
    [found] = segmenters.segment(load(path), [image(0)], [Answer(Status.OK, (prompt,))])
    assert len(found.masks) > 0


def test_points_alone_are_one_line(path):
    prompt = MaskPrompt(points_xy=((5, 5),), labels=(1,), frame=ORIGINAL)
    with pytest.raises(ModelError, match="only beside a phrase or a box"):
        segmenters.segment(load(path), [image(0)], [Answer(Status.OK, (prompt,))])


def test_a_model_without_words_is_one_line(tmp_path):
    with pytest.raises(ModelError, match="is a sam2, which takes no words"):
        segmenters.load(f"concept:{save_random('sam2', tmp_path)}")
